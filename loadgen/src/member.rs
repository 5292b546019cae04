//! One member of a group: a client that sends what is due, shows the judge what it gets, stops
//! reading for a while or leaves and comes back, as the plan says.

use std::{collections::VecDeque, future::Future, ops::Range, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use shoal_client::{
    Client, Code, Config, Delivered, Follow, FollowError, GroupId, PublishError, Saved, Seq, Start, wire,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    judge::Judge,
    network::Network,
    plan::{Due, Habit, MemberId},
    report::Report,
    sabotage::Saboteur,
    setup::Present,
};

/// Messages without receipt, above which further ones wait: the client's own bound is higher.
const UNANSWERED_MAX: usize = 256;

/// How long somebody who has left waits for what is still to be answered.
const RECEIPTS_WAIT: Duration = Duration::from_secs(20);

/// What clients who stop reading buffer, so that they are soon felt.
const SLOW_BUFFER_BYTES: usize = 8 << 10;

/// What a member came to, over all its clients.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) gaps_refilled: u64,
    pub(crate) reconnects: u64,
    pub(crate) moves: u64,
    pub(crate) rebinds: u64,
    pub(crate) parked: u64,
    pub(crate) restarts: u64,
    pub(crate) pauses: u64,
    pub(crate) behind_max: u64,
}

/// What ended a member before the run did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("its follow ended: {0}")]
    Follow(#[from] FollowError),
    #[error("its follow ended without a word")]
    Silent,
    #[error("it was closed while it was sending")]
    Closed,
    #[error("it could not come back: {0}")]
    Restart(#[from] shoal_client::ConnectError),
    #[error("its saved state did not come back: {0}")]
    Saved(#[from] shoal_client::SavedError),
    #[error("it left with {left} messages without a receipt, and came back with {back}")]
    Queue { left: usize, back: usize },
}

/// A member, before it runs.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) habit: Habit,
    pub(crate) group: GroupId,
    pub(crate) judge: Arc<Judge>,
    pub(crate) payload_bytes: usize,
    /// What it is to send.
    pub(crate) due: mpsc::Receiver<Due>,
    /// When it does not read or is away.
    pub(crate) interruptions: VecDeque<Range<Instant>>,
    pub(crate) saboteur: Option<Saboteur>,
    /// Once nobody has anything more for it to send, its follow may end: it is no member then.
    pub(crate) may_leave: bool,
    /// Its own, where that is a weak one.
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) counts: Counts,
}

/// A member that is done.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: MemberId,
    counts: Counts,
    ended: Option<Ended>,
}

impl Done {
    /// How many sessions it had after its first.
    pub(crate) fn reconnects(&self) -> u64 {
        self.counts.reconnects
    }

    /// Puts what it came to into the report.
    pub(crate) fn tell(self, judge: &Judge, report: &mut Report) {
        let Self { id, counts, ended } = self;
        if let Some(lag) = judge.worst_lag(id) {
            let kept = counts.reconnects == 0;
            let worst = if kept { &mut report.kept_lag_ms } else { &mut report.moved_lag_ms };
            *worst = worst.max(lag.as_secs_f64() * 1000.0);
            report.moved += u64::from(!kept);
        }
        report.gaps_refilled += counts.gaps_refilled;
        report.reconnects += counts.reconnects;
        report.moves += counts.moves;
        report.rebinds += counts.rebinds;
        report.parked += counts.parked;
        report.restarts += counts.restarts;
        report.pauses += counts.pauses;
        report.behind_max = report.behind_max.max(counts.behind_max);
        if let Some(ended) = ended {
            report.fail(format!("member {} of group {}: {ended}", id.member, id.group));
        }
    }
}

type Receipts = FuturesOrdered<Pin<Box<dyn Future<Output = (Due, Result<Seq, PublishError>)> + Send>>>;
type Sending = Pin<Box<dyn Future<Output = Result<shoal_client::Sending, PublishError>> + Send>>;

/// A member while its client lives.
struct Life {
    client: Client,
    follow: Follow,
    receipts: Receipts,
    /// Of its network, where it is told of them.
    changes: Option<watch::Receiver<Option<Instant>>>,
    /// The message that waits for room in the client's queue.
    offered: Option<(Due, Bytes, Sending)>,
    reads: bool,
}

/// The configuration of a member's client.
pub(crate) fn configured(config: Config, habit: Habit) -> Config {
    if habit == Habit::Slow { config.follow_buffer_bytes(SLOW_BUFFER_BYTES) } else { config }
}

