//! Telling members what concerns them: a follower of the group's sequence that writes into the
//! users' own.

use std::{sync::Arc, time::Duration};

use futures_util::{TryStreamExt, stream};
use shoal_protocol::{GroupId, Refusal, Seq, UserId, wire};
use wire::{member_change::Kind, notice::What, record::Body};

use super::{
    Groups,
    activation::{decode, for_each_record},
};
use crate::store::Store;

/// Users who are told at the same time.
const AT_ONCE: usize = 64;
/// Before the next attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// The node is going before everybody has been told. The group stays on the store's list of those
/// with notices due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Going;

/// Tells everybody whom the records from `from` up to `to` concern; ends once all have been told.
/// What is told twice is known by its place.
pub(super) async fn send(
    groups: Groups,
    store: Arc<dyn Store>,
    group: GroupId,
    title: String,
    from: Seq,
    to: Seq,
) -> Result<(), Going> {
    let notices = loop {
        match gather(&store, group, &title, from, to).await {
            Ok(notices) => break notices,
            Err(refusal) => {
                tracing::warn!(%group, %refusal, "notices wait");
                pause(&groups).await?;
            }
        }
    };
    let groups = &groups;
    stream::iter(notices.into_iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |(user, notice)| async move {
            while let Err(refusal) = groups.notify(&user, notice.clone()).await {
                tracing::debug!(%user, %refusal, "a notice waits");
                pause(groups).await?;
            }
            Ok(())
        })
        .await
}

async fn pause(groups: &Groups) -> Result<(), Going> {
    if groups.stopping().has_begun() {
        return Err(Going);
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

/// In the order of the records, so that one user's notices come in order as long as they are sent
/// one by one; a later place in the group shuts out an earlier one, so each user gets the last.
async fn gather(
    store: &Arc<dyn Store>,
    group: GroupId,
    title: &str,
    from: Seq,
    to: Seq,
) -> Result<std::collections::BTreeMap<UserId, wire::Notice>, Refusal> {
    let mut notices = std::collections::BTreeMap::new();
    for_each_record(store, group, from, to, |seq, record| {
        if let Some(Body::Members(changes)) = decode(record)?.body {
            for change in &changes.changes {
                if let (Ok(user), Some(what)) = (UserId::new(&change.user), what(change, title)) {
                    let notice =
                        wire::Notice { group: group.to_wire(), what: Some(what), group_seq: seq.get() };
                    notices.insert(user, notice);
                }
            }
        }
        Ok(())
    })
    .await?;
    Ok(notices)
}

fn what(change: &wire::MemberChange, title: &str) -> Option<What> {
    match change.kind() {
        Kind::Joined | Kind::Added | Kind::RoleChanged => {
            Some(What::Joined(wire::notice::Joined { role: change.role, title: title.to_owned() }))
        }
        Kind::Left | Kind::Removed | Kind::Banned => {
            Some(What::Left(wire::notice::Left { kind: change.kind }))
        }
        Kind::Unknown | Kind::Muted | Kind::Unmuted | Kind::Unbanned => None,
    }
}
