//! policy: when a name gets a new value by itself, and which.

use crate::backoff::Backoff;
use crate::chain::{Act, Caller, ChainHead, Change, Newest, State};
use crate::context::Context;
use crate::error::Error;
use crate::generate::Rules;
use crate::life::{Top, Verdict, judge, may_be_partial, state_after_put};
use crate::moment::Moment;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::schedule::Schedule;
use crate::store::transaction::{Committed, Transaction};
use crate::store::{Store, policy};

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
    /// Whether it belongs to a secret that is gone. It renews nothing then.
    pub suspended: bool,
    /// The life of the name that it belongs to; none if it is older than this attribute.
    pub(super) life: Option<u64>,
    /// The number of the event that wrote it.
    pub(super) sequence: u64,
}

impl Rotation {
    /// A policy that is due at the next time of its schedule.
    ///
    /// # Errors
    /// [`Error::Invalid`] for rules that allow too few values. With such rules, the right to put
    /// policies would be the right to choose a secret's value.
    pub fn new(
        name: Name,
        schedule: Schedule,
        rules: Rules,
        context: Option<Context>,
    ) -> Result<Self, Error> {
        rules.check_policy()?;
        let due = schedule.after(Moment::now());
        Ok(Self {
            name,
            schedule,
            rules,
            context,
            due,
            renewed_at: None,
            suspended: false,
            life: None,
            sequence: 0,
        })
    }

