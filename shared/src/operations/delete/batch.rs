//! The live versions that the next transaction of a delete is about.

use crate::audit_chain::{ChainHead, EventKind, NameState, NewEvent, NewestVersion};
use crate::error::Error;
use crate::life::{HighestVersion, newest_after_delete};
use crate::name::{Name, VersionKey};
use crate::store::secrets_table::{LiveVersion, SecretsTable};

/// Some live versions, lowest first.
pub(super) struct Batch {
    pub(super) versions: Vec<LiveVersion>,
    /// Whether no version remains after them.
    pub(super) last: bool,
    /// The highest version that remains, if a single version is deleted.
    remaining: Option<HighestVersion>,
}

impl Batch {
    /// Reads the version with this label, or the `most` lowest versions.
    pub(super) async fn read(
        table: &SecretsTable,
        name: &Name,
        label: Option<&VersionKey>,
        most: i32,
    ) -> Result<Self, Error> {
        let Some(label) = label else {
            let (mut versions, more) = table.lowest(name, most + 1).await?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            // A page that ended at 1 MB may have been complete. One version waits for the next
            // batch, or the highest could go before the last transaction.
            let count = if more { versions.len().saturating_sub(1).max(1) } else { versions.len() };
            let last = !more && count <= most;
            versions.truncate(count.min(most));
            return Ok(Self { versions, last, remaining: None });
        };
        let (found, tops) = tokio::try_join!(table.live(name, label), table.tops(name, 2))?;
        let last = found.is_some() && tops.len() == 1;
        let remaining = tops.into_iter().find(|top| top.label != *label);
        Ok(Self { versions: found.into_iter().collect(), last, remaining })
    }

    pub(super) fn labels(&self) -> Vec<VersionKey> {
        self.versions.iter().map(|version| version.label.clone()).collect()
    }

    /// Returns the event of a delete of these versions.
    pub(super) fn event(&self, head: &ChainHead, forced: bool) -> NewEvent {
        let state = if self.last { NameState::Deleted } else { head.state };
        let deleted: Vec<_> = self.versions.iter().filter_map(LiveVersion::identity).collect();
        let newest = newest_after_delete(head, &deleted, self.remaining.as_ref());
        delete_event(self.labels(), forced, state, newest)
    }
}

/// Returns the event of a delete.
pub(super) fn delete_event(
    versions: Vec<VersionKey>,
    forced: bool,
    state: NameState,
    newest: NewestVersion,
) -> NewEvent {
    NewEvent { kind: EventKind::Delete, versions, forced, state, recoverable_until: None, newest }
}
