//! Views over groups in a memory store.

use bytes::Bytes;
use shoal_protocol::{DeviceId, Incarnation, SenderId};
use tokio::{sync::mpsc, time::Instant};

use super::*;
use crate::{
    clock::Clock,
    config::GroupLimits,
    group::{Publish, ReceiptTo},
    store::MemoryStore,
};

const NOW_MS: u64 = 1_790_000_000_000;

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

struct Scene {
    views: Views,
    group: GroupId,
}

fn actor(user: &str) -> Actor {
    Actor { user: UserId::new(user).unwrap(), admin: false }
}

fn service_admin() -> Actor {
    Actor { admin: true, ..actor("root") }
}

/// A group of ann, who owns it, and those named. The records: 1 its settings, 2 its members.
async fn scene(settings: wire::Settings, members: &[&str]) -> Scene {
    let store = Arc::new(MemoryStore::new(1));
    let groups = Groups::new(store, Arc::new(Still), Arc::default(), GroupLimits::default(), 1);
    let scene = Scene { views: Views::new(groups, ViewLimits::default()), group: GroupId::named("scene") };
    let members = members.iter().map(ToString::to_string).collect();
    let create = wire::Create { settings: Some(settings), members };
    scene.change("ann", wire::change::Body::Create(create)).await;
    scene
}

fn settings(history_before_join: bool) -> wire::Settings {
    wire::Settings { title: "Scene".into(), history_before_join, ..wire::Settings::default() }
}

impl Scene {
    async fn ask(&self, actor: &Actor, asked: Asked) -> Answer {
        self.views.answer(actor, wire::Request { body: Some(asked) }).await.body.unwrap()
    }

    async fn change(&self, user: &str, body: wire::change::Body) -> u64 {
        let change = wire::Change { group: self.group.to_wire(), body: Some(body) };
        match self.ask(&actor(user), Asked::Change(change)).await {
            Answer::Changed(changed) => changed.seq,
            other => panic!("not changed: {other:?}"),
        }
    }

    /// Ann says what has this many bytes; the messages' numbers begin at 1.
    async fn say(&self, number: u64, bytes: usize) -> u64 {
        let (receipts, mut answered) = mpsc::channel(1);
        let incarnation = Incarnation::issue(NOW_MS, 1);
        let sender = SenderId { user: UserId::new("ann").unwrap(), device: DeviceId(1), incarnation };
        let message = wire::Message { payload: Bytes::from(vec![b'x'; bytes]), ..wire::Message::default() };
        let receipt = receipts.reserve_owned().await.unwrap();
        self.views.groups.publish(Publish {
            group: self.group,
            sender,
            number,
            message,
            receipt: ReceiptTo::Session(receipt),
            arrived: Instant::now(),
        });
        match answered.recv().await.unwrap().outcome.unwrap() {
            wire::receipt::Outcome::Committed(committed) => committed.seq,
            other => panic!("not committed: {other:?}"),
        }
    }

    async fn history(&self, actor: &Actor, from: u64, limit: u32, backwards: bool) -> Vec<u64> {
        let get = wire::GetHistory { group: self.group.to_wire(), from, limit, backwards };
        match self.ask(actor, Asked::History(get)).await {
            Answer::History(history) => history.records.iter().map(|record| record.seq).collect(),
            other => panic!("no history: {other:?}"),
        }
    }

    async fn members(&self, actor: &Actor, after: Option<wire::MemberPosition>, limit: u32) -> wire::Members {
        let get = wire::GetMembers { group: self.group.to_wire(), after, limit };
        match self.ask(actor, Asked::Members(get)).await {
            Answer::Members(members) => members,
            other => panic!("no members: {other:?}"),
        }
    }

    async fn group(&self, actor: &Actor) -> wire::Group {
        match self.ask(actor, Asked::Group(wire::GetGroup { group: self.group.to_wire() })).await {
            Answer::Group(group) => group,
            other => panic!("no group: {other:?}"),
        }
    }

    async fn set_read(&self, actor: &Actor, watermark: u64) -> Answer {
        self.ask(actor, Asked::Read(wire::SetRead { group: self.group.to_wire(), watermark })).await
    }
}

