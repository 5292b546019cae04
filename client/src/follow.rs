//! Reading a group in order.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use shoal_protocol::{GroupId, Refusal, Seq, wire};

use crate::{
    Client,
    core::inbox::{self, Item},
    shell::following::{Ending, Following},
};

/// Where to begin to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The next record wanted: all below it, the app has.
    Watermark(Seq),
    /// The record of one's own join, and so everything that is one's own to read.
    Join,
    /// Only what comes from now on.
    Tail,
    /// Where this client, or the run that was [saved](crate::Saved), followed the group last; if
    /// it did not, [`Join`](Self::Join), and for one's own sequence [`Tail`](Self::Tail).
    Resume,
}

/// What a [`Follow`] yields.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Delivered {
    /// The next record: a message, a change of members, settings or [features](crate::Features), or a
    /// notice. Records that are
    /// of no interest can be skipped: there is no gap in what comes.
    ///
    /// Payloads share memory with what came on the network beside them; copy one that is kept for
    /// long.
    Record(wire::Record),
    /// Records that were never this user's to read: they were not a member then, having left and
    /// joined again.
    Skipped {
        /// The first of them.
        from: Seq,
        /// The first that is the user's again, which comes next.
        to: Seq,
    },
    /// The group has changed in ways of which its members are not told one by one: who comes and goes in
    /// a group of many. What the app shows of members, or of how many they are, it asks for again
    /// ([`Client::members`](crate::Client::members), [`Client::group`](crate::Client::group)).
    ///
    /// It stands in place of the records of these changes, which [`Client::history`](crate::Client::history)
    /// has. It comes with the next record, or after some seconds.
    GroupChanged {
        /// The first of them.
        from: Seq,
        /// The next record's place.
        to: Seq,
    },
}

/// Why a follow did not begin, or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The node refused: [`NotMember`](crate::Code::NotMember) (also after a removal, whose place
    /// comes first), [`UnknownGroup`](crate::Code::UnknownGroup),
    /// [`Banned`](crate::Code::Banned), [`TooMany`](crate::Code::TooMany) follows.
    ///
    /// [`WatermarkAhead`](crate::Code::WatermarkAhead) is an alarm: the group's sequence is
    /// shorter than what this client has seen.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// This client follows the group already; drop that [`Follow`] first.
    #[error("the group is followed already")]
    AlreadyFollowed,
    /// The client is closed; [`Client::state`](crate::Client::state) says why.
    #[error("the client is closed (its state says why)")]
    Closed,
}

/// A group's records in order, each once, over any loss, reconnect or move: a
/// [`Stream`](futures_util::Stream). From [`Client::follow`](crate::Client::follow).
///
/// - **Order.** Record after record by [`Seq`], without a hole. If a delivery ever leaves one out,
///   the client fetches it before the app sees what comes after.
/// - **Bounds.** Up to [`follow_buffer_bytes`](crate::Config::follow_buffer_bytes) wait here. An
///   app that does not read stops the group's stream by flow control, and after some seconds the
///   node stops; reading goes on where it stopped.
/// - **End.** After an error, which is the last item, it yields nothing more.
/// - **Cancellation.** [`next`](Self::next) may be dropped; nothing is lost. Dropping the follow
///   unfollows.
#[derive(Debug)]
pub struct Follow {
    following: Arc<Following>,
    client: Client,
    ended: bool,
}

impl Follow {
    /// Asks a node and waits for its answer.
    pub(crate) async fn open(client: &Client, group: GroupId, start: Start) -> Result<Self, FollowError> {
        let follows = &client.shared().follows;
        let start = match start {
            Start::Watermark(seq) => inbox::Start::Watermark(seq),
            Start::Join => inbox::Start::Join,
            Start::Tail => inbox::Start::Tail,
            Start::Resume => match follows.resumable(group) {
                Some(watermark) => inbox::Start::Watermark(watermark),
                None if group.is_own() => inbox::Start::Tail,
                None => inbox::Start::Join,
            },
        };
        let following = follows.open(group, start)?;
        // From here on dropping the future unfollows.
        let follow = Self { following, client: client.clone(), ended: false };
        match poll_fn(|context| follow.following.poll_live(context)).await {
            Ok(_) => Ok(follow),
            Err(ending) => Err(ending.into()),
        }
    }

    /// Which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.following.group
    }

    /// The next record's place: all below it, this follow has yielded, or the app had before.
    #[must_use]
    pub fn watermark(&self) -> Seq {
        // It is known from the moment the follow began.
        self.following.watermark().unwrap_or(Seq::FIRST)
    }

    /// The next item; none after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Delivered, FollowError>> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Result<Delivered, FollowError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let follows = &self.client.shared().follows;
        let group = self.following.group;
        self.following.poll_take(context, || follows.tell(group, false)).map(|taken| match taken {
            Ok(Item::Record(record)) => Some(Ok(Delivered::Record(record))),
            Ok(Item::Skipped { from, to }) => Some(Ok(Delivered::Skipped { from, to })),
            Ok(Item::Silent { from, to }) => Some(Ok(Delivered::GroupChanged { from, to })),
            Err(ending) => {
                self.ended = true;
                Some(Err(ending.into()))
            }
        })
    }
}

impl Stream for Follow {
    type Item = Result<Delivered, FollowError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.client.shared().follows.close(&self.following);
    }
}

impl From<Ending> for FollowError {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Refused(why) => Self::Refused(why),
            Ending::Closed => Self::Closed,
        }
    }
}
