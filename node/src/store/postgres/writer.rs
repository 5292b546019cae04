//! Gathers what waits, over many groups, and has it written in one transaction; what comes meanwhile
//! is the next one. A database has several writers, and a group always the same.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::sleep};

use super::{
    batch::Request,
    link::Link,
    transaction::{Failure, Written},
};
use crate::{ops::Metrics, store::StoreError};

/// Requests in a transaction.
const REQUESTS_MAX: usize = 1_024;
/// Bytes in a transaction, beyond its first request: nobody should wait for it for long.
const BYTES_MAX: usize = 4 << 20;
/// How often a transaction is tried that another one was in the way of.
const TRIES_MAX: u32 = 10;

pub(super) struct Writer {
    pub(super) requests: mpsc::Receiver<Request>,
    /// What came and has not been written; in the order in which it came.
    pub(super) waiting: VecDeque<Request>,
    pub(super) link: Arc<Link>,
    pub(super) metrics: Arc<Metrics>,
}

impl Writer {
    /// Runs until every handle is gone and everything that waited has been answered.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            let (began, writes) = (Instant::now(), batch.len() as u64);
            self.commit(batch).await;
            self.metrics.commit_seconds.observe(began.elapsed());
            self.metrics.commit_writes.observe_size(writes);
        }
    }

    async fn gather(&mut self) -> Option<Vec<Request>> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.requests.recv().await?);
        }
        while self.waiting.len() < REQUESTS_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            self.waiting.push_back(request);
        }
        Some(take(&mut self.waiting))
    }

    /// Where a transaction is refused, its halves are tried apart, until what it is refused for
    /// stands alone.
    async fn commit(&self, batch: Vec<Request>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let outcome = self.write(&part).await;
            if matches!(outcome, Err(Failure::Refused(_))) && part.len() > 1 {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            } else {
                part.into_iter().for_each(|request| request.answer(&outcome));
            }
        }
    }

    async fn write(&self, part: &[Request]) -> Result<Written, Failure> {
        let mut tries = 0;
        loop {
            let session = self.link.session().await.map_err(Failure::Away)?;
            match session.write(part).await {
                Err(Failure::Met(why)) if tries == TRIES_MAX => {
                    return Err(Failure::Refused(StoreError::Unavailable(why)));
                }
                Err(Failure::Met(_)) => tries += 1,
                outcome => return outcome,
            }
            sleep(Duration::from_millis(rand::random_range(1..=1 << tries.min(6)))).await;
        }
    }
}

/// As many requests as go together: one for each group, the others stay in their order.
fn take(waiting: &mut VecDeque<Request>) -> Vec<Request> {
    let (mut batch, mut bytes, mut groups) = (Vec::new(), 0, HashSet::new());
    for request in std::mem::take(waiting) {
        // A group whose request stays is named too: what comes after it must not overtake it.
        let is_first = request.group().is_none_or(|group| groups.insert(group));
        if is_first && bytes < BYTES_MAX {
            bytes += request.bytes();
            batch.push(request);
        } else {
            waiting.push_back(request);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_protocol::{GroupId, Seq};
    use tokio::sync::oneshot;

    use super::*;
    use crate::store::{Append, Changes, Epoch};

    fn append(group: &str, tail: u64, bytes: usize) -> Request {
        let changes = Changes { records: vec![Bytes::from(vec![0; bytes])], ..Changes::default() };
        let (group, expected_tail) = (GroupId::named(group), Seq::new(tail).unwrap());
        let append = Append { group, epoch: Epoch(1), expected_tail, changes };
        Request::Append { append: Box::new(append), answer: oneshot::channel().0 }
    }

    fn order(requests: impl IntoIterator<Item = Request>) -> Vec<(GroupId, u64)> {
        let of = |request| match request {
            Request::Append { append, .. } => (append.group, append.expected_tail.get()),
            other => panic!("{other:?}"),
        };
        requests.into_iter().map(of).collect()
    }

    #[test]
    fn requests_of_one_group_go_one_after_the_other() {
        let (a, b) = (GroupId::named("a"), GroupId::named("b"));
        let mut waiting =
            VecDeque::from([append("a", 1, 9), append("a", 2, 9), append("b", 1, 9), append("a", 3, 9)]);
        assert_eq!(order(take(&mut waiting)), [(a, 1), (b, 1)]);
        assert_eq!(order(take(&mut waiting)), [(a, 2)]);
        assert_eq!(order(take(&mut waiting)), [(a, 3)]);
        assert!(take(&mut waiting).is_empty());
    }

    #[test]
    fn what_is_too_much_for_a_transaction_keeps_its_place() {
        let (a, b) = (GroupId::named("a"), GroupId::named("b"));
        let mut waiting = VecDeque::from([append("a", 1, BYTES_MAX), append("b", 1, 9), append("b", 2, 0)]);
        assert_eq!(order(take(&mut waiting)), [(a, 1)]);
        assert_eq!(order(take(&mut waiting)), [(b, 1)]);
        assert_eq!(order(take(&mut waiting)), [(b, 2)]);
    }
}