fn code(answer: &Answer) -> Code {
    match answer {
        Answer::Failure(failure) => Code::from_wire(failure.code),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn history_is_read_forwards_and_backwards_in_ascending_order() {
    let scene = scene(settings(true), &["bob"]).await;
    let first = scene.say(1, 10).await;
    for number in 2..=100 {
        scene.say(number, 10).await;
    }
    let (bob, tail) = (actor("bob"), first + 100);
    assert_eq!(scene.history(&bob, first, 3, false).await, [first, first + 1, first + 2]);
    assert_eq!(scene.history(&bob, 0, 2, true).await, [tail - 2, tail - 1]);
    assert_eq!(scene.history(&bob, first + 70, 60, true).await, (first + 10..first + 70).collect::<Vec<_>>());
    assert_eq!(scene.history(&bob, 0, 0, true).await, (1..tail).collect::<Vec<_>>());
    assert_eq!(scene.history(&bob, tail, 5, false).await, [0; 0]);
    assert_eq!(scene.history(&bob, tail + 9, 5, false).await, [0; 0]);
    assert_eq!(scene.history(&bob, 1, 5, true).await, [0; 0]);
}

#[tokio::test]
async fn a_page_backwards_is_cut_at_its_bytes_without_a_hole_before_the_position() {
    let mut scene = scene(settings(true), &["bob"]).await;
    scene.views.limits = ViewLimits { history_bytes_max: 2_500, ..ViewLimits::default() }.into();
    let first = scene.say(1, 1_000).await;
    for number in 2..=40 {
        scene.say(number, 1_000).await;
    }
    let page = scene.history(&actor("bob"), 0, 100, true).await;
    assert_eq!(page, [first + 37, first + 38, first + 39]);
    assert_eq!(scene.history(&actor("bob"), first, 100, false).await, [first, first + 1, first + 2]);
}

#[tokio::test]
async fn a_member_sees_nothing_from_before_their_join_unless_the_group_shows_it() {
    for shows in [false, true] {
        let scene = scene(settings(shows), &[]).await;
        let before = scene.say(1, 10).await;
        let add = wire::Add { users: vec!["bob".into()] };
        let joined = scene.change("ann", wire::change::Body::Add(add)).await;
        let after = scene.say(2, 10).await;
        let bob = actor("bob");
        let first = if shows { 1 } else { joined };
        assert_eq!(scene.history(&bob, 1, 100, false).await, (first..=after).collect::<Vec<_>>());
        assert_eq!(scene.history(&bob, 0, 100, true).await, (first..=after).collect::<Vec<_>>());
        assert_eq!(scene.history(&bob, joined, 100, true).await, (first..joined).collect::<Vec<_>>());
        assert!(scene.history(&actor("ann"), 1, 100, false).await.contains(&before));
        assert!(scene.history(&service_admin(), 1, 100, false).await.contains(&before));
    }
}

#[tokio::test]
async fn strangers_and_those_removed_are_told_nothing() {
    let scene = scene(settings(true), &["bob"]).await;
    let group = scene.group.to_wire();
    let remove = wire::Remove { users: vec!["bob".into()] };
    scene.change("ann", wire::change::Body::Remove(remove)).await;
    for user in ["bob", "eve"] {
        let asked = [
            Asked::History(wire::GetHistory { group: group.clone(), ..wire::GetHistory::default() }),
            Asked::Members(wire::GetMembers { group: group.clone(), ..wire::GetMembers::default() }),
            Asked::Group(wire::GetGroup { group: group.clone() }),
            Asked::Read(wire::SetRead { group: group.clone(), watermark: 1 }),
        ];
        for asked in asked {
            assert_eq!(code(&scene.ask(&actor(user), asked).await), Code::NotMember);
        }
    }
    let nowhere = wire::GetGroup { group: GroupId::named("nowhere").to_wire() };
    assert_eq!(code(&scene.ask(&actor("ann"), Asked::Group(nowhere)).await), Code::UnknownGroup);
}

#[tokio::test]
async fn members_come_by_page_each_exactly_once_while_others_come_and_go() {
    let names: Vec<String> = (0..50).map(|number| format!("user-{number}")).collect();
    let scene = scene(settings(true), &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = scene.members(&actor("ann"), after, 7).await;
        assert!(page.members.len() <= 7);
        seen.extend(page.members.into_iter().map(|member| member.user));
        let add = wire::Add { users: vec![format!("late-{}", seen.len())] };
        scene.change("ann", wire::change::Body::Add(add)).await;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let lasting: Vec<&String> = seen.iter().filter(|user| user.starts_with("user-")).collect();
    let mut unique = lasting.clone();
    unique.sort();
    unique.dedup();
    assert_eq!((lasting.len(), unique.len()), (50, 50));
}

#[tokio::test]
async fn the_banned_are_shown_to_those_who_may_lift_it() {
    let scene = scene(settings(true), &["bob", "carol"]).await;
    let ban = wire::Ban { user: "bob".into(), banned: true };
    scene.change("ann", wire::change::Body::Ban(ban)).await;
    for (who, expected) in [("carol", false), ("ann", true)] {
        let members = scene.members(&actor(who), None, 0).await.members;
        let banned = members.iter().find(|member| member.user == "bob");
        assert_eq!(banned.is_some_and(|member| member.banned), expected, "{who}");
    }
}

#[tokio::test]
async fn my_groups_come_by_page_with_what_is_unread() {
    let mut scene = scene(settings(true), &["bob"]).await;
    let last = scene.say(1, 10).await;
    for name in ["a", "b", "c"] {
        let there = Scene { views: scene.views.clone(), group: GroupId::named(name) };
        let create = wire::Create { settings: Some(settings(true)), members: Vec::new() };
        there.change("bob", wire::change::Body::Create(create)).await;
    }
    scene.views.limits = ViewLimits { groups_max: 3, ..ViewLimits::default() }.into();
    let bob = actor("bob");
    let (mut seen, mut after) = (Vec::new(), Bytes::new());
    loop {
        let get = wire::GetGroups { after, ..wire::GetGroups::default() };
        let Answer::Groups(page) = scene.ask(&bob, Asked::Groups(get)).await else { panic!("no groups") };
        assert!(page.groups.len() <= 3);
        seen.extend(page.groups);
        if page.next.is_empty() {
            break;
        }
        after = page.next;
    }
    assert_eq!(seen.len(), 4);
    let one = seen.iter().find(|group| group.group == scene.group.to_wire()).unwrap();
    let me = one.me.as_ref().unwrap();
    assert_eq!((one.members, one.tail, me.user.as_str()), (2, last + 1, "bob"));
    assert_eq!((one.read, one.unread), (me.joined_seq, last + 1 - me.joined_seq));
    assert_eq!(one.settings.as_ref().unwrap().title, "Scene");
    let alone = scene.group(&bob).await;
    assert_eq!(alone.features, Some(wire::Features::default()), "which a list leaves out");
    assert_eq!(*one, wire::Group { features: None, ..alone });

    let of_bob = || Asked::Groups(wire::GetGroups { user: "bob".into(), ..wire::GetGroups::default() });
    assert_eq!(code(&scene.ask(&actor("ann"), of_bob()).await), Code::NotAllowed);
    let Answer::Groups(page) = scene.ask(&service_admin(), of_bob()).await else { panic!("no groups") };
    assert!(page.groups.iter().all(|group| group.me.as_ref().unwrap().user == "bob"));
}

#[tokio::test]
async fn a_read_position_rises_and_never_falls_and_other_devices_are_told_once() {
    let scene = scene(settings(true), &["bob"]).await;
    let bob = actor("bob");
    let last = scene.say(1, 10).await;
    assert_eq!(scene.set_read(&bob, last + 1).await, Answer::Done(wire::Done {}));
    assert_eq!(scene.set_read(&bob, last).await, Answer::Done(wire::Done {}));
    let group = scene.group(&bob).await;
    assert_eq!((group.read, group.unread), (last + 1, 0));
    assert_eq!(code(&scene.set_read(&bob, last + 2).await), Code::WatermarkAhead);
    assert_eq!(code(&scene.set_read(&bob, 0).await), Code::BadRequest);
    assert_eq!(code(&scene.set_read(&service_admin(), 1).await), Code::NotMember);

    let own = Scene { views: scene.views.clone(), group: GroupId::own(&bob.user) };
    let get = wire::GetHistory { group: own.group.to_wire(), ..wire::GetHistory::default() };
    let Answer::History(history) = own.ask(&bob, Asked::History(get)).await else { panic!("no history") };
    let reads: Vec<u64> = history
        .records
        .iter()
        .filter_map(|record| match record.body.as_ref()? {
            wire::record::Body::Notice(notice) => match notice.what.as_ref()? {
                wire::notice::What::Read(read) => Some(read.watermark),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(reads, [last + 1]);
}

#[tokio::test]
async fn a_user_s_own_sequence_is_theirs_alone_and_empty_at_first() {
    let mut scene = scene(settings(true), &[]).await;
    scene.group = GroupId::own(&UserId::new("zoe").unwrap());
    assert_eq!(scene.history(&actor("zoe"), 0, 0, true).await, [0; 0]);
    assert_eq!(scene.group(&actor("zoe")).await.tail, 1);
    let get = wire::GetGroup { group: scene.group.to_wire() };
    assert_ne!(code(&scene.ask(&actor("eve"), Asked::Group(get)).await), Code::None);
}

#[tokio::test]
async fn what_breaks_its_rules_is_a_bad_request() {
    let scene = scene(settings(true), &[]).await;
    let ann = actor("ann");
    let short = Asked::Group(wire::GetGroup { group: Bytes::from_static(b"short") });
    assert_eq!(code(&scene.ask(&ann, short).await), Code::BadRequest);
    let after = Some(wire::MemberPosition { slot: 70_000, user: "bob".into() });
    let group = scene.group.to_wire();
    let beyond = Asked::Members(wire::GetMembers { group, after, limit: 1 });
    assert_eq!(code(&scene.ask(&ann, beyond).await), Code::BadRequest);
    assert_eq!(code(&scene.ask(&ann, Asked::Status(wire::GetStatus {})).await), Code::BadRequest);
    let nothing = scene.views.answer(&ann, wire::Request { body: None }).await;
    assert_eq!(code(&nothing.body.unwrap()), Code::BadRequest);
}
