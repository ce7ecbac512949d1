//! Rewraps or reseals one name at once, live and deleted versions.

use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use tokio::time::{Duration, Instant};

use crate::audit_chain::Caller;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::Name;
use crate::store::item::Key;
use crate::store::location::Location;

use super::super::Coffer;
use super::super::errors::{for_name, not_found};
use super::super::legacy_hints::{LegacyHints, parse_contexts};
use super::checkpoint::Checkpoint;
use super::executor::execute;
use super::plan::Job;
use super::report::Report;
use super::request::{OneName, RotatedName, RotationFunction, RotationOutput};
use super::version_rotation::{VersionRotation, within_requests};

/// How long one call works on a name.
const NAME_TIME: Duration = Duration::from_secs(18);

/// A request to rewrap or reseal one name.
#[derive(Debug)]
pub struct VersionsOfName<V> {
    name: Name,
    dry_run: bool,
    hints: LegacyHints,
    next: Option<Cursor>,
    action: PhantomData<fn() -> V>,
}

impl<V: VersionRotation> RotationFunction for V {
    type OneName = VersionsOfName<V>;
}

impl<V: VersionRotation> OneName for VersionsOfName<V> {
    fn parse(name: Name, fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            name,
            dry_run: fields.flag("dry_run")?,
            hints: parse_contexts(fields)?,
            next: fields.parsed("next")?,
            action: PhantomData,
        })
    }

    fn name(&self) -> &Name {
        &self.name
    }

    /// Changes the versions. If the time is over, the response has `next` to continue.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the name has no versions; [`Error::Unavailable`].
    fn apply<'a>(
        self,
        coffer: &'a Coffer,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<RotationOutput, Error>> {
        Box::pin(async move {
            let after = self.next.as_ref().map(|cursor| cursor.0.clone());
            let mut report = self.rotate(coffer, after, caller).await?;
            let next = report.next.take().map(Cursor);
            Ok(RotationOutput::Name(Box::new(RotatedName { name: self.name, report, next })))
        })
    }
}

impl<V: VersionRotation> VersionsOfName<V> {
    async fn rotate(
        &self,
        coffer: &Coffer,
        after: Option<Key>,
        caller: &Caller,
    ) -> Result<Report, Error> {
        let until = Instant::now() + NAME_TIME;
        let Self { name, dry_run, hints, .. } = self;
        let stores = coffer.stores()?;
        let job = Job { coffer, stores, dry_run: *dry_run, hints, caller, is_run: false };
        let mut report = Report::of_name(V::ACTION, *dry_run);
        let first = after.is_none();
        let mut position = Position::of(name, after);
        loop {
            let begun = position.clone();
            let Position { location, after } = position;
            coffer.limit_rate_of_one();
            let limit = coffer.page_limit();
            let (found, next) =
                stores.scan_name(location, V::PROJECTION, name.as_str(), after, limit).await?;
            let (found, next) = within_requests(hints, found, next, limit);
            match execute::<V>(&job, found, &mut Checkpoint::in_memory()).await {
                Ok(tally) => report.add(tally.unwrap_or_default()),
                // What is done is reported. If the error remains, the next call returns it.
                Err(Error::Unavailable { .. }) if report.seen > 0 => {
                    report.next = Some(begun.to_key(name));
                    return Ok(report);
                }
                Err(error) => return Err(error),
            }
            position = match (next, location) {
                (Some(key), _) => Position { location, after: Some(key) },
                (None, Location::Table) => Position { location: Location::Ledger, after: None },
                (None, Location::Ledger) if first && report.seen == 0 => {
                    return Err(for_name(name, not_found()));
                }
                (None, Location::Ledger) => return Ok(report),
            };
            if Instant::now() >= until {
                report.next = Some(position.to_key(name));
                return Ok(report);
            }
        }
    }
}

/// Where a call about one name continues.
#[derive(Clone)]
struct Position {
    location: Location,
    after: Option<Key>,
}

impl Position {
    /// Reads a cursor; the beginning if there is none. A forged one continues elsewhere within the
    /// same name.
    fn of(name: &Name, key: Option<Key>) -> Self {
        let cursor = key.map(|key| key.version).unwrap_or_default();
        let (location, sort) = cursor.split_once(':').unwrap_or(("live", ""));
        let location = Location::named(location).unwrap_or(Location::Table);
        let key = || Key { name: name.as_str().to_owned(), version: sort.to_owned() };
        Self { location, after: (!sort.is_empty()).then(key) }
    }

    fn to_key(&self, name: &Name) -> Key {
        let sort = self.after.as_ref().map_or("", |key| key.version.as_str());
        let version = format!("{}:{sort}", self.location.as_str());
        Key { name: name.as_str().to_owned(), version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let name: Name = "dev/db".parse().unwrap();
        let key = |sort: &str| Key { name: "dev/db".to_owned(), version: sort.to_owned() };
        for (location, after) in [
            (Location::Table, Some(key("0000000000000000001"))),
            // Another client's version may be any text.
            (Location::Table, Some(key("kept:x"))),
            (Location::Ledger, None),
            (Location::Ledger, Some(key("deleted#1#ab"))),
        ] {
            let position = Position { location, after: after.clone() };
            let again = Position::of(&name, Some(position.to_key(&name)));
            assert_eq!((again.location, again.after), (location, after));
        }
        let beginning = Position::of(&name, None);
        assert_eq!((beginning.location, beginning.after), (Location::Table, None));
    }
}
