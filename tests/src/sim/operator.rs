//! An operator who changes how groups are cut, by hand: begins plans, pauses them, lets them go on, rolls
//! them back; and leaves none paused.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use shoal_client::{Client, Config, RequestError};
use shoal_protocol::{DeviceId, GroupId, UserId, wire};
use tokio::time::sleep;
use wire::plan_command::Action;

use super::{
    app::{shared_groups, transport::SimTransport},
    node::client_addresses,
    reception::Reception,
    scene::Scene,
};

/// The operator's machine on the network.
pub const OPERATOR: &str = "operator";

/// More often the same is ordered once more while a plan goes on.
const ACTIONS: [Action; 7] = [
    Action::Start,
    Action::Start,
    Action::Rebalance,
    Action::Pause,
    Action::Pause,
    Action::Resume,
    Action::RollBack,
];

/// The most sub-groups that are asked for.
const SUB_GROUPS_MAX: u32 = 9;

/// Orders one thing after the other while apps are busy, and then sees to it that every plan goes on.
///
/// # Errors
/// None.
pub async fn run(scene: Arc<Scene>, seed: u64) -> turmoil::Result {
    let operator = Operator { client: client(&scene, seed), scene };
    let mut random = StdRng::seed_from_u64(seed);
    while !operator.scene.stage.is_over() {
        sleep(Duration::from_millis(random.random_range(50..1_500))).await;
        let group = *shared_groups().choose(&mut random).expect("there are groups");
        let action = *ACTIONS.choose(&mut random).expect("there are actions");
        let sub_groups = if action == Action::Start { random.random_range(0..=SUB_GROUPS_MAX) } else { 0 };
        operator.order(group, action, sub_groups).await;
    }
    loop {
        for group in shared_groups() {
            operator.let_go_on(group).await;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

struct Operator {
    client: Client,
    scene: Arc<Scene>,
}

impl Operator {
    async fn order(&self, group: GroupId, action: Action, sub_groups: u32) {
        let command = wire::PlanCommand { action: action.into(), sub_groups };
        let body = Some(wire::change::Body::Plan(command));
        let change = wire::Change { group: group.to_wire(), body };
        let said = match self.client.change(change).await {
            Ok(changed) => format!("at {}", changed.seq),
            Err(RequestError::Refused(why)) => why.reason,
            Err(error) => error.to_string(),
        };
        self.scene.chronicle.note(OPERATOR, format!("{action:?} {sub_groups} of {group}: {said}"));
    }

    async fn let_go_on(&self, group: GroupId) {
        let Ok(told) = self.client.layout(group).await else { return };
        let plan = told.layout.and_then(|layout| layout.plan);
        if plan.is_some_and(|plan| plan.paused) {
            self.order(group, Action::Resume, 0).await;
        }
    }
}

fn client(scene: &Scene, seed: u64) -> Client {
    let user = UserId::new(OPERATOR).expect("a good name");
    let transport = SimTransport::new(&scene.weather, &Reception::new(None), seed).expect("a port is free");
    let config = Config::new(
        client_addresses(scene.plan.nodes),
        scene.keys.client_tls(),
        scene.keys.admin_token(&user),
        DeviceId(1),
    );
    let config = config.seed(seed).transport(Arc::new(transport)).request_timeout(Duration::from_secs(5));
    Client::start(config).expect("a good configuration")
}
