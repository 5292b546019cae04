//! Sessions' cursors on their way to the group's tail.

use std::{collections::BTreeMap, sync::Arc};

use shoal_protocol::{Code, GroupId, Refusal, Seq, UserId, wire};

use super::{Waiting, Worker};
use crate::{
    delivery::Tail,
    group::{From, activation::refusal, attach::attach},
};

impl Worker {
    /// Attaches the cursors that wait, with one look at the members for all of them.
    pub(super) async fn settle_follows(&mut self) {
        if self.follows.is_empty() {
            return;
        }
        let follows = std::mem::take(&mut self.follows);
        match self.reached(&follows).await {
            Err(refusal) => follows.into_iter().for_each(|(_, to)| drop(to.send(Err(refusal.clone())))),
            Ok((tail, joined)) => {
                for ((follow, to), joined) in follows.into_iter().zip(joined) {
                    let followed = attach(&tail, follow, joined);
                    if let Err(Ok(followed)) = to.send(followed) {
                        followed.tail.detach(followed.attachment);
                    }
                }
            }
        }
        self.follow_home();
    }

    /// The tail, at what they have seen elsewhere, and where each of them joined.
    async fn reached(&mut self, follows: &[Waiting]) -> Result<(Arc<Tail>, Vec<Option<Seq>>), Refusal> {
        let (tail, joined) = self.joined(follows).await?;
        let wanted = follows.iter().zip(&joined).filter_map(|((follow, _), joined)| {
            let From::Watermark(watermark) = follow.from else { return *joined };
            joined.map(|joined| joined.max(watermark))
        });
        if let Some(wanted) = wanted.max().filter(|wanted| *wanted > tail.tail()) {
            self.look().await?;
            self.check_reached(wanted, &tail).await?;
            // What has come by that look was folded for those who are attached already.
            return self.joined(follows).await;
        }
        Ok((tail, joined))
    }

    /// What is durable and has not come to this node's tail is about to: its home has not heard yet
    /// that it wrote it. Whoever has seen it, or has joined by it, comes again. What the store does not
    /// have either is the alarm of whoever attaches.
    async fn check_reached(&mut self, wanted: Seq, tail: &Tail) -> Result<(), Refusal> {
        if wanted <= tail.tail() {
            return Ok(());
        }
        let row = self.store.group(self.group).await.map_err(refusal)?;
        match row {
            Some(row) if row.tail >= wanted => {
                Err(Refusal::new(Code::Busy, "the node is about to have what you have seen"))
            }
            _ => Ok(()),
        }
    }

    /// Where each of them joined; none for those who are no members.
    async fn joined(&mut self, follows: &[Waiting]) -> Result<(Arc<Tail>, Vec<Option<Seq>>), Refusal> {
        let tail = self.open_tail().await?;
        if !self.group.is_own() && tail.tail() == Seq::FIRST {
            // It may have been made since, at a home elsewhere.
            self.look().await?;
            if tail.tail() == Seq::FIRST {
                return Err(Refusal::new(Code::UnknownGroup, "no such group"));
            }
        }
        let users: Vec<_> = follows.iter().map(|(follow, _)| follow.signal.user()).collect();
        let of_own = |user: &UserId| (GroupId::own(user) == self.group).then_some(Seq::FIRST);
        if self.group.is_own() || users.iter().all(Option::is_none) {
            let joined = users.into_iter().map(|user| user.map_or(Some(Seq::FIRST), of_own)).collect();
            return Ok((tail, joined));
        }
        let members = self.members(users.iter().copied().flatten().cloned().collect()).await?;
        let joined = |user| members.get(user).copied();
        Ok((tail, users.into_iter().map(|user| user.map_or(Some(Seq::FIRST), joined)).collect()))
    }

    /// Where those of them joined who are members.
    async fn members(&mut self, users: Vec<UserId>) -> Result<BTreeMap<UserId, Seq>, Refusal> {
        if let Some(members) = self.owner.as_ref().map(|owner| owner.members()) {
            let joined = |user: &UserId| members.get(user).map(|member| (user.clone(), member.joined));
            // Who is not in it may have joined since, at a home elsewhere.
            if let Some(all) = users.iter().map(joined).collect() {
                return Ok(all);
            }
        }
        let rows = self.store.members(self.group, &users).await.map_err(refusal)?;
        let members = rows.into_iter().flatten().filter(|row| row.role != wire::Role::None);
        Ok(members.map(|row| (row.user, row.joined)).collect())
    }
}
