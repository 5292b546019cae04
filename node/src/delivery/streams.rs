//! One session's delivery streams: opened when there is something, finished when unused.

use std::{
    future::Future,
    pin::pin,
    slice,
    task::{Context, Poll},
};

use bytes::Bytes;
use quinn::{SendStream, VarInt, WriteError, Written};
use shoal_protocol::Code;

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrote {
    /// So many slices are on their way: written, or the last of them begun.
    pub(super) slices: usize,
    /// The stream takes no more now; the task is woken when it does.
    pub(super) is_blocked: bool,
}

#[derive(Debug)]
struct Open {
    send: SendStream,
    /// What is left of the slice at which the stream was blocked.
    rest: Bytes,
    cursor: u32,
    used: u64,
}

/// The open streams, each of one cursor.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Open>>,
    open: usize,
    blocked: usize,
    /// Counts writes, so that it is known which stream was used last.
    uses: u64,
    /// `uses` at the last sweep.
    swept: u64,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Takes a stream that was opened for a cursor; `opening` is written first.
    pub(super) fn put(&mut self, send: SendStream, opening: Bytes, cursor: u32) -> u16 {
        let open = Open { send, rest: opening, cursor, used: self.uses };
        self.open += 1;
        self.blocked += 1;
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => {
                self.slots[slot] = Some(open);
                slot
            }
            None => {
                self.slots.push(Some(open));
                self.slots.len() - 1
            }
        };
        u16::try_from(slot).expect("far fewer streams than 2^16")
    }

    /// Writes slices of whole frames, all at once where the stream has room. At the first that does not fit it
    /// stops, keeps that one, and has the task woken.
    pub(super) fn write(
        &mut self,
        slot: u16,
        slices: &mut [Bytes],
        cx: &mut Context<'_>,
    ) -> Result<Wrote, WriteError> {
        self.uses += 1;
        let uses = self.uses;
        let open = self.slots[usize::from(slot)].as_mut().expect("a cursor writes while its stream is open");
        open.used = uses;
        if !open.rest.is_empty() {
            if open.write_rest(cx)?.is_pending() {
                return Ok(Wrote { slices: 0, is_blocked: true });
            }
            self.blocked -= 1;
        }
        let mut written = 0;
        while written < slices.len() {
            let Poll::Ready(wrote) = poll_write(&mut open.send, &mut slices[written..], cx)? else {
                open.rest = slices[written].clone();
                self.blocked += 1;
                return Ok(Wrote { slices: written + 1, is_blocked: true });
            };
            written += wrote.chunks;
        }
        Ok(Wrote { slices: written, is_blocked: false })
    }

    /// Goes on with the streams that were blocked; `unblocked` is called with the cursor of each
    /// that takes more now, or was refused.
    pub(super) fn retry(
        &mut self,
        cx: &mut Context<'_>,
        mut unblocked: impl FnMut(u32, Result<(), WriteError>),
    ) {
        if self.blocked == 0 {
            return;
        }
        for open in self.slots.iter_mut().flatten().filter(|open| !open.rest.is_empty()) {
            match open.write_rest(cx) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => {
                    self.blocked -= 1;
                    unblocked(open.cursor, Ok(()));
                }
                Err(error) => unblocked(open.cursor, Err(error)),
            }
        }
    }

    /// Whose stream it is.
    pub(super) fn cursor(&self, slot: u16) -> u32 {
        self.slots[usize::from(slot)].as_ref().expect("the stream is open").cursor
    }

    /// Ends a stream: after what was written, or at once where it is in the middle of a frame.
    pub(super) fn end(&mut self, slot: u16) {
        let Some(mut open) = self.slots[usize::from(slot)].take() else { return };
        self.open -= 1;
        if open.rest.is_empty() {
            // Fails only where it has ended already.
            let _ = open.send.finish();
        } else {
            self.blocked -= 1;
            let _ = open.send.reset(VarInt::from_u32(Code::None as u32));
        }
    }

    /// The stream that was used least recently among those that `may_go`.
    pub(super) fn oldest(&self, may_go: impl Fn(u32) -> bool) -> Option<u16> {
        self.idle()
            .filter(|(_, open)| may_go(open.cursor))
            .min_by_key(|(_, open)| open.used)
            .map(|(slot, _)| slot)
    }

    /// The streams (with their cursors) that were not used since the last sweep.
    pub(super) fn sweep(&mut self) -> Vec<(u16, u32)> {
        let since = std::mem::replace(&mut self.swept, self.uses);
        self.idle().filter(|(_, open)| open.used <= since).map(|(slot, open)| (slot, open.cursor)).collect()
    }

    /// Gives back memory of those that ended.
    pub(super) fn shrink(&mut self) {
        if self.open == 0 {
            self.slots = Vec::new();
        }
    }

    fn idle(&self) -> impl Iterator<Item = (u16, &Open)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(slot, open)| {
            open.as_ref().filter(|open| open.rest.is_empty()).map(|open| (slot, open))
        })
    }
}

impl Open {
    fn write_rest(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, WriteError> {
        while !self.rest.is_empty() {
            if poll_write(&mut self.send, slice::from_mut(&mut self.rest), cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
        // An empty slice may still hold on to its record.
        self.rest = Bytes::new();
        Ok(Poll::Ready(()))
    }
}

/// Polls once. If nothing could be written the stream keeps the waker, though the future is gone.
fn poll_write(
    send: &mut SendStream,
    chunks: &mut [Bytes],
    cx: &mut Context<'_>,
) -> Result<Poll<Written>, WriteError> {
    match pin!(send.write_chunks(chunks)).poll(cx) {
        Poll::Ready(Ok(written)) => Ok(Poll::Ready(written)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(Poll::Pending),
    }
}
