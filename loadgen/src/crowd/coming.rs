//! The way in: connecting, joining, following.

use std::collections::VecDeque;

use shoal_client::{ConnectError, Follow, FollowError, RequestError, Start, UserId};
use tokio::sync::mpsc;

use super::{Crowd, DUE_MAX, GROUP, Guest, Happened, Talker};
use crate::{
    change::Change,
    member::{Counts, Member},
    plan::Habit,
    sabotage::Saboteur,
    setup::Present,
};

impl Crowd<'_> {
    /// Connects as many as the curve wants, some at a time.
    pub(super) fn invite(&mut self, wanted: u32) {
        let there = self.present.len() as u32 + self.coming();
        let room = self.clients.connecting.saturating_sub(self.connecting);
        for _ in 0..wanted.saturating_sub(there).min(room) {
            self.connect();
        }
    }

    pub(super) fn coming(&self) -> u32 {
        self.connecting + self.lobby.len() as u32 + self.joining
    }

    fn connect(&mut self) {
        let user = self.away.pop_front().unwrap_or_else(|| {
            self.users_known += 1;
            self.users_known - 1
        });
        let member = self.users.len() as u32;
        self.users.push(user);
        self.connecting += 1;
        let (setup, name) = (self.setup, self.setup.user(Self::id(user)));
        self.under_way.push(Box::pin(async move {
            let name = name.expect("the name is short");
            let connected = setup.connect_user(&name, user as usize, Habit::Steady).await;
            let guest = connected.map(|(config, client, network)| Guest {
                member,
                user: name,
                config,
                client,
                network,
            });
            Happened::Connected(member, guest)
        }));
    }

    pub(super) fn connected(&mut self, member: u32, guest: Result<Guest, ConnectError>) {
        self.connecting -= 1;
        match guest {
            Ok(guest) => {
                self.report.connections += 1;
                self.lobby.push(guest);
            }
            Err(error) => {
                self.report.fail(format!("member {member} cannot connect: {error}"));
                self.away.push_back(self.users[member as usize]);
            }
        }
    }

    pub(super) fn join(&mut self, guests: Vec<Guest>, change: Change) {
        let count = guests.len() as u32;
        self.joining += count;
        let asked = self.judge.joining(GROUP, count);
        let group = self.setup.group(GROUP);
        self.under_way.push(Box::pin(async move {
            let seq = change.carry_out(group).await;
            Happened::Joined(guests, asked, seq)
        }));
    }

    /// Those who joined follow the group from the record of their join on.
    pub(super) fn joined(&mut self, guests: Vec<Guest>, asked: u64, seq: Result<Option<u64>, RequestError>) {
        let group = self.setup.group(GROUP);
        for guest in guests {
            match &seq {
                Ok(seq) => {
                    let seq = *seq;
                    self.under_way.push(Box::pin(async move {
                        let follow = guest.client.follow(group, Start::Join).await;
                        Happened::Following(guest, asked, seq, follow)
                    }));
                }
                Err(error) => self.kept_out(&guest, asked, &format!("cannot join: {error}")),
            }
        }
    }

    pub(super) fn following(
        &mut self,
        guest: Guest,
        asked: u64,
        seq: Option<u64>,
        follow: Result<Follow, FollowError>,
    ) {
        match follow {
            Ok(follow) => {
                let Guest { member, user, config, client, network } = guest;
                self.joining -= 1;
                self.turnout.joined += 1;
                // Where the answer was lost, the node says with the follow where the member begins.
                let seq = seq.unwrap_or(follow.watermark().get());
                self.judge.joined(Self::id(member), asked, seq);
                let saboteur = self.sabotage.take().map(Saboteur::new);
                self.seat(member, user, Present { config, client, follow, network }, saboteur);
            }
            Err(error) => self.kept_out(&guest, asked, &format!("cannot follow the group: {error}")),
        }
    }

    fn kept_out(&mut self, guest: &Guest, asked: u64, why: &str) {
        self.joining -= 1;
        self.judge.not_joined(GROUP, asked);
        self.report.fail(format!("member {} {why}", guest.member));
    }

    pub(super) fn seat(&mut self, member: u32, user: UserId, present: Present, saboteur: Option<Saboteur>) {
        let (queue, due) = mpsc::channel(DUE_MAX);
        self.present.push(Talker { member, user, client: present.client.clone(), queue, said: 0 });
        let member = Member {
            id: Self::id(member),
            habit: Habit::Steady,
            group: self.setup.group(GROUP),
            judge: self.judge.clone(),
            payload_bytes: self.clients.payload,
            due,
            interruptions: VecDeque::new(),
            saboteur,
            may_leave: true,
            network: present.network.clone(),
            counts: Counts::default(),
        };
        self.members.spawn(member.run(present, self.stopped.clone()));
    }
}
