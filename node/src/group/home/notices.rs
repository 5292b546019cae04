//! A user's own sequence: notices from the groups they are in, each once.

use shoal_protocol::{Code, GroupId, PUBLISH_WINDOW, Refusal, SenderId, UserId, wire};
use wire::record::Body;

use super::{Effect, Home, senders::Parked, senders::source_of};
use crate::group::sub_group::Now;

impl<R> Home<R> {
    /// A notice for `user`, whose own sequence this is.
    pub(crate) fn handle_notice(&mut self, user: &UserId, notice: wire::Notice, to: R, now: Now) {
        let Ok(group) = GroupId::from_wire(&notice.group) else {
            let refusal = Refusal::new(Code::BadRequest, "a notice names a group");
            return self.effects.push_back(Effect::Noticed(to, Err(refusal)));
        };
        let id = source_of(user.clone(), group);
        let (sender, load) = self.senders.need(&id);
        if sender.is_ready() {
            return self.decide_notice(&id, notice, to, now);
        }
        if sender.parked.len() < PUBLISH_WINDOW {
            sender.parked.push_back(Parked::Notice(notice, to));
        } else {
            let busy = Refusal::new(Code::Busy, "too many notices of one group wait");
            self.effects.push_back(Effect::Noticed(to, Err(busy)));
        }
        if load {
            self.effects.push_back(Effect::LoadSender(id));
        }
    }

    /// What the group has told before is known by its place there; a notice without one may come
    /// twice without harm.
    pub(super) fn decide_notice(&mut self, id: &SenderId, notice: wire::Notice, to: R, now: Now) {
        let told = notice.group_seq;
        let Some(source) = self.senders.get(id) else { return };
        let is_new = told == 0 || told > source.numbers.last();
        if is_new && told != 0 {
            source.jump_to(told);
            let numbers = source.numbers.clone();
            self.gathering.senders.push((id.clone(), numbers));
        }
        if is_new {
            self.gathering.push(None, Body::Notice(notice), now.wall_ms);
        }
        self.gathering.noticed.push(to);
    }
}
