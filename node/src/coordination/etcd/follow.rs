//! A range of keys, kept here as etcd has it.
//!
//! Whatever ends the watch (etcd restarts, the revision it stands at has been compacted, another
//! endpoint is used), the range is read again and watched from the revision that it was read at:
//! so a change may be seen together with later ones, and none is missed. Meanwhile what was read
//! last stands.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use tokio::{sync::watch, time::sleep};
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::{
    api::{KeyValue, RangeRequest, WatchCreateRequest, WatchResponse, event::EventType},
    client::{Client, said},
};

/// Keys in one answer. Each may be as large as a setting.
const PAGE_KEYS: i64 = 500;
/// How long to wait after etcd did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// Changes the state as a key has changed; none: it is gone.
type Apply<S> = fn(&mut S, key: &str, value: Option<&KeyValue>);

/// Keeps a state as the keys of a range make it.
pub(super) struct Follow<S> {
    client: Client,
    range: Range,
    apply: Apply<S>,
    state: watch::Sender<S>,
    /// All revisions below are in what was read last.
    watermark: i64,
}

/// Some keys.
#[derive(Debug, Clone)]
pub(super) struct Range {
    /// Left out of the keys' names here.
    above: String,
    key: Bytes,
    end: Bytes,
}

impl Range {
    /// One key.
    pub(super) fn one(key: String) -> Self {
        Self { above: String::new(), key: key.into(), end: Bytes::new() }
    }

    /// The keys that begin with `above` and `prefix`, known here without `above`.
    pub(super) fn below(above: String, prefix: &str) -> Self {
        let key = format!("{above}{prefix}");
        let end = super::keys::end_of(&key).into();
        Self { above, key: key.into(), end }
    }
}

impl<S: Default + Send + Sync + 'static> Follow<S> {
    /// Reads the range. Run what comes back, else nothing becomes of it.
    pub(super) async fn new(
        client: &Client,
        range: Range,
        apply: Apply<S>,
    ) -> Result<(Self, watch::Receiver<S>), Status> {
        let (state, receiver) = watch::channel(S::default());
        let mut follow = Self { client: client.clone(), range, apply, state, watermark: 0 };
        follow.read().await?;
        Ok((follow, receiver))
    }

    /// Follows until nobody wants to know any more.
    pub(super) async fn run(mut self) {
        let state = self.state.clone();
        tokio::select! {
            biased;
            () = state.closed() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut chosen = self.client.chosen();
        loop {
            chosen.mark_unchanged();
            let ended = tokio::select! {
                biased;
                _ = chosen.changed() => Status::cancelled("another endpoint is used"),
                Err(status) = self.watch() => status,
            };
            debug!(because = %said(&ended), key = ?self.range.key, "the watch begins again");
            self.read_again().await;
        }
    }

    async fn read_again(&mut self) {
        loop {
            sleep(RETRY).await;
            match self.read().await {
                Ok(()) => return,
                Err(status) => debug!(because = %said(&status), key = ?self.range.key, "it cannot be read"),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Status> {
        loop {
            match self.read_pages().await {
                // The revision was compacted between two pages.
                Err(status) if status.code() == Code::OutOfRange => {}
                done => return done,
            }
        }
    }

    /// Reads all of the range as of one revision.
    async fn read_pages(&mut self) -> Result<(), Status> {
        let mut state = S::default();
        let mut revision = 0;
        let mut key = self.range.key.clone();
        loop {
            let range = RangeRequest { key, range_end: self.range.end.clone(), limit: PAGE_KEYS, revision };
            let page = self.client.range(range).await?;
            if revision == 0 {
                revision = page.header.as_ref().map_or(0, |header| header.revision);
            }
            for found in &page.kvs {
                self.apply(&mut state, found, true);
            }
            match page.kvs.last() {
                Some(last) if page.more => key = [&last.key[..], &[0]].concat().into(),
                _ => break,
            }
        }
        self.watermark = revision + 1;
        self.state.send_replace(state);
        Ok(())
    }

    /// Takes changes until the watch ends.
    async fn watch(&mut self) -> Result<Infallible, Status> {
        let create = WatchCreateRequest {
            key: self.range.key.clone(),
            range_end: self.range.end.clone(),
            start_revision: self.watermark,
        };
        let mut changes = self.client.watch(create).await?;
        loop {
            let change = changes.message().await?.ok_or_else(|| Status::cancelled("the stream ended"))?;
            if change.canceled {
                return Err(Status::cancelled(reason(&change)));
            }
            self.take(&change);
        }
    }

    fn take(&self, change: &WatchResponse) {
        if change.events.is_empty() {
            return;
        }
        self.state.send_modify(|state| {
            for event in &change.events {
                if let Some(found) = &event.kv {
                    self.apply(state, found, event.r#type() == EventType::Put);
                }
            }
        });
    }

    fn apply(&self, state: &mut S, found: &KeyValue, is_there: bool) {
        let key = std::str::from_utf8(&found.key).ok().and_then(|key| key.strip_prefix(&self.range.above));
        match key {
            Some(key) => (self.apply)(state, key, is_there.then_some(found)),
            None => warn!(key = ?found.key, "not a key of Shoal's"),
        }
    }
}

fn reason(change: &WatchResponse) -> String {
    match change.compact_revision {
        0 => change.cancel_reason.clone(),
        compacted => format!("what is to come was compacted up to revision {compacted}"),
    }
}