    /// `None` for an entry that cannot be read, or that is larger than any policy that is accepted.
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
            suspended: false,
            life: match row.get("life") {
                Some(life) => Some(life.integer()?.try_into().ok()?),
                None => None,
            },
            sequence: row.get("sequence")?.integer()?.try_into().ok()?,
        })
    }

    /// Whether it belongs to the current life of its name. A policy without the attribute belongs
    /// to life 0, as do the events without it. If such a name was deleted and put again, nothing
    /// shows which came first, so the policy does not belong.
    pub(super) fn is_of(&self, tail: &ChainHead) -> bool {
        match self.life {
            Some(life) => life == tail.life,
            None => tail.life == 0 && tail.state != State::Anew,
        }
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
        row.extend(self.life.map(|life| ("life".to_owned(), Attribute::Number(life.to_string()))));
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
    /// nothing, and one with the same schedule keeps the time that is due. If the policy that is
    /// there is suspended, neither applies: the new one belongs to the current life of the name.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the name has no version, [`Error::Expired`] where the newest one
    /// has expired; [`Error::Unreadable`]; [`Error::Unavailable`].
    pub async fn put_policy(&self, asked: Rotation, caller: &Caller) -> Result<Rotation, Error> {
        let store = self.ledger()?;
        let mut asked = asked;
        let mut backoff = Backoff::default();
        loop {
            let (there, (tail, top)) =
                tokio::try_join!(store.policy(asked.name.as_str()), standing(store, &asked.name))?;
            let Some(top) = top else { return Err(not_found()) };
            if top.has_expired(Moment::now()) {
                return Err(Error::Expired);
            }
            let goes_on = goes_on(store, &asked.name, &tail, Some(&top)).await?;
            let known = there.as_ref().and_then(Rotation::of);
            if let Some(known) = known.filter(|known| goes_on && known.is_of(&tail)) {
                if known.asks_the_same(&asked) {
                    return Ok(asked_again(&known, asked));
                }
                asked.renewed_at = known.renewed_at;
                if known.schedule == asked.schedule {
                    asked.due = known.due;
                }
            }
            asked.sequence = tail.sequence + 1;
            // If another client has put the name again, this event is the first to record it; and
            // a life without a number gets one, so that the policy can belong to it.
            let (life, newest) = if goes_on && !tail.is_unnumbered() {
                (tail.life, Newest::Is(top.identity))
            } else {
                (asked.sequence, Newest::Begins(top.identity))
            };
            asked.life = Some(life);
            let mut transaction = Transaction::default();
            transaction.put_policy(store, asked.to_row(), there.as_ref().map(before));
            let change = told(Act::Policy, state_after_put(&tail, goes_on), newest);
            match self.tell(store, transaction, &asked.name, &tail, &change, caller).await? {
                Committed::Done => return Ok(asked),
                Committed::Refused(_) | Committed::Conflict => backoff.wait().await?,
            }
        }
    }

    /// The policy of a name, and whether it is suspended.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Malformed`] for an entry that cannot be read;
    /// [`Error::Unreadable`]; [`Error::Unavailable`].
    pub async fn policy(&self, name: &Name) -> Result<Rotation, Error> {
        let store = self.ledger()?;
        let (rotation, (tail, top)) = tokio::try_join!(self.rotation(name), standing(store, name))?;
        let lives = rotation.is_of(&tail) && goes_on(store, name, &tail, top.as_ref()).await?;
        Ok(Rotation { suspended: !lives, ..rotation })
    }

    /// The policy of a name as it was put.
    pub(super) async fn rotation(&self, name: &Name) -> Result<Rotation, Error> {
        let there = self.ledger()?.policy(name.as_str()).await?;
        let there = there.filter(|row| !policy::is_cancelled(row)).ok_or_else(no_policy)?;
        Rotation::of(&there).ok_or(Error::Malformed(
            "The rotation policy of this name cannot be read. Cancel it, and put it again.".into(),
        ))
    }

    /// Takes the policy of a name away: it is renewed no more.
    ///
    /// # Errors
    /// As [`Coffer::policy`], and [`Error::Unreadable`].
    pub async fn cancel(&self, name: &Name, caller: &Caller) -> Result<(), Error> {
        let store = self.ledger()?;
        let mut backoff = Backoff::default();
        loop {
            let (there, tail) = tokio::try_join!(store.policy(name.as_str()), store.tail(name))?;
            let there = there.filter(|row| !policy::is_cancelled(row)).ok_or_else(no_policy)?;
            let mut transaction = Transaction::default();
            let left = policy::cancelled(name.as_str(), tail.sequence + 1, Moment::now());
            transaction.put_policy(store, left, Some(before(&there)));
            let change = told(Act::Cancel, tail.state, Newest::Kept);
            match self.tell(store, transaction, name, &tail, &change, caller).await? {
                Committed::Done => return Ok(()),
                Committed::Refused(_) | Committed::Conflict => backoff.wait().await?,
            }
        }
    }
}

/// The number of the event that wrote an entry, if it can be read.
fn before(row: &Row) -> Option<u64> {
    row.get("sequence").and_then(Attribute::integer).and_then(|sequence| sequence.try_into().ok())
}

/// The end of the chain of a name and its highest version. The chain is read first: if Coffer
/// writes a version in between, the transaction that follows this end is refused.
pub(super) async fn standing(
    store: &Store,
    name: &Name,
) -> Result<(ChainHead, Option<Top>), Error> {
    let tail = store.tail(name).await?;
    let top = store.tops(name, 1).await?.into_iter().next();
    if !may_be_partial(&tail, top.as_ref(), Moment::now()) {
        return Ok((tail, top));
    }
    // A read beside a transaction can show its event before its version.
    Backoff::default().wait().await?;
    let top = store.tops(name, 1).await?.into_iter().next();
    Ok((tail, top))
}

fn asked_again(known: &Rotation, asked: Rotation) -> Rotation {
    let Rotation { due, renewed_at, sequence, .. } = *known;
    Rotation { due, renewed_at, sequence, ..asked }
}

fn told(act: Act, state: State, newest: Newest) -> Change {
    Change { act, versions: Vec::new(), forced: false, state, recoverable_until: None, newest }
}

