//! Members of a group are moved from owner to owner, on three nodes, while they talk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use shoal_client::{Client, Code, GroupId, RequestError, Start, wire};
use shoal_node::config::Limits;
use tokio::{task::JoinHandle, time::timeout};
use wire::{change::Body, plan_command::Action};

use crate::world::{PATIENCE, World, hear, until, user};

const NAMES: [&str; 3] = ["a", "b", "c"];
const MEMBERS: usize = 24;

/// A group whose members talk, from all three nodes, until they are told to stop.
struct Talk {
    world: World,
    group: GroupId,
    admin: Client,
    talkers: Vec<Client>,
    is_on: Arc<AtomicBool>,
    talking: Vec<JoinHandle<usize>>,
}

impl Talk {
    async fn new(observe: Duration) -> Self {
        let mut limits = Limits::default();
        limits.group.plan_observe_ms = observe.as_millis() as u64;
        let world = World::with(&NAMES, limits).await;
        let (group, admin) = (GroupId::named("moved"), world.admin("a").await);
        let members: Vec<_> = (0..MEMBERS).map(|at| format!("member-{at}")).collect();
        let mut talkers = Vec::new();
        for (at, member) in members.iter().enumerate() {
            talkers.push(world.client(member, NAMES[at % 3]).await);
        }
        let users: Vec<_> = members.iter().map(|name| user(name)).collect();
        talkers[0].create(group, wire::Settings::default(), &users[1..]).await.unwrap();
        Self { world, group, admin, talkers, is_on: Arc::new(AtomicBool::new(true)), talking: Vec::new() }
    }

