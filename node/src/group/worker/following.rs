//! A group whose home is on another node: its records come as a feed, and what users here want goes
//! there. What the feed does not bring comes from the store, so that a feed that ends opens no gap.

use std::time::Duration;

use shoal_protocol::{Accept, Code, Follower, RecordFrame, Refusal, Seq, wire};
use tokio::time::{Instant, sleep_until};
use wire::{message::Kind, record::Body};

use super::{Worker, homeless};
use crate::{
    coordination::NodeName,
    group::{
        Feed, Place,
        activation::{PAGE, decode, refusal},
        home::{Entry, Fold},
        input::Input,
        loads,
    },
};

/// How long a home that was replaced waits before it takes the group back.
const SHUT_OUT: Duration = Duration::from_secs(1);

/// How soon a home that could not be woken, and that somebody waits for, is woken again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Between two attempts to follow, while the store alone says what is new: short at first, since a
/// new home may only not have heard that it is one, and twice as long each time up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(15);
const RETRY_MAX: Duration = Duration::from_millis(250);

/// A group in which something was said so short a while ago is made ready when its home moves here, before
/// the next message needs it.
const LIVELY: Duration = Duration::from_secs(10);

/// The home elsewhere, and its feed while somebody here needs the group.
#[derive(Debug)]
pub(super) struct Following {
    home: NodeName,
    feed: Option<Feed>,
    /// When to ask again, after a feed has ended.
    again: Option<Instant>,
    /// How long to wait the next time.
    pause: Duration,
    /// When something came last.
    fed: Option<Instant>,
}

impl Following {
    fn new(home: NodeName) -> Self {
        Self { home, feed: None, again: None, pause: RETRY_FIRST, fed: None }
    }

    fn is_lively(&self) -> bool {
        self.fed.is_some_and(|fed| fed.elapsed() < LIVELY)
    }

    fn lose_feed(&mut self) {
        self.feed = None;
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }
}

/// What a feed has for its group.
#[derive(Debug)]
pub(super) enum Fed {
    Records(Vec<RecordFrame>),
    Ended,
    /// It is time to follow again.
    Due,
}

/// The feed's next. Cancellation safe.
pub(super) async fn next(following: &mut Option<Following>) -> Fed {
    match following {
        Some(Following { feed: Some(feed), .. }) => feed.next().await.map_or(Fed::Ended, Fed::Records),
        Some(Following { again: Some(again), .. }) => {
            sleep_until(*again).await;
            Fed::Due
        }
        _ => std::future::pending().await,
    }
}

impl Worker {
    /// Where the home is now. What this node was to the group before ends.
    pub(super) fn take_place(&mut self) -> Place {
        let place = self.groups.home(self.group);
        match &place {
            Place::Here => {
                if let Some(following) = self.following.take() {
                    // A user's own sequence has something to say once, and then for long nothing.
                    self.is_awaited = following.is_lively() && !self.group.is_own();
                    self.shut_out = None;
                    self.let_go(&moved());
                    self.astray.hurry(Instant::now());
                }
            }
            Place::Nowhere => {
                if self.home.is_some() || self.following.is_some() {
                    self.step_down(&homeless());
                    self.following = None;
                }
            }
            Place::There(home) => {
                if self.following.as_ref().is_none_or(|following| following.home != *home) {
                    self.is_awaited = false;
                    self.step_down(&moved());
                    self.astray.hurry(Instant::now());
                    self.following = Some(Following::new(home.clone()));
                    self.follow_home();
                }
            }
        }
        place
    }

    /// Another home has taken the group over. Until this node hears where it is, or has reason to
    /// believe that there is none, it does not take the group back: two nodes with different
    /// placements would shut each other out with every message.
    pub(super) fn be_shut_out(&mut self) {
        self.groups.metrics().fenced.inc();
        self.shut_out = Some(Instant::now() + SHUT_OUT);
        self.step_down(&moved());
    }

    /// The home here is none any more, and whoever follows it from elsewhere looks for the other.
    pub(super) fn step_down(&mut self, why: &Refusal) {
        self.abandon(why);
        if let Some(tail) = &self.tail {
            tail.end_feeds();
        }
    }

    /// Sends on what only the home can do.
    pub(super) fn pass_on(&mut self, home: &NodeName, input: Input) {
        let (groups, home, group) = (self.groups.clone(), home.clone(), self.group);
        match input {
            Input::Follow(follow, to) if follow.signal.user().is_none() => {
                // Whoever does not wait any more does not need it.
                drop(to.send(Err(not_home(&home))));
            }
            Input::Follow(follow, to) => self.follows.push((follow, to)),
            Input::Publish(publish)
            | Input::Owned(publish, _)
            | Input::Again(publish, _)
            | Input::Astray(publish) => {
                unreachable!("{publish:?} is routed")
            }
            Input::Judged(publish, _) => {
                publish.refuse(not_home(&home));
            }
            Input::Change(actor, body, to) => self.errands.push(Box::pin(async move {
                let change = wire::Change { group: group.to_wire(), body: Some(body) };
                drop(to.send(groups.elsewhere().change(&home, actor, change).await));
            })),
            Input::Notice(user, notice, to) => self.errands.push(Box::pin(async move {
                drop(to.send(groups.elsewhere().notify(&home, user, notice).await));
            })),
            Input::Owner(..) => unreachable!("an owner answers wherever the home is"),
            Input::Wake | Input::Look => {}
        }
    }

