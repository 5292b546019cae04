//! A feature is given to one sub-group's members, to a tenth, to half, to all, on three nodes: everybody has
//! what they are to have, at once, whoever was there and whoever comes later.

use std::time::Duration;

use futures_util::future::join_all;
use shoal_client::{Client, Code, Delivered, Features, Follow, GroupId, Start, wire};
use shoal_node::config::Limits;
use shoal_protocol::{Slot, share};
use tokio::time::{Instant, timeout};
use wire::{plan_command::Action, set_feature::Slots};

use crate::world::{PATIENCE, World, until, user};

const NAMES: [&str; 3] = ["a", "b", "c"];
const MEMBERS: usize = 24;

/// A member who follows the group, and what they have of its features.
struct Member {
    client: Client,
    follow: Follow,
    features: Features,
}

impl Member {
    async fn follow(client: Client, group: GroupId, start: Start) -> Self {
        let follow = client.follow(group, start).await.unwrap();
        let features = client.features(group).await.unwrap();
        Self { client, follow, features }
    }

    fn slot(&self) -> Slot {
        Slot::of(&self.client.user().unwrap())
    }

    /// Reads on until the record at this place, and says what the member has then.
    async fn composer_at(&mut self, seq: u64) -> Option<&str> {
        while self.follow.watermark().get() <= seq {
            let next = timeout(PATIENCE, self.follow.next()).await.expect("it is told at once");
            if let Some(Ok(Delivered::Record(record))) = next {
                self.features.take(&record);
            }
        }
        self.features.value("composer")
    }
}

struct Hall {
    world: World,
    group: GroupId,
    members: Vec<Member>,
}

impl Hall {
    /// Members on three nodes of a group that is cut into three.
    async fn new() -> Self {
        let mut limits = Limits::default();
        limits.group.plan_observe_ms = 200;
        let world = World::with(&NAMES, limits).await;
        let group = GroupId::named("hall");
        let names: Vec<_> = (0..MEMBERS).map(|at| format!("member-{at}")).collect();
        let users: Vec<_> = names.iter().map(|name| user(name)).collect();
        let owner = world.client(&names[0], "a").await;
        owner.create(group, wire::Settings { open: true, ..Default::default() }, &users[1..]).await.unwrap();
        let command = wire::PlanCommand { action: Action::Start.into(), sub_groups: 3 };
        let body = Some(wire::change::Body::Plan(command));
        world.admin("a").await.change(wire::Change { group: group.to_wire(), body }).await.unwrap();
        until("the group is cut", async || owner.group(group).await.unwrap().sub_groups == 3).await;
        let mut members = vec![Member::follow(owner, group, Start::Join).await];
        for (at, name) in names.iter().enumerate().skip(1) {
            let client = world.client(name, NAMES[at % 3]).await;
            members.push(Member::follow(client, group, Start::Join).await);
        }
        Self { world, group, members }
    }

    /// Sets the composer; the place of the record.
    async fn set(&self, value: Option<&str>, slots: Option<Slots>) -> u64 {
        self.set_named("composer", value, slots).await
    }

    async fn set_named(&self, name: &str, value: Option<&str>, slots: Option<Slots>) -> u64 {
        let feature = wire::SetFeature { name: name.into(), value: value.map(str::to_owned), slots };
        self.members[0].client.set_feature(self.group, feature).await.unwrap().seq
    }

    /// All have `new` who are among these, and nobody else has anything.
    async fn check(&mut self, seq: u64, is_among: impl Fn(Slot) -> bool) {
        for member in &mut self.members {
            let slot = member.slot();
            assert_eq!(member.composer_at(seq).await, is_among(slot).then_some("new"), "{slot:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_given_a_feature_share_by_share_and_know_it_at_once() {
    let mut hall = Hall::new().await;
    let thirds = share::cut(3);
    let in_second = |slot: Slot| thirds[usize::from(slot.number())] == 1;
    let seq = hall.set(Some("new"), Some(Slots::SubGroup(1))).await;
    hall.check(seq, in_second).await;

    let away = hall.members.pop().unwrap();
    let (away_slot, saved) = (away.slot(), away.client.save());
    drop(away);
    for percent in [10, 50] {
        let seq = hall.set(Some("new"), Some(Slots::Percent(percent))).await;
        hall.check(seq, |slot| share::is_among_first(slot, percent)).await;
    }
    let halves = hall.members.iter().filter(|member| share::is_among_first(member.slot(), 50)).count();
    assert!((1..hall.members.len()).contains(&halves), "some have it, and some have not: {halves}");

    for late in ["late-1", "late-2", "late-3", "late-4"] {
        let client = hall.world.client(late, "b").await;
        client.join(hall.group).await.unwrap();
        let member = Member::follow(client, hall.group, Start::Join).await;
        let wanted = share::is_among_first(member.slot(), 50).then_some("new");
        assert_eq!(member.features.value("composer"), wanted, "as all who were there");
        hall.members.push(member);
    }

    // Who was away has what they are to have as soon as they are back, and hears what they missed.
    let name = format!("member-{}", MEMBERS - 1);
    let config = hall.world.config(&name, "c", false).saved(Some(saved));
    let back = Client::connect(config).await.unwrap();
    let back = Member::follow(back, hall.group, Start::Resume).await;
    let wanted = share::is_among_first(away_slot, 50).then_some("new");
    assert_eq!(back.features.value("composer"), wanted);
    assert!(back.follow.watermark().get() <= seq + 1, "nothing of it is left out");
    hall.members.push(back);

    let seq = hall.set(Some("new"), None).await;
    hall.check(seq, |_| true).await;
    let seq = hall.set(None, None).await;
    hall.check(seq, |_| false).await;
}

/// The owners of the three sub-groups are on three nodes, and each goes by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_for_a_share_wherever_its_members_owner_is() {
    let hall = Hall::new().await;
    let seq = hall.set_named("shoal.messages_per_second", Some("1"), Some(Slots::Percent(50))).await;
    for member in &hall.members {
        member.client.publish(hall.group, "hello").await.unwrap();
    }
    until("every owner has folded it", async || {
        let layout = hall.world.admin("a").await.layout(hall.group).await.unwrap();
        layout.sub_groups.iter().all(|it| it.report.is_some_and(|report| report.watermark > seq))
    })
    .await;
    let talk = hall.members.iter().map(async |member| {
        let begun = Instant::now();
        for at in 0..4 {
            member.client.publish(hall.group, at.to_string()).await.expect("too fast is waited out");
        }
        let was_held = begun.elapsed() > Duration::from_millis(2_900);
        assert_eq!(was_held, share::is_among_first(member.slot(), 50), "{:?}", begun.elapsed());
    });
    join_all(talk).await;
    let refused: u64 =
        NAMES.map(|name| hall.world.nodes[name].metrics.publishes_refused.get(Code::TooFast)).iter().sum();
    assert!(refused > 0);
}
