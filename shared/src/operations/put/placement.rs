//! The placement of a new version: its number, the chain head before it, and the life of its name.

use crate::audit_chain::{ChainHead, EventKind, NewEvent, NewestVersion};
use crate::error::Error;
use crate::life::{HighestVersion, RowIdentity, state_after_put};
use crate::name::{Name, Version, VersionKey};
use crate::row::Row;
use crate::store::scan::Stores;

use super::super::errors::not_found;
use super::super::name_state::{self, life_continues};
use super::super::rotation_policy::RotationPolicy;

/// Where a new version goes among the versions and events of its name.
pub(super) struct Placement {
    /// The chain head that its event follows.
    pub(super) head: ChainHead,
    /// The version number.
    pub(super) version: Version,
    /// Whether the life of the name continues. If not, this put begins another.
    life_continues: bool,
    /// The highest version, if the new one is below it.
    pub(super) above: Option<RowIdentity>,
}

impl Placement {
    /// Finds the placement of the next version of a name, or of the requested version.
    pub(super) async fn find(
        stores: Stores<'_>,
        name: &Name,
        requested: Option<Version>,
        policy: Option<&RotationPolicy>,
    ) -> Result<Self, Error> {
        let (head, top) = name_state::read(stores, name).await?;
        if policy.is_some() && top.is_none() {
            return Err(not_found());
        }
        let life_continues = life_continues(stores, name, &head, top.as_ref()).await?;
        if policy.is_some_and(|policy| !life_continues || !policy.belongs_to(&head)) {
            return Err(Error::PolicySuspended);
        }
        let version = match requested {
            Some(version) => version,
            None => next(top.as_ref().map(|top| &top.label), head.highest)?,
        };
        let above = above(version, top)?.map(|top| top.identity);
        Ok(Self { head, version, life_continues, above })
    }

    /// Returns the event of the put of this row.
    pub(super) fn event(&self, kind: EventKind, row: &Row) -> NewEvent {
        let newest = self.above.clone().or_else(|| RowIdentity::of(row));
        let newest = match newest {
            Some(newest) if self.life_continues => NewestVersion::Is(newest),
            Some(newest) => NewestVersion::BeginsLife(newest),
            None => NewestVersion::Unchanged,
        };
        let versions = vec![VersionKey::from(self.version)];
        let state = state_after_put(&self.head, self.life_continues);
        NewEvent { kind, versions, forced: false, state, recoverable_until: None, newest }
    }
}

/// Returns the highest version, if this one is below it.
fn above(version: Version, top: Option<HighestVersion>) -> Result<Option<HighestVersion>, Error> {
    let Some(top) = top.filter(|top| top.label.as_str() > version.padded().as_str()) else {
        return Ok(None);
    };
    if top.label.padded() == top.label && top.label.number().is_some() {
        Ok(Some(top))
    } else {
        // It sorts above every padded number, so the new version would never be current.
        Err(no_next(&top.label))
    }
}

/// Returns the version after the highest one that exists and the highest one that ever existed.
fn next(highest: Option<&VersionKey>, known: Option<Version>) -> Result<Version, Error> {
    let highest = match highest {
        None => 0,
        Some(highest) => {
            let padded = highest.padded() == *highest;
            // credstash's putall and its library begin at 0.
            highest.number().filter(|_| padded).ok_or_else(|| no_next(highest))?
        }
    };
    let highest = highest.max(known.map_or(0, Version::number));
    Version::new(highest + 1)
        .ok_or(Error::Exists("The highest possible version exists. Use another name.".into()))
}