    /// Follows the home, if somebody here needs the group and it is not followed yet.
    pub(super) fn follow_home(&mut self) {
        let (Some(following), Some(tail)) = (&mut self.following, &self.tail) else { return };
        let is_needed = tail.attached() > 0 || self.owner.is_some() || !self.parked.is_empty();
        if following.feed.is_none() && following.again.is_none() && is_needed {
            let elsewhere = self.groups.elsewhere();
            following.feed = Some(elsewhere.follow(&following.home, tail));
        }
    }

    /// Is the group followed for somebody here?
    pub(super) fn is_followed_here(&self) -> bool {
        self.following.is_some() && self.tail.as_ref().is_some_and(|tail| tail.attached() > 0)
    }

    pub(super) async fn handle_fed(&mut self, fed: Fed) {
        let taken = match fed {
            Fed::Records(frames) => {
                self.groups.metrics().received.add(frames.len() as u64);
                self.take_fed(frames).await
            }
            Fed::Ended => Err(Refusal::new(Code::NotHome, "the feed has ended")),
            Fed::Due => {
                if let Some(following) = &mut self.following {
                    following.again = None;
                }
                self.take_place();
                self.follow_home();
                return;
            }
        };
        let Err(why) = taken else {
            if let Some(following) = &mut self.following {
                following.pause = RETRY_FIRST;
                following.fed = Some(Instant::now());
            }
            return;
        };
        if why.code == Code::NotHome {
            tracing::debug!(group = %self.group, %why, "a feed is begun again");
        } else {
            tracing::warn!(group = %self.group, %why, "what a feed brought was not taken; it is begun again");
        }
        if let Some(following) = &mut self.following {
            following.lose_feed();
        }
        self.look_or_warn().await;
    }

    pub(super) async fn look_or_warn(&mut self) {
        let is_awaited = std::mem::take(&mut self.is_awaited) && self.home.is_none();
        let looked = if is_awaited { self.wake(None).await } else { self.look().await };
        if let Err(why) = looked {
            tracing::warn!(group = %self.group, %why, "the store cannot say what is new");
            if is_awaited {
                self.is_awaited = true;
                self.look_later();
            }
        }
    }

    /// A home that could not be woken is, a little later.
    fn look_later(&mut self) {
        if !self.is_stopping {
            let (groups, group) = (self.groups.clone(), self.group);
            self.errands.push(Box::pin(async move {
                tokio::time::sleep(LOOK_AGAIN).await;
                // Where there is no room to say so, there is other work that looks.
                let _ = groups.send(group, Input::Look);
            }));
        }
    }

    /// Another home may have written since this node last heard: the store knows.
    pub(super) async fn look(&mut self) -> Result<(), Refusal> {
        if let Some(home) = &self.home {
            match self.store.group(self.group).await.map_err(refusal)? {
                Some(row) if row.epoch > home.epoch() => self.be_shut_out(),
                _ => return Ok(()),
            }
        }
        let caught_up = self.catch_up().await;
        self.follow_home();
        caught_up
    }

    /// Takes what the store has and this node has not.
    async fn catch_up(&mut self) -> Result<(), Refusal> {
        let Some(tail) = self.tail.clone() else { return Ok(()) };
        loop {
            let page = self.store.read(self.group, tail.tail(), PAGE).await.map_err(refusal)?;
            if page.is_empty() {
                return Ok(());
            }
            self.take_fed(page.iter().map(|record| RecordFrame::from_encoded(record)).collect()).await?;
        }
    }

    /// Takes records in order: those it has are dropped, and a hole ends the feed.
    async fn take_fed(&mut self, frames: Vec<RecordFrame>) -> Result<(), Refusal> {
        let Some(tail) = &self.tail else { return Ok(()) };
        let mut follower = Follower::new(tail.tail());
        let (mut entries, mut recalled) = (Vec::with_capacity(frames.len()), Vec::new());
        for frame in frames {
            let record = decode(frame.record())?;
            let seq = Seq::new(record.seq).ok_or_else(|| Refusal::new(Code::BadFrame, "no Seq is 0"))?;
            match follower.accept(seq) {
                Accept::Drop => {}
                Accept::Take => {
                    self.note_lag(record.time_ms);
                    recalled.extend(recalled_by(&record));
                    entries.push(Entry { seq, frame, fold: Fold::of(record.body) });
                }
                Accept::Gap { wanted } => {
                    self.gaps += 1;
                    return Err(Refusal::new(Code::Internal, format!("{wanted} is missing before {seq}")));
                }
            }
        }
        for seq in recalled {
            self.redact(seq).await?;
        }
        self.advance(entries);
        Ok(())
    }

    /// How long it was on its way, by the clocks of two nodes.
    fn note_lag(&self, time_ms: u64) {
        let lag = self.groups.now().wall_ms.saturating_sub(time_ms);
        self.groups.metrics().received_lag_ms.observe(lag);
    }

    /// A payload is gone from the store: so it is from what this node holds, with its edits.
    async fn redact(&mut self, seq: Seq) -> Result<(), Refusal> {
        let loaded = loads::record(&self.store, self.group, seq, true).await?;
        for record in loaded.record.iter().chain(&loaded.edits) {
            if let Some(seq) = Seq::new(record.seq) {
                self.groups.redact(self.group, seq, RecordFrame::encode(record));
            }
        }
        Ok(())
    }
}

fn not_home(home: &NodeName) -> Refusal {
    Refusal::new(Code::NotHome, format!("the group's home is {}", home.0))
}

fn moved() -> Refusal {
    Refusal::new(Code::NotHome, "the group's home has moved")
}

/// The record whose payload this one recalls.
fn recalled_by(record: &wire::Record) -> Option<Seq> {
    match &record.body {
        Some(Body::Message(message)) if message.kind() == Kind::Recall => Seq::new(message.refers_to),
        _ => None,
    }
}
