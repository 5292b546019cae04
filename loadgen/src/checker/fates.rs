//! What became of one sender's messages.

use std::collections::BTreeMap;

/// What is known of a message that is not settled.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// Its receipt named this place.
    acknowledged: Option<u64>,
    /// It stands at this place in the order that all receivers got.
    placed: Option<u64>,
    /// It was refused for good.
    refused: bool,
    /// Nobody will say what became of it.
    unknown: bool,
}

/// What a message's place in the order says about its sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// After all that were sent before it.
    InOrder,
    /// After one that was sent later.
    Overtaken,
    /// It has a place already.
    Twice,
    /// It was refused, or never sent.
    Phantom,
}

/// One sender's messages. Only those without receipt or place take memory.
#[derive(Debug, Default)]
pub(super) struct Fates {
    sent_max: u64,
    placed_max: u64,
    open: BTreeMap<u64, Fate>,
}

impl Fates {
    /// The message was given to the sender's client.
    pub(super) fn sent(&mut self, number: u64) {
        self.sent_max = self.sent_max.max(number);
        self.open.insert(number, Fate::default());
    }

    /// Was it ever sent?
    pub(super) fn was_sent(&self, number: u64) -> bool {
        (1..=self.sent_max).contains(&number)
    }

    /// Its receipt came, the first. True where its place is still to be seen by everybody.
    pub(super) fn acknowledge(&mut self, number: u64, seq: u64) -> bool {
        let Some(fate) = self.open.get_mut(&number) else { return false };
        fate.acknowledged = Some(seq);
        if fate.placed == Some(seq) {
            self.open.remove(&number);
            return false;
        }
        true
    }

    /// Has it neither receipt nor refusal?
    pub(super) fn awaits_answer(&self, number: u64) -> bool {
        self.open
            .get(&number)
            .is_some_and(|fate| fate.acknowledged.is_none() && !fate.refused && !fate.unknown)
    }

    /// Nobody will say what became of it. True where it awaited an answer.
    pub(super) fn give_up(&mut self, number: u64) -> bool {
        let awaited = self.awaits_answer(number);
        if awaited && let Some(fate) = self.open.get_mut(&number) {
            fate.unknown = true;
        }
        awaited
    }

    /// It was refused for good. False where it has a place all the same.
    pub(super) fn refuse(&mut self, number: u64) -> bool {
        let Some(fate) = self.open.get_mut(&number) else { return false };
        fate.refused = true;
        fate.placed.is_none()
    }

    /// It stands at `seq` in the order that all receivers got. Called in ascending order.
    pub(super) fn place(&mut self, number: u64, seq: u64) -> Placed {
        if !self.was_sent(number) {
            return Placed::Phantom;
        }
        let Some(fate) = self.open.get_mut(&number) else { return Placed::Twice };
        if fate.refused {
            return Placed::Phantom;
        }
        if fate.placed.is_some() {
            return Placed::Twice;
        }
        fate.placed = Some(seq);
        if fate.acknowledged == Some(seq) {
            self.open.remove(&number);
        }
        if number < self.placed_max {
            return Placed::Overtaken;
        }
        self.placed_max = number;
        // What was refused before this one can have no place any more that would not be noticed.
        while self.open.first_entry().is_some_and(|first| *first.key() < number && first.get().refused) {
            self.open.pop_first();
        }
        Placed::InOrder
    }

    /// Messages acknowledged at a place that nobody has confirmed: (number, place).
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.open.iter().filter_map(|(number, fate)| match fate.acknowledged {
            Some(seq) if fate.placed != Some(seq) => Some((*number, seq)),
            _ => None,
        })
    }
}