/// Whether the life of a name goes on, judged by the end of its chain and its highest live version.
/// Reads one more row only if another client has put the highest one.
pub(super) async fn goes_on(
    store: &Store,
    name: &Name,
    tail: &ChainHead,
    top: Option<&Top>,
) -> Result<bool, Error> {
    let now = Moment::now();
    match judge(tail, top, now) {
        Verdict::GoesOn => Ok(true),
        Verdict::Over => Ok(false),
        Verdict::IfLive(identity) => {
            let below = store.top(name, &identity).await?;
            Ok(below.is_some_and(|below| !below.has_expired(now)))
        }
    }
}

fn no_policy() -> Error {
    Error::NotFound(
        "This name has no rotation policy. Put one with `PUT /policies/{name}`, or put a value \
         with `generate`."
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Class;
    use crate::template::Template;

    fn rotation() -> Rotation {
        let rules = Rules::new(20, &[Class::Numbers], "", false).unwrap();
        let template = Template::new("{}".to_owned(), "password".to_owned()).unwrap();
        let schedule = Schedule::new("cron(0 3 * * ? *)", Some("Europe/Paris")).unwrap();
        let name = "n".parse().unwrap();
        Rotation::new(name, schedule, rules.within(Some(template)), None).unwrap()
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let written = Rotation { life: Some(7), sequence: 9, ..rotation() };
        let read = Rotation::of(&written.to_row()).unwrap();
        assert!(read.asks_the_same(&written));
        assert_eq!((read.life, read.sequence, read.due), (Some(7), 9, written.due));
        let renewed = Rotation::of(&written.renewed(10, Moment::now())).unwrap();
        assert_eq!((renewed.life, renewed.sequence), (Some(7), 10));
        assert_eq!(Rotation::of(&rotation().to_row()).unwrap().life, None);
    }

    #[test]
    fn a_policy_of_few_values_is_not_put_but_read() {
        let weak = || Rules::new(19, &[Class::Numbers], "", false).unwrap();
        let Rotation { name, schedule, .. } = rotation();
        assert!(Rotation::new(name, schedule, weak(), None).is_err());
        let stored = Rotation { rules: weak(), ..rotation() };
        assert!(!Rotation::of(&stored.to_row()).unwrap().rules.is_strong());
    }

    #[test]
    fn a_policy_that_is_too_large_is_not_read() {
        let large = "*,".repeat(30_000);
        for (name, value) in [
            ("schedule", format!("cron({large}* 0 * * ? *)")),
            ("timezone", "U".repeat(257)),
            ("exclude_characters", "0".repeat(257)),
            ("template", format!("{{\"a\":\"{}\"}}", "x".repeat(4096))),
            ("template_key", "k".repeat(257)),
        ] {
            let mut row = rotation().to_row();
            assert!(Rotation::of(&row).is_some());
            row.insert(name.to_owned(), Attribute::Text(value));
            assert!(Rotation::of(&row).is_none(), "{name}");
        }
        let mut row = rotation().to_row();
        let context = [("k".to_owned(), "v".repeat(8192))].into_iter().collect();
        row.insert("context".to_owned(), Attribute::Map(context));
        assert!(Rotation::of(&row).is_none());
    }

    #[test]
    fn a_policy_belongs_to_the_life_that_it_was_put_in() {
        let of = |life: Option<u64>, tail: &ChainHead| Rotation { life, ..rotation() }.is_of(tail);
        let tail = |life, state| ChainHead::standing(state, life, None);
        assert!(of(Some(3), &tail(3, State::Live)));
        assert!(of(Some(3), &tail(3, State::Anew)));
        assert!(!of(Some(3), &tail(5, State::Anew)));
        assert!(of(Some(0), &tail(0, State::Anew)), "it was put after the name");
        // A policy without the attribute.
        assert!(of(None, &tail(0, State::Live)));
        assert!(!of(None, &tail(0, State::Anew)));
        assert!(!of(None, &tail(1, State::Live)));
    }
}
