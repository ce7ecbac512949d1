//! policy: when a name gets a new value by itself, and which.

use crate::chain::{Act, Caller, Change};
use crate::context::Context;
use crate::error::Error;
use crate::generate::Rules;
use crate::moment::Moment;
use crate::name::Name;
use crate::pause::Pause;
use crate::row::{Attribute, Row};
use crate::schedule::Schedule;
use crate::store::policy;
use crate::store::transaction::{Committed, Transaction};

use super::{Coffer, not_found};

/// The rotation policy of a name.
#[derive(Debug)]
pub struct Rotation {
    /// The name of the secret.
    pub name: Name,
    /// When it is due.
    pub schedule: Schedule,
    /// What its values are like.
    pub rules: Rules,
    /// The encryption context of its new versions; that of the version before if none.
    pub context: Option<Context>,
    /// When it is due next; never again if none.
    pub due: Option<Moment>,
    /// When it was renewed last.
    pub renewed_at: Option<Moment>,
    /// The number of the event that wrote it.
    pub(super) sequence: u64,
}

impl Rotation {
    /// A policy that is due at the next time of its schedule.
    #[must_use]
    pub fn new(name: Name, schedule: Schedule, rules: Rules, context: Option<Context>) -> Self {
        let due = schedule.after(Moment::now());
        Self { name, schedule, rules, context, due, renewed_at: None, sequence: 0 }
    }

    /// None for an entry that cannot be read.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text);
        let moment = |name: &str| row.get(name)?.integer().and_then(Moment::from_unix);
        let context = row.get("context").and_then(Attribute::map).cloned();
        Some(Self {
            name: Name::of_any_client(policy::name_of(text("entry")?)?).ok()?,
            schedule: Schedule::stored(text("schedule")?, text("timezone"))?,
            rules: Rules::of_row(row)?,
            context: context.map(Context::new).transpose().ok()?,
            due: moment("due"),
            renewed_at: moment("renewed_at"),
            sequence: row.get("sequence")?.integer()?.try_into().ok()?,
        })
    }

    pub(super) fn to_row(&self) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let seconds = |moment: Moment| Attribute::Number(moment.unix().to_string());
        let mut row = self.rules.to_row();
        row.extend(
            policy::key(self.name.as_str()).map(|(name, key)| (name.to_owned(), text(&key))),
        );
        row.insert("schedule".to_owned(), text(self.schedule.as_str()));
        row.extend(self.schedule.zone().map(|zone| ("timezone".to_owned(), text(zone))));
        if let Some(context) = &self.context {
            row.insert("context".to_owned(), Attribute::Map(context.pairs().clone()));
        }
        row.extend(self.due.map(|due| ("due".to_owned(), seconds(due))));
        row.extend(self.renewed_at.map(|at| ("renewed_at".to_owned(), seconds(at))));
        row.insert("sequence".to_owned(), Attribute::Number(self.sequence.to_string()));
        row
    }

    /// The same after it was renewed: what was missed in between is made up for by that.
    pub(super) fn renewed(&self, sequence: u64, now: Moment) -> Row {
        let mut row = self.to_row();
        let seconds = |moment: Moment| Attribute::Number(moment.unix().to_string());
        row.remove("due");
        row.extend(self.schedule.after(now).map(|due| ("due".to_owned(), seconds(due))));
        row.insert("renewed_at".to_owned(), seconds(now));
        row.insert("sequence".to_owned(), Attribute::Number(sequence.to_string()));
        row
    }

    fn asks_the_same(&self, other: &Self) -> bool {
        self.schedule == other.schedule
            && self.rules == other.rules
            && self.context == other.context
    }
}

impl Coffer {
    /// Puts a policy in the place of any that is there. One that asks for nothing new changes
    /// nothing, and one with the same schedule leaves the time that is due.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the name has no version; [`Error::Unreadable`];
    /// [`Error::Unavailable`].
    pub async fn put_policy(&self, asked: Rotation, caller: &Caller) -> Result<Rotation, Error> {
        let store = self.ledger()?;
        let mut asked = asked;
        let mut pause = Pause::default();
        loop {
            let (there, tail, highest) = tokio::try_join!(
                store.policy(asked.name.as_str()),
                store.tail(&asked.name),
                store.highest(&asked.name, 1)
            )?;
            if highest.is_empty() {
                return Err(not_found());
            }
            let known = there.as_ref().and_then(Rotation::of);
            if let Some(known) = &known {
                if known.asks_the_same(&asked) {
                    return Ok(asked_again(known, asked));
                }
                asked.renewed_at = known.renewed_at;
                if known.schedule == asked.schedule {
                    asked.due = known.due;
                }
            }
            asked.sequence = tail.sequence + 1;
            let mut transaction = Transaction::default();
            transaction.put_policy(store, asked.to_row(), there.as_ref().map(sequence_of));
            let change = told(Act::Policy, tail.state);
            match self.tell(store, transaction, &asked.name, &tail, &change, caller).await? {
                Committed::Done => return Ok(asked),
                Committed::Refused(_) | Committed::Conflict => pause.wait().await?,
            }
        }
    }

    /// The policy of a name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Malformed`] for an entry that cannot be read;
    /// [`Error::Unavailable`].
    pub async fn policy(&self, name: &Name) -> Result<Rotation, Error> {
        let there = self.ledger()?.policy(name.as_str()).await?;
        let there = there.filter(|row| !policy::is_cancelled(row)).ok_or_else(no_policy)?;
        Rotation::of(&there).ok_or(Error::Malformed(
            "The rotation policy of this name cannot be read. Cancel it, and put it anew.".into(),
        ))
    }

    /// Takes the policy of a name away: it is renewed no more.
    ///
    /// # Errors
    /// As [`Coffer::policy`], and [`Error::Unreadable`].
    pub async fn cancel(&self, name: &Name, caller: &Caller) -> Result<(), Error> {
        let store = self.ledger()?;
        let mut pause = Pause::default();
        loop {
            let (there, tail) = tokio::try_join!(store.policy(name.as_str()), store.tail(name))?;
            let there = there.filter(|row| !policy::is_cancelled(row)).ok_or_else(no_policy)?;
            let mut transaction = Transaction::default();
            let left = policy::cancelled(name.as_str(), tail.sequence + 1, Moment::now());
            transaction.put_policy(store, left, Some(sequence_of(&there)));
            let change = told(Act::Cancel, tail.state);
            match self.tell(store, transaction, name, &tail, &change, caller).await? {
                Committed::Done => return Ok(()),
                Committed::Refused(_) | Committed::Conflict => pause.wait().await?,
            }
        }
    }
}

/// The number of the event that wrote an entry.
fn sequence_of(row: &Row) -> u64 {
    let sequence = row.get("sequence").and_then(Attribute::integer);
    sequence.and_then(|sequence| sequence.try_into().ok()).unwrap_or_default()
}

fn asked_again(known: &Rotation, asked: Rotation) -> Rotation {
    let Rotation { due, renewed_at, sequence, .. } = *known;
    Rotation { due, renewed_at, sequence, ..asked }
}

fn told(act: Act, state: crate::chain::State) -> Change {
    Change { act, versions: Vec::new(), forced: false, state, recoverable_until: None }
}

fn no_policy() -> Error {
    Error::NotFound(
        "This name has no rotation policy. Put one with `PUT /policies/{name}`, or put a value \
         with `generate`."
            .into(),
    )
}
