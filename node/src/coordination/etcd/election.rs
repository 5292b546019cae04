//! Who leads: whoever has created the leader's key, for as long as their lease keeps it there.
//!
//! The revision in which the key was created is the term. What a leader writes is conditional on
//! the key still being that one, so a deposed leader cannot write, whatever it believes.

use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;

use super::{
    api::{KeyValue, TxnRequest, created_in, get, put},
    client::Client,
};
use crate::coordination::{Leadership, NodeName};

/// One registration's way to the leadership.
pub(super) struct Election {
    pub(super) client: Client,
    pub(super) key: String,
    pub(super) node: NodeName,
    pub(super) lease: i64,
    pub(super) leader: watch::Receiver<Option<Leadership>>,
}

impl Election {
    /// Waits until this registration leads.
    pub(super) async fn campaign(&self) -> Result<Leadership, Status> {
        let mut leader = self.leader.clone();
        loop {
            leader.mark_unchanged();
            if let Some(leadership) = self.try_once().await? {
                return Ok(leadership);
            }
            if leader.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    async fn try_once(&self) -> Result<Option<Leadership>, Status> {
        let name = serde_json::to_vec(&self.node).expect("a name is JSON");
        let elected = TxnRequest {
            compare: vec![created_in(&self.key, 0)],
            success: vec![put(&self.key, Bytes::from(name), self.lease)],
            failure: vec![get(&self.key)],
        };
        let answer = self.client.txn(elected).await?;
        let term = match answer.read(0) {
            _ if answer.succeeded => Some(answer.revision()),
            // It leads already: an answer may have been lost.
            Some(standing) if standing.lease == self.lease => Some(standing.create_revision),
            _ => None,
        };
        Ok(term.map(|term| Leadership { node: self.node.clone(), term: term.unsigned_abs() }))
    }
}

/// What the leader's key says.
pub(super) fn leadership(found: &KeyValue) -> Option<Leadership> {
    let node = serde_json::from_slice(&found.value).ok()?;
    Some(Leadership { node, term: found.create_revision.unsigned_abs() })
}
