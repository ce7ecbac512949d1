//! The rotation policy of a name: when it gets a new value, and which values.

use crate::audit_chain::{ChainHead, NameState};
use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::generate::GenerateRules;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::schedule::Schedule;
use crate::store::ledger::Ledger;
use crate::store::policies;
use crate::timestamp::Timestamp;

/// The rotation policy of a name.
#[derive(Debug)]
pub struct RotationPolicy {
    /// The name of the secret.
    pub name: Name,
    /// When it is due.
    pub schedule: Schedule,
    /// The rules for its values.
    pub rules: GenerateRules,
    /// The encryption context of new versions; that of the version before if `None`.
    pub context: Option<EncryptionContext>,
    /// When it is due next; never if `None`.
    pub due: Option<Timestamp>,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// Whether it belongs to an earlier life of the name. It renews nothing then.
    pub suspended: bool,
    /// The life of the name that it belongs to; `None` if it is older than this attribute.
    pub(super) life: Option<u64>,
    /// The number of the event that wrote it.
    pub(super) sequence: u64,
}

impl RotationPolicy {
    /// Creates a policy that is due at the next time of its schedule.
    ///
    /// # Errors
    /// [`Error::Invalid`] for rules that allow too few values. With such rules, the right to put
    /// policies would be the right to choose a secret's value.
    pub fn new(
        name: Name,
        schedule: Schedule,
        rules: GenerateRules,
        context: Option<EncryptionContext>,
    ) -> Result<Self, Error> {
        rules.check_policy()?;
        let due = schedule.after(Timestamp::now());
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

    /// Reads an entry. Returns `None` if it cannot be read or is larger than any policy that is
    /// accepted.
    pub(super) fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text);
        let moment = |name: &str| row.get(name)?.integer().and_then(Timestamp::from_unix_seconds);
        let context = row.get("context").and_then(Attribute::map).cloned();
        Some(Self {
            name: Name::of_any_client(policies::name_of(text("entry")?)?).ok()?,
            schedule: Schedule::stored(text("schedule")?, text("timezone"))?,
            rules: GenerateRules::of_row(row)?,
            context: context.map(EncryptionContext::new).transpose().ok()?,
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

    /// Reads the policy of a name as it was put.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Malformed`] if it cannot be read; [`Error::Unavailable`].
    pub(super) async fn read(ledger: &Ledger, name: &Name) -> Result<Self, Error> {
        let row = ledger.policy(name.as_str()).await?;
        let row = row.filter(|row| !policies::is_canceled(row)).ok_or_else(no_policy)?;
        Self::of(&row).ok_or(Error::Malformed(
            "The rotation policy of this name cannot be read. Cancel it, and put it again.".into(),
        ))
    }

    /// Whether it belongs to the current life of its name. A policy without the attribute belongs
    /// to life 0, as do the events without it. If such a name was deleted and put again, nothing
    /// shows which came first, so the policy does not belong to the current life.
    pub(super) fn belongs_to(&self, head: &ChainHead) -> bool {
        match self.life {
            Some(life) => life == head.life,
            None => head.life == 0 && head.state != NameState::PutAgain,
        }
    }

    pub(super) fn to_row(&self) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = self.rules.to_row();
        row.extend(
            policies::key(self.name.as_str()).map(|(name, key)| (name.to_owned(), text(&key))),
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

    /// Returns the entry after a renewal by the event `sequence`. It is due at the next time of its
    /// schedule, however many times were missed.
    pub(super) fn renewed(&self, sequence: u64, now: Timestamp) -> Row {
        let mut row = self.to_row();
        row.remove("due");
        row.extend(self.schedule.after(now).map(|due| ("due".to_owned(), seconds(due))));
        row.insert("renewed_at".to_owned(), seconds(now));
        row.insert("sequence".to_owned(), Attribute::Number(sequence.to_string()));
        row
    }

    /// Whether two policies request the same values at the same times.
    pub(super) fn requests_the_same(&self, other: &Self) -> bool {
        self.schedule == other.schedule
            && self.rules == other.rules
            && self.context == other.context
    }
}

pub(super) fn no_policy() -> Error {
    Error::NotFound(
        "This name has no rotation policy. Put one with `PUT /policies/{name}`, or put a value \
         with `generate`."
            .into(),
    )
}

fn seconds(moment: Timestamp) -> Attribute {
    Attribute::Number(moment.unix().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::CharacterClass;
    use crate::template::Template;

    fn policy() -> RotationPolicy {
        let rules = GenerateRules::new(20, &[CharacterClass::Numbers], "", false).unwrap();
        let template = Template::new("{}".to_owned(), "password".to_owned()).unwrap();
        let schedule = Schedule::new("cron(0 3 * * ? *)", Some("Europe/Paris")).unwrap();
        let name = "n".parse().unwrap();
        RotationPolicy::new(name, schedule, rules.within(Some(template)), None).unwrap()
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let written = RotationPolicy { life: Some(7), sequence: 9, ..policy() };
        let read = RotationPolicy::of(&written.to_row()).unwrap();
        assert!(read.requests_the_same(&written));
        assert_eq!((read.life, read.sequence, read.due), (Some(7), 9, written.due));
        let renewed = RotationPolicy::of(&written.renewed(10, Timestamp::now())).unwrap();
        assert_eq!((renewed.life, renewed.sequence), (Some(7), 10));
        assert_eq!(RotationPolicy::of(&policy().to_row()).unwrap().life, None);
    }

    #[test]
    fn a_policy_with_few_values_is_read_but_not_put() {
        let weak = || GenerateRules::new(19, &[CharacterClass::Numbers], "", false).unwrap();
        let RotationPolicy { name, schedule, .. } = policy();
        assert!(RotationPolicy::new(name, schedule, weak(), None).is_err());
        let stored = RotationPolicy { rules: weak(), ..policy() };
        assert!(!RotationPolicy::of(&stored.to_row()).unwrap().rules.is_strong());
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
            let mut row = policy().to_row();
            assert!(RotationPolicy::of(&row).is_some());
            row.insert(name.to_owned(), Attribute::Text(value));
            assert!(RotationPolicy::of(&row).is_none(), "{name}");
        }
        let mut row = policy().to_row();
        let context = [("k".to_owned(), "v".repeat(8192))].into_iter().collect();
        row.insert("context".to_owned(), Attribute::Map(context));
        assert!(RotationPolicy::of(&row).is_none());
    }

    #[test]
    fn a_policy_belongs_to_the_life_in_which_it_was_put() {
        let of = |life: Option<u64>, head: &ChainHead| {
            RotationPolicy { life, ..policy() }.belongs_to(head)
        };
        let head = |life, state| ChainHead::standing(state, life, None);
        assert!(of(Some(3), &head(3, NameState::Live)));
        assert!(of(Some(3), &head(3, NameState::PutAgain)));
        assert!(!of(Some(3), &head(5, NameState::PutAgain)));
        assert!(of(Some(0), &head(0, NameState::PutAgain)), "it was put after the name");
        // A policy without the attribute.
        assert!(of(None, &head(0, NameState::Live)));
        assert!(!of(None, &head(0, NameState::PutAgain)));
        assert!(!of(None, &head(1, NameState::Live)));
    }
}
