//! A change of a group's members, asked for until it is answered.

use std::time::Duration;

use shoal_client::{Client, Code, GroupId, RequestError, Retry, UserId, wire};
use tokio::time::sleep;

/// From one try to the next.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Who comes or goes, and who asks for it.
#[derive(Debug)]
pub(crate) enum Change {
    /// One joins.
    Join(Client),
    /// An administrator adds some.
    Add(Client, Vec<UserId>),
    /// One leaves.
    Leave(Client),
    /// An administrator removes some.
    Remove(Client, Vec<UserId>),
}

impl Change {
    /// The record of the change; none where it was brought about by a try whose answer was lost, and the
    /// node does not know any more with which.
    ///
    /// # Errors
    /// What it was refused with for good.
    pub(crate) async fn carry_out(&self, group: GroupId) -> Result<Option<u64>, RequestError> {
        let mut is_first = true;
        loop {
            match self.ask(group).await {
                Ok(changed) => return Ok(Some(changed.seq).filter(|seq| *seq > 0)),
                Err(RequestError::Refused(refusal)) if !is_first && refusal.code == Code::NotMember => {
                    return Ok(None);
                }
                Err(RequestError::Refused(refusal)) if refusal.code.retry() != Retry::Never => {}
                Err(RequestError::Unanswered(_) | RequestError::TimedOut) => {}
                Err(error) => return Err(error),
            }
            is_first = false;
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn ask(&self, group: GroupId) -> Result<wire::Changed, RequestError> {
        match self {
            Self::Join(client) => client.join(group).await,
            Self::Add(admin, users) => admin.add(group, users).await,
            Self::Leave(client) => client.leave(group).await,
            Self::Remove(admin, users) => admin.remove(group, users).await,
        }
    }
}
