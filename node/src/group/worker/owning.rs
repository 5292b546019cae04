//! What this node owns of a group: the members whose slots are placed here, and its opinion of what
//! they send.

use shoal_protocol::{Code, Features, Refusal, Seq, Slot, wire};

use super::{Worker, homeless};
use crate::{
    group::{
        Passage, Place, Publish, Stage,
        activation::refusal,
        input::{Input, split},
        judgement::Judged,
        layout::{Layout, Slots},
        receipt::ReceiptTo,
    },
    store::GroupState,
};

/// Messages that wait until every record below a place is folded, to be judged again. Whoever sent
/// them waits for the receipts, which are bounded; and so are these.
#[derive(Debug, Default)]
pub(super) struct Parked(Vec<(Publish, Seq)>);

impl Parked {
    pub(super) fn push(&mut self, publish: Publish, at: Seq) {
        self.0.push((publish, at));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that need not wait any more, now that everything below `folded` is, in their order.
    fn due(&mut self, folded: Seq) -> Vec<(Publish, Seq)> {
        self.0.extract_if(.., |(_, at)| *at <= folded).collect()
    }
}

impl Worker {
    /// A message that nobody has judged yet: to the owner of its sender's slot. `seen` is the layout
    /// by which another node sent it here; it is sent on only by a later one, so that it cannot go
    /// round.
    pub(super) async fn route(&mut self, home: &Place, publish: Publish, seen: Option<u64>) {
        if *home == Place::Here
            && let Err(why) = self.wake(None).await
        {
            return self.turn_away(publish, why);
        }
        if let Err(why) = self.learn_layout(seen).await {
            return self.turn_away(publish, why);
        }
        let layout = self.layout.as_ref().expect("it has just been learnt");
        let version = layout.version();
        match self.groups.place(layout.partition(Slot::of(&publish.sender.user))) {
            Place::Here => self.judge(home, publish).await,
            owner @ Place::There(_) if seen.is_none_or(|seen| version > seen) => {
                self.send(&owner, publish, Stage::Owner { layout: version });
            }
            Place::There(_) | Place::Nowhere => {
                let why = Refusal::new(Code::NotHome, "the sender's owner is not here");
                self.turn_away(publish, why);
            }
        }
    }

    /// The home wants another opinion, once every record below `at` is folded: these are durable, and so
    /// they come.
    pub(super) async fn park(&mut self, publish: Publish, at: Seq) {
        match self.open_tail().await {
            Ok(_) => {
                self.parked.push(publish, at);
                self.follow_home();
            }
            Err(why) => self.refuse(publish, why),
        }
    }

    /// Those who waited for what is folded by now go on.
    pub(super) async fn resume(&mut self) {
        let Some(folded) = self.tail.as_ref().map(|tail| tail.tail()).filter(|_| !self.parked.is_empty())
        else {
            return;
        };
        let due = self.parked.due(folded);
        if due.is_empty() {
            return;
        }
        let home = self.take_place();
        for (publish, at) in due {
            match publish.receipt {
                ReceiptTo::Owner(lane) => lane.judge_again(at),
                receipt => self.route(&home, Publish { receipt, ..publish }, None).await,
            }
        }
        self.perform();
    }

    /// Learns the layout, at least as new as another node has `seen` it, and the features.
    pub(super) async fn learn_layout(&mut self, seen: Option<u64>) -> Result<(), Refusal> {
        if self.layout.is_none() {
            self.open_tail().await?;
        }
        let is_new = |layout: &Layout| seen.is_none_or(|seen| layout.version() >= seen);
        if self.features.is_none() || !self.layout.as_ref().is_some_and(is_new) {
            let row = self.store.group(self.group).await.map_err(refusal)?;
            let row = row.ok_or_else(|| Refusal::new(Code::UnknownGroup, "no such group"))?;
            self.learn(&row.state);
        }
        Ok(())
    }

    /// Judges a message and hands it to the home.
    async fn judge(&mut self, home: &Place, publish: Publish) {
        if let Err(why) = self.own(Slot::of(&publish.sender.user)).await {
            return self.turn_away(publish, why);
        }
        let now = self.groups.now();
        let owner = self.owner.as_mut().expect("it owns the slot");
        let opinion = owner.judge(&publish.sender.user, &publish.message, now);
        self.groups.metrics().judged.inc();
        match &mut self.home {
            Some(awake) if *home == Place::Here => {
                let (publish, reply) = split(publish);
                awake.handle_publish(Judged { publish, opinion, reply }, now);
            }
            _ => self.send(home, publish, Stage::Home(opinion)),
        }
    }

    fn send(&mut self, to: &Place, publish: Publish, stage: Stage) {
        let Place::There(node) = to else {
            return self.turn_away(publish, homeless());
        };
        let from = self.groups.clone();
        self.groups.elsewhere().publish(node, Passage { publish, stage, from });
    }

    pub(super) fn slots_here(&self) -> Slots {
        let Some(layout) = &self.layout else { return Slots::default() };
        layout.slots(|partition| self.groups.place(partition) == Place::Here)
    }

    /// What the group's row says.
    pub(super) fn learn(&mut self, state: &GroupState) {
        self.set_layout(Layout::from_wire(self.group, state.layout.as_deref()));
        let features = state.features.as_deref().map(Features::from_wire).unwrap_or_default();
        if self.features.as_ref().is_none_or(|known| known.changed() < features.changed()) {
            self.features = Some(features);
            self.pass_on_features();
        }
    }

    /// Some members, or all, have been given something. Before the row was read, nothing is made of it: the
    /// row has it.
    pub(super) fn take_feature(&mut self, seq: Seq, feature: &wire::Feature) {
        if self.features.as_mut().is_some_and(|known| known.fold(seq, feature)) {
            self.pass_on_features();
        }
    }

    fn pass_on_features(&mut self) {
        if let (Some(owner), Some(features)) = (&mut self.owner, &self.features) {
            owner.set_features(features);
        }
    }

    /// The group is cut otherwise from here on. What this node has gained is read when it is needed;
    /// what it has lost is forgotten.
    pub(super) fn take_layout(&mut self, layout: &wire::Layout) {
        self.set_layout(Layout::from_wire(self.group, Some(layout)));
    }

    /// As a record or the row has it, whichever this node hears of first.
    pub(super) fn set_layout(&mut self, layout: Layout) {
        if self.layout.as_ref().is_none_or(|known| known.version() < layout.version()) {
            self.layout = Some(layout);
            self.keep_what_is_here();
            self.slow_down();
        }
    }

    fn keep_what_is_here(&mut self) {
        let here = self.slots_here();
        if let Some(members) = self.owner.as_mut().map(|owner| owner.members_mut())
            && members.keep(&here)
        {
            // What is on its way was for another layout, in part.
            self.loading = None;
        }
    }

    /// While slots move, members may be held back.
    pub(super) fn slow_down(&mut self) {
        let is_moving = self.layout.as_ref().is_some_and(|layout| layout.to().is_some());
        if let Some(owner) = &mut self.owner {
            let percent = if is_moving { self.limits.plan_rate_percent } else { 100 };
            owner.set_limits(&self.limits, percent);
        }
    }

    /// What waits to be judged again is turned away.
    pub(super) fn let_go(&mut self, why: &Refusal) {
        for (publish, _) in std::mem::take(&mut self.parked.0) {
            self.turn_away(publish, why.clone());
        }
    }

    pub(super) fn refuse(&self, publish: Publish, why: Refusal) {
        Input::Publish(publish).refuse(why, self.groups.metrics());
    }
}
