//! Where a put goes in its name: the version, the event before it, and the life of the name.

use crate::chain::{Act, ChainHead, Change, Newest};
use crate::error::Error;
use crate::life::{Identity, Top, state_after_put};
use crate::name::{Label, Name, Version};
use crate::row::Row;
use crate::store::Store;

use super::not_found;
use super::policy::{Rotation, goes_on, standing};

/// The place of a new version among the versions and events of its name.
pub(super) struct Place {
    /// The end of the chain that its event follows.
    pub(super) tail: ChainHead,
    /// The version.
    pub(super) version: Version,
    /// Whether the life of the name goes on. If not, this put begins another.
    goes_on: bool,
    /// The highest version, if the new one is below it.
    pub(super) above: Option<Identity>,
}

impl Place {
    /// The event of the put of this row.
    pub(super) fn change(&self, act: Act, row: &Row) -> Change {
        let newest = self.above.clone().or_else(|| Identity::of(row));
        let newest = match newest {
            Some(newest) if self.goes_on => Newest::Is(newest),
            Some(newest) => Newest::Begins(newest),
            None => Newest::Kept,
        };
        let versions = vec![Label::from(self.version)];
        let state = state_after_put(&self.tail, self.goes_on);
        Change { act, versions, forced: false, state, recoverable_until: None, newest }
    }
}

/// Finds the place of the next version of a name, or of the version asked for.
pub(super) async fn place(
    store: &Store,
    name: &Name,
    asked: Option<Version>,
    rotation: Option<&Rotation>,
) -> Result<Place, Error> {
    let (tail, top) = standing(store, name).await?;
    if rotation.is_some() && top.is_none() {
        return Err(not_found());
    }
    let goes_on = goes_on(store, name, &tail, top.as_ref()).await?;
    if rotation.is_some_and(|rotation| !goes_on || !rotation.is_of(&tail)) {
        return Err(Error::Suspended);
    }
    let version = match asked {
        Some(version) => version,
        None => next(top.as_ref().map(|top| &top.label), tail.highest)?,
    };
    let above = above(version, top)?.map(|top| top.identity);
    Ok(Place { tail, version, goes_on, above })
}

/// The highest version, if this one is below it.
fn above(version: Version, top: Option<Top>) -> Result<Option<Top>, Error> {
    let Some(top) = top.filter(|top| top.label.as_str() > version.padded().as_str()) else {
        return Ok(None);
    };
    if top.label.padded() == top.label && top.label.number().is_some() {
        Ok(Some(top))
    } else {
        // It sorts above every padded number, so the new version would never be the latest.
        Err(uncountable(&top.label))
    }
}

/// The version after the highest one that is there, and after every one there ever was.
fn next(highest: Option<&Label>, known: Option<Version>) -> Result<Version, Error> {
    let highest = match highest {
        None => 0,
        Some(highest) => {
            let padded = highest.padded() == *highest;
            // credstash's putall and its library begin at 0.
            highest.number().filter(|_| padded).ok_or_else(|| uncountable(highest))?
        }
    };
    let highest = highest.max(known.map_or(0, Version::number));
    Version::new(highest + 1)
        .ok_or(Error::Exists("The last version there can be is taken. Use another name.".into()))
}

/// The error for a highest version that is not a padded number. It never advises a delete: that
/// version is the current one, and an older value would take its place.
fn uncountable(highest: &Label) -> Error {
    Error::Exists(if highest.number().is_some() {
        "The highest version of this name is a number without leading zeros: another client wrote \
         it, and it sorts above the versions that Coffer writes. Rotate the name with action \
         reseal, which gives it its zeros, then put again. If reseal reports `order` or `exists`, \
         use another name."
            .into()
    } else {
        "The highest version of this name is not a number: another client wrote it, and it sorts \
         above every number, so a new version would never be the latest. Use another name, or ask \
         whoever writes such versions to write numbers."
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::State;
    use crate::row::Attribute;

    fn next_after(highest: &str) -> Result<u64, &'static str> {
        let version = next(Some(&Label::stored(highest)), None);
        version.map(Version::number).map_err(|error| error.code().name)
    }

    #[test]
    fn versions_count_on_from_what_can_be_counted_on() {
        assert_eq!(next(None, None).unwrap(), Version::FIRST);
        assert_eq!(next_after("0000000000000000000"), Ok(1));
        assert_eq!(next_after("0000000000000000041"), Ok(42));
        assert_eq!(next_after("9999999999999999998"), Ok(Version::LAST.number()));
        for stuck in ["9999999999999999999", "41", "release-2", "", "00000000000000000041"] {
            assert_eq!(next_after(stuck), Err("Exists"), "{stuck}");
        }
        // Deleted or expired, a number is not given again.
        assert_eq!(next(None, Version::new(7)).unwrap().number(), 8);
        let ninth = Label::stored("9").padded();
        assert_eq!(next(Some(&ninth), Version::new(7)).unwrap().number(), 10);
        assert!(next(None, Some(Version::LAST)).is_err());
    }

    #[test]
    fn nobody_is_advised_to_delete_the_current_version() {
        for (highest, advice) in [("41", "action reseal"), ("release-2", "another name")] {
            let label = Label::stored(highest);
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

    fn top(version: &str) -> Top {
        let version = Attribute::Text(version.to_owned());
        Top::of(&Row::from([("version".to_owned(), version)])).unwrap()
    }

    #[test]
    fn a_version_that_goes_below_the_highest_is_not_current() {
        let highest = top("0000000000000000041");
        let above =
            |number, top: Option<&Top>| above(Version::new(number).unwrap(), top.cloned()).unwrap();
        assert_eq!(above(40, Some(&highest)), Some(highest.clone()));
        assert_eq!(above(42, Some(&highest)), None);
        // Taken: it is refused when it is written.
        assert_eq!(above(41, Some(&highest)), None);
        assert_eq!(above(1, None), None);
    }

    #[test]
    fn an_event_of_a_put_tells_of_the_newest_version_and_its_life() {
        let row = Row::from([
            ("version".to_owned(), Attribute::Text("0000000000000000002".to_owned())),
            ("hmac".to_owned(), Attribute::Text("ab".to_owned())),
        ]);
        let own = Identity::of(&row).unwrap();
        let other = Identity::stored("0000000000000000009#0");
        for (goes_on, above, newest, state) in [
            (true, None, Newest::Is(own.clone()), State::Live),
            (true, Some(&other), Newest::Is(other.clone()), State::Live),
            (false, None, Newest::Begins(own.clone()), State::Anew),
            (false, Some(&other), Newest::Begins(other.clone()), State::Anew),
        ] {
            let version = Version::new(2).unwrap();
            let tail = ChainHead::standing(State::Live, 1, None);
            let place = Place { tail, version, goes_on, above: above.cloned() };
            let change = place.change(Act::Put, &row);
            assert_eq!((change.newest, change.state), (newest, state));
        }
    }
}