/// The error for a highest version that is not a padded number. It never advises a delete: that
/// version is current, and an older value would take its place.
fn no_next(highest: &VersionKey) -> Error {
    Error::Exists(if highest.number().is_some() {
        "The highest version of this name is a number without leading zeros: another client wrote \
         it, and it sorts above the versions that Coffer writes. Rotate the name with action \
         reseal, which adds the zeros, then put again. If reseal reports `order` or `exists`, use \
         another name."
            .into()
    } else {
        "The highest version of this name is not a number: another client wrote it, and it sorts \
         above every number, so a new version would never be current. Use another name, or ask \
         the writer of such versions to write numbers."
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_chain::NameState;
    use crate::row::Attribute;

    fn next_after(highest: &str) -> Result<u64, &'static str> {
        let version = next(Some(&VersionKey::stored(highest)), None);
        version.map(Version::number).map_err(|error| error.code().name)
    }

    #[test]
    fn the_next_version_follows_the_highest_padded_number() {
        assert_eq!(next(None, None).unwrap(), Version::FIRST);
        assert_eq!(next_after("0000000000000000000"), Ok(1));
        assert_eq!(next_after("0000000000000000041"), Ok(42));
        assert_eq!(next_after("9999999999999999998"), Ok(Version::LAST.number()));
        for stuck in ["9999999999999999999", "41", "release-2", "", "00000000000000000041"] {
            assert_eq!(next_after(stuck), Err("Exists"), "{stuck}");
        }
        // The number of a deleted or expired version is not used again.
        assert_eq!(next(None, Version::new(7)).unwrap().number(), 8);
        let ninth = VersionKey::stored("9").padded();
        assert_eq!(next(Some(&ninth), Version::new(7)).unwrap().number(), 10);
        assert!(next(None, Some(Version::LAST)).is_err());
    }

    #[test]
    fn no_error_advises_to_delete_the_current_version() {
        for (highest, advice) in [("41", "action reseal"), ("release-2", "another name")] {
            let label = VersionKey::stored(highest);
            let errors = [
                next(Some(&label), None).unwrap_err(),
                above(Version::new(50).unwrap(), Some(top(highest))).unwrap_err(),
            ];
            for (error, code) in errors.into_iter().zip(["Exists", "Exists"]) {
                let message = error.to_string();
                assert_eq!(error.code().name, code, "{highest}");
                assert!(message.contains(advice) && !message.contains("elete"), "{message}");
            }
        }
    }

    fn top(version: &str) -> HighestVersion {
        let version = Attribute::Text(version.to_owned());
        HighestVersion::of(&Row::from([("version".to_owned(), version)])).unwrap()
    }

    #[test]
    fn a_version_below_the_highest_is_not_current() {
        let highest = top("0000000000000000041");
        let above = |number, top: Option<&HighestVersion>| {
            above(Version::new(number).unwrap(), top.cloned()).unwrap()
        };
        assert_eq!(above(40, Some(&highest)), Some(highest.clone()));
        assert_eq!(above(42, Some(&highest)), None);
        // The number is taken: the write is refused.
        assert_eq!(above(41, Some(&highest)), None);
        assert_eq!(above(1, None), None);
    }

    #[test]
    fn the_event_of_a_put_records_the_newest_version_and_its_life() {
        let row = Row::from([
            ("version".to_owned(), Attribute::Text("0000000000000000002".to_owned())),
            ("hmac".to_owned(), Attribute::Text("ab".to_owned())),
        ]);
        let own = RowIdentity::of(&row).unwrap();
        let other = RowIdentity::stored("0000000000000000009#0");
        for (life_continues, above, newest, state) in [
            (true, None, NewestVersion::Is(own.clone()), NameState::Live),
            (true, Some(&other), NewestVersion::Is(other.clone()), NameState::Live),
            (false, None, NewestVersion::BeginsLife(own.clone()), NameState::PutAgain),
            (false, Some(&other), NewestVersion::BeginsLife(other.clone()), NameState::PutAgain),
        ] {
            let version = Version::new(2).unwrap();
            let head = ChainHead::standing(NameState::Live, 1, None);
            let placement = Placement { head, version, life_continues, above: above.cloned() };
            let event = placement.event(EventKind::Put, &row);
            assert_eq!((event.newest, event.state), (newest, state));
        }
    }
}
