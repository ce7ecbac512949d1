//! How rewrap and reseal list, mark and check again their versions.

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::envelope::wrapped_key;
use crate::error::Error;
use crate::hash;
use crate::row::{Attribute, Row};
use crate::store::item::Key;
use crate::store::ledger::Part;
use crate::store::location::Location;
use crate::store::progress::{Progress, RunFailure};
use crate::store::runs::Run;
use crate::store::scanned_version::ScannedVersion;

use super::action::{Action, Reason};
use super::checkpoint::Checkpoint;
use super::plan::{Applied, Item, ItemPage, Job, Plan, Planned, Rotation, short_mark};
use super::recheck::recheck;
use super::version_rotation::{VersionRotation, within_requests};

/// How many reads there are for one page. Most entries of the ledger do not hold a version.
const MAX_READS: u32 = 8;

impl<V: VersionRotation> Rotation for V {
    const ACTION: Action = V::ACTION;
    const HAS_PARTS: bool = true;

    type Item = ScannedVersion;
    type Change = V::Change;

    /// Lists the next versions of a part. Each read of the ledger that finds few versions passes
    /// over twice as many entries as the one before.
    fn list_page<'a>(
        job: &'a Job<'a>,
        part: Part,
        progress: &'a Progress,
        limit: i32,
    ) -> BoxFuture<'a, Result<ItemPage<ScannedVersion>, Error>> {
        Box::pin(async move {
            let location = progress.location.unwrap_or(Location::Table);
            let most = usize::try_from(limit).unwrap_or(1);
            let (mut items, mut next, mut size) = (Vec::new(), progress.after.clone(), limit);
            for _ in 0..MAX_READS {
                let page = job.stores.scan(location, V::PROJECTION, part, next, size).await?;
                items.extend(page.0);
                next = page.1;
                if next.is_none() || items.len() >= most {
                    break;
                }
                size = size.saturating_mul(2);
            }
            let (items, next) = within_requests(job.hints, items, next, limit);
            Ok(ItemPage { items, next, last_location: location == Location::Ledger })
        })
    }

    fn plan<'a>(
        job: &'a Job<'a>,
        version: &'a ScannedVersion,
    ) -> BoxFuture<'a, Result<Plan<V::Change>, Error>> {
        V::plan(job, version)
    }

    fn mark(version: &ScannedVersion, change: Option<&V::Change>) -> String {
        if let Some(change) = change {
            let (row, wrapped) = V::changed(version, change);
            return mark(version, &row, &wrapped);
        }
        let row = version.row();
        mark(version, &row, &wrapped_key(&row).unwrap_or_default())
    }

    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>> {
        V::apply(job, changes)
    }

    fn reread<'a>(
        job: &'a Job<'a>,
        version: &'a ScannedVersion,
    ) -> BoxFuture<'a, Result<Option<ScannedVersion>, Error>> {
        Box::pin(job.stores.reread(version, V::PROJECTION))
    }

    fn recheck<'a>(
        job: &'a Job<'a>,
        run: &'a Run,
        part: Part,
        checkpoint: Checkpoint<'a>,
        until: Instant,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(recheck::<V>(job, run, part, checkpoint, until))
    }
}

impl Item for ScannedVersion {
    fn name(&self) -> &str {
        &self.name
    }

    fn failure(&self, reason: Reason) -> RunFailure {
        RunFailure {
            name: self.name.clone(),
            label: Some(self.label.clone()),
            location: self.location,
            mark: wrapped_key(&self.row()).unwrap_or_default(),
            reason: reason.as_str().to_owned(),
        }
    }
}

/// Returns a mark of a version with this row and wrapped key: where it is stored, also after its
/// number is padded, its wrapped key and its seal.
fn mark(version: &ScannedVersion, row: &Row, wrapped: &[u8]) -> String {
    let Key { name, version: mut sort } = version.key();
    if let (Location::Table, Some(text)) = (version.location, row.get("version")) {
        sort = text.text().map_or(sort, str::to_owned);
    }
    let seal = row.get("seal").and_then(Attribute::text).unwrap_or_default();
    let key = [version.location.as_str(), &name, &sort].map(str::as_bytes);
    let hash = hash::of_parts(key.into_iter().chain([wrapped, seal.as_bytes()]));
    short_mark(&hash)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::super::reseal::Reseal;
    use super::*;
    use crate::store::condition::Projection;
    use crate::store::item::Item;

    /// A row as it was read, by its version and its seal.
    fn scanned(version: &str, seal: Option<&str>) -> ScannedVersion {
        let seal = seal.map(|seal| ("seal", seal));
        let text = [("name", "n"), ("version", version), ("key", "AAAA")].into_iter().chain(seal);
        let item = text.map(|(name, text)| (name.to_owned(), AttributeValue::S(text.to_owned())));
        let item = item.collect::<Item>();
        ScannedVersion::of(Location::Table, Projection::Whole, item).unwrap()
    }

    #[test]
    fn the_mark_of_a_change_is_that_of_the_changed_version_also_if_its_number_is_padded() {
        let padded = "0000000000000000007";
        let before = scanned("7", None);
        for version in ["7", padded] {
            let after = scanned(version, Some("seal"));
            let row = after.row();
            let mark = <Reseal as Rotation>::mark(&before, Some(&row));
            assert_eq!(mark, <Reseal as Rotation>::mark(&after, None), "{version}");
            assert_ne!(
                <Reseal as Rotation>::mark(&before, None),
                <Reseal as Rotation>::mark(&after, None)
            );
        }
    }
}