impl Member {
    /// Runs until `stop`, or until its client is of no more use.
    pub(crate) async fn run(mut self, present: Present, mut stop: watch::Receiver<bool>) -> Done {
        let Present { config, client, follow, .. } = present;
        let mut life = self.live_with(client, follow, Receipts::new());
        let ended = loop {
            match self.live(&mut life, &mut stop).await {
                Ok(Next::Stop) => break None,
                Ok(Next::Gone) => {
                    self.await_receipts(&mut life).await;
                    break None;
                }
                Ok(Next::Leave(until)) => match self.leave(life, &config, until, &mut stop).await {
                    Ok(Some(next)) => life = next,
                    Ok(None) => return Done { id: self.id, counts: self.counts, ended: None },
                    Err(ended) => return Done { id: self.id, counts: self.counts, ended: Some(ended) },
                },
                Err(ended) => break Some(ended),
            }
        };
        self.count(&life.client);
        life.client.close().await;
        Done { id: self.id, counts: self.counts, ended }
    }

    /// Sends and reads, until it is to leave or to stop.
    async fn live(&mut self, life: &mut Life, stop: &mut watch::Receiver<bool>) -> Result<Next, Ended> {
        loop {
            let change = self.interruptions.front().map(|one| if life.reads { one.start } else { one.end });
            let has_room = life.offered.is_none() && life.receipts.len() < UNANSWERED_MAX;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(Next::Stop),
                () = sleep_until(change.unwrap_or_else(Instant::now)), if change.is_some() => {
                    if let Some(until) = self.interrupt(life) {
                        return Ok(Next::Leave(until));
                    }
                }
                Some((due, outcome)) = life.receipts.next(), if !life.receipts.is_empty() => {
                    self.answered(due, outcome)?;
                }
                sending = accepted(&mut life.offered), if life.offered.is_some() => self.accepted(life, sending)?,
                Some(due) = self.due.recv(), if has_room => self.offer(life, due),
                () = changed(&mut life.changes) => {
                    // Where there is no other socket the connection is looked at all the same.
                    let _ = life.client.network_changed();
                }
                item = life.follow.next(), if life.reads => match item.ok_or(Ended::Silent)? {
                    Ok(item) => self.got(item),
                    Err(FollowError::Refused(why)) if self.is_leaving() && why.code == Code::NotMember => {
                        return Ok(Next::Gone);
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Was it told that it will be no member any more?
    fn is_leaving(&self) -> bool {
        self.may_leave && self.due.is_closed()
    }

    /// It is no member any more: what it sent before is answered yet, or nobody will ever say.
    async fn await_receipts(&self, life: &mut Life) {
        if let Some((due, ..)) = life.offered.take() {
            self.judge.refused(due);
        }
        let end = Instant::now() + RECEIPTS_WAIT;
        while let Ok(Some((due, outcome))) = timeout_at(end, life.receipts.next()).await {
            let _ = self.answered(due, outcome);
        }
        life.client.close().await;
        while let Some((due, outcome)) = life.receipts.next().await {
            // Closed: its outcome is unknown.
            let _ = self.answered(due, outcome);
        }
    }

    /// The next interruption begins or ends. Until when to be away, where it is to leave.
    fn interrupt(&mut self, life: &mut Life) -> Option<Instant> {
        if self.habit == Habit::Churns {
            return self.interruptions.pop_front().map(|one| one.end);
        }
        if life.reads {
            self.counts.pauses += 1;
        } else {
            self.counts.behind_max = self.counts.behind_max.max(self.judge.behind(self.id));
            self.interruptions.pop_front();
        }
        life.reads = !life.reads;
        None
    }

    fn offer(&self, life: &mut Life, due: Due) {
        let bytes = self.judge.send(due).encode(self.payload_bytes);
        life.offer(self.group, due, bytes);
    }

    fn accepted(
        &self,
        life: &mut Life,
        sending: Result<shoal_client::Sending, PublishError>,
    ) -> Result<(), Ended> {
        let Some((due, ..)) = life.offered.take() else { return Ok(()) };
        match sending {
            Ok(sending) => life.receipts.push_back(Box::pin(async move { (due, sending.await) })),
            Err(error) => self.answered(due, Err(error))?,
        }
        Ok(())
    }

    fn answered(&self, due: Due, outcome: Result<Seq, PublishError>) -> Result<(), Ended> {
        match outcome {
            Ok(seq) => self.judge.acknowledged(due, seq.get()),
            Err(PublishError::Closed) => {
                self.judge.unknown(due);
                return Err(Ended::Closed);
            }
            Err(PublishError::Unknown(_)) => self.judge.unknown(due),
            Err(_) => self.judge.refused(due),
        }
        Ok(())
    }

    fn got(&mut self, item: Delivered) {
        let record = match item {
            Delivered::Record(record) => record,
            Delivered::GroupChanged { from, to } => {
                return self.judge.passed(self.id, from.get()..to.get());
            }
            // What it passes over without a word shows as a hole.
            _ => return,
        };
        let Some(wire::record::Body::Message(message)) = record.body else {
            return self.judge.passed(self.id, record.seq..record.seq + 1);
        };
        if let Some(network) = &self.network {
            network.delivered();
        }
        let delivery = (record.seq, message.payload);
        let deliveries = match &mut self.saboteur {
            Some(saboteur) => saboteur.pass(delivery),
            None => vec![delivery],
        };
        for (seq, payload) in deliveries {
            self.judge.delivered(self.id, seq, &payload);
        }
    }

    /// Ends the client, stays away, and begins another from what the first one saved; none where
    /// the run stops meanwhile.
    async fn leave(
        &mut self,
        mut life: Life,
        config: &Config,
        until: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<Life>, Ended> {
        self.counts.restarts += 1;
        self.count(&life.client);
        life.client.close().await;
        let saved = life.client.save().to_bytes();
        let mut unanswered = Vec::new();
        while let Some((due, outcome)) = life.receipts.next().await {
            match outcome {
                Err(PublishError::Closed) => unanswered.push(due),
                outcome => self.answered(due, outcome)?,
            }
        }
        let waiting = life.offered.take().map(|(due, bytes, _)| (due, bytes));
        drop(life);
        let back = async {
            sleep_until(until).await;
            let config = config.clone().saved(Saved::from_bytes(&saved)?);
            self.come_back(config, unanswered, waiting).await
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(None),
            back = back => back.map(Some),
        }
    }

    async fn come_back(
        &self,
        config: Config,
        unanswered: Vec<Due>,
        waiting: Option<(Due, Bytes)>,
    ) -> Result<Life, Ended> {
        // The node may be away too: nobody says that it is there when the client comes back.
        let client = Client::start(config)?;
        let mut receipts = Receipts::new();
        let restored = client.restored();
        if restored.len() != unanswered.len() {
            return Err(Ended::Queue { left: unanswered.len(), back: restored.len() });
        }
        for (due, (_, _, sending)) in unanswered.into_iter().zip(restored) {
            receipts.push_back(Box::pin(async move { (due, sending.await) }));
        }
        let follow = client.follow(self.group, Start::Resume).await?;
        let mut life = self.live_with(client, follow, receipts);
        if let Some((due, bytes)) = waiting {
            life.offer(self.group, due, bytes);
        }
        Ok(life)
    }

    fn live_with(&self, client: Client, follow: Follow, receipts: Receipts) -> Life {
        let changes = self.network.as_ref().and_then(|network| network.changes());
        Life { client, follow, receipts, changes, offered: None, reads: true }
    }

    fn count(&mut self, client: &Client) {
        let stats = client.stats();
        self.counts.gaps_refilled += stats.gaps_refilled;
        self.counts.reconnects += stats.reconnects;
        self.counts.moves += stats.moves;
        self.counts.rebinds += stats.migrations;
        self.counts.parked += stats.parked;
    }
}

/// What a member does next.
enum Next {
    Stop,
    /// It leaves, until then.
    Leave(Instant),
    /// It is no member any more.
    Gone,
}

impl Life {
    fn offer(&mut self, group: GroupId, due: Due, bytes: Bytes) {
        let (client, message) = (self.client.clone(), bytes.clone());
        let sending = Box::pin(async move { client.send(group, message).await });
        self.offered = Some((due, bytes, sending));
    }
}

async fn accepted(
    offered: &mut Option<(Due, Bytes, Sending)>,
) -> Result<shoal_client::Sending, PublishError> {
    match offered {
        Some((_, _, sending)) => sending.await,
        None => std::future::pending().await,
    }
}

/// Waits until the machine would tell of another network; never, where nobody is told. Cancellation safe.
async fn changed(changes: &mut Option<watch::Receiver<Option<Instant>>>) {
    let Some(changes) = changes else { return std::future::pending().await };
    while changes.changed().await.is_ok() {
        if changes.borrow_and_update().is_some() {
            return;
        }
    }
    std::future::pending().await
}

/// The moments of a plan's interruptions, in a run that begins at `begun`.
pub(crate) fn moments(
    interruptions: impl Iterator<Item = Range<Duration>>,
    begun: Instant,
) -> VecDeque<Range<Instant>> {
    interruptions.map(|one| begun + one.start..begun + one.end).collect()
}