    fn begin(&mut self) {
        for talker in &self.talkers {
            let (talker, group, is_on) = (talker.clone(), self.group, Arc::clone(&self.is_on));
            self.talking.push(tokio::spawn(async move {
                let mut said = 0;
                while is_on.load(Relaxed) {
                    talker.publish(group, said.to_string()).await.unwrap();
                    said += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                said
            }));
        }
    }

    async fn end(&mut self) -> usize {
        self.is_on.store(false, Relaxed);
        let mut said = 0;
        for talking in self.talking.drain(..) {
            said += timeout(PATIENCE, talking).await.unwrap().unwrap();
        }
        said
    }

    async fn order(&self, action: Action, sub_groups: u32) -> Result<(), RequestError> {
        let command = wire::PlanCommand { action: action.into(), sub_groups };
        let change = wire::Change { group: self.group.to_wire(), body: Some(Body::Plan(command)) };
        self.admin.change(change).await.map(drop)
    }

    async fn layout(&self) -> wire::GroupLayout {
        self.admin.layout(self.group).await.unwrap()
    }

    /// Waits until a plan has got so far; none: until it has ended.
    async fn at(&self, percent: Option<u32>) {
        let is_there = async || {
            let layout = self.layout().await.layout.unwrap_or_default();
            layout.plan.map(|plan| plan.percent) == percent && layout.version > 0
        };
        until(&format!("the plan is at {percent:?}"), is_there).await;
    }

    fn judged(&self) -> [u64; 3] {
        NAMES.map(|name| self.world.nodes[name].metrics.judged.get())
    }

    /// Everybody on whatever node hears the same, and each member's own in their order.
    async fn check(&self, said: usize) {
        let mut heard = Vec::new();
        for talker in &self.talkers[..3] {
            let mut follow = talker.follow(self.group, Start::Join).await.unwrap();
            let mut all = Vec::new();
            for _ in 0..said {
                all.push(hear(&mut follow).await);
            }
            heard.push(all);
        }
        assert!(heard.iter().all(|all| *all == heard[0]), "one order for all");
        assert!(heard[0].is_sorted_by_key(|(seq, _)| *seq));
        for name in NAMES {
            let refused = &self.world.nodes[name].metrics.publishes_refused;
            assert_eq!(refused.get(Code::Busy), 0, "nobody is asked to come again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_move_to_owners_on_other_nodes_and_nobody_notices() {
    let mut talk = Talk::new(Duration::from_millis(400)).await;
    talk.begin();
    talk.order(Action::Start, 6).await.unwrap();
    let mut shares = Vec::new();
    for percent in [Some(10), Some(30), Some(100), None] {
        talk.at(percent).await;
        let layout = talk.layout().await;
        assert_eq!(layout.sub_groups.iter().map(|sub_group| sub_group.slots).sum::<u32>(), 16_384);
        shares.push(layout.sub_groups[0].slots);
    }
    assert!(shares.is_sorted_by(|before, after| before >= after), "{shares:?}: they leave the first");
    assert_eq!(shares[3], 16_384_u32.div_ceil(6));
    let before = talk.judged();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let judged = talk.judged();
    assert!((0..3).all(|at| judged[at] > before[at]), "by all three: {before:?}, {judged:?}");
    let said = talk.end().await;
    talk.check(said).await;

    let layout = talk.layout().await;
    let reports: Vec<_> = layout.sub_groups.iter().map(|it| it.report.expect("it answers")).collect();
    assert!(reports.iter().all(|report| report.ready && report.watermark == layout.tail), "{reports:?}");
    assert_eq!(reports.iter().map(|report| report.members).sum::<u64>(), MEMBERS as u64);
    assert!(layout.layout.unwrap().last.unwrap().committed);
    let loaded: u64 = NAMES.map(|name| talk.world.nodes[name].metrics.members_loaded.get()).iter().sum();
    assert!(loaded < 3 * MEMBERS as u64, "each owner fetches its own: {loaded}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_rolled_back_brings_everybody_back() {
    let mut talk = Talk::new(Duration::from_millis(400)).await;
    talk.begin();
    talk.order(Action::Start, 6).await.unwrap();
    talk.at(Some(30)).await;
    talk.order(Action::Pause, 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let plans = talk.admin.plans(None, 0).await.unwrap().groups;
    assert_eq!(plans.len(), 1);
    assert!(plans[0].layout.as_ref().unwrap().plan.as_ref().unwrap().paused);
    talk.order(Action::RollBack, 0).await.unwrap();
    talk.at(None).await;
    // What was on its way by the old layout is judged by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (home, before) = (talk.world.home(talk.group), talk.judged());
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (at, name) in NAMES.into_iter().enumerate() {
        assert_eq!(talk.judged()[at] > before[at], name == home, "{name} judges, the home is {home}");
    }
    let said = talk.end().await;
    talk.check(said).await;
    assert!(talk.admin.plans(None, 0).await.unwrap().groups.is_empty());
}

/// The home moves to another node at each step: the plan goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_goes_on_wherever_its_home_goes() {
    let mut talk = Talk::new(Duration::from_millis(200)).await;
    talk.begin();
    talk.order(Action::Start, 4).await.unwrap();
    for (percent, home) in [(0, "b"), (10, "c"), (30, "a"), (100, "b")] {
        talk.at(Some(percent)).await;
        talk.world.place(&[home]).await;
    }
    talk.at(None).await;
    assert!(talk.layout().await.layout.unwrap().last.unwrap().committed);
    let said = talk.end().await;
    talk.check(said).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_see_and_change_how_a_group_is_cut() {
    let talk = Talk::new(Duration::from_millis(200)).await;
    let code = |answer: RequestError| match answer {
        RequestError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    };
    let owner = &talk.talkers[0];
    assert_eq!(code(owner.layout(talk.group).await.unwrap_err()), Code::NotAllowed);
    assert_eq!(code(owner.plans(None, 0).await.unwrap_err()), Code::NotAllowed);
    let command = wire::PlanCommand { action: Action::Start.into(), sub_groups: 3 };
    let change = wire::Change { group: talk.group.to_wire(), body: Some(Body::Plan(command)) };
    assert_eq!(code(owner.change(change).await.unwrap_err()), Code::NotAllowed);
    assert_eq!(code(talk.admin.layout(GroupId::named("none")).await.unwrap_err()), Code::UnknownGroup);
}
