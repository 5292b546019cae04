//! Three nodes of three roles are one service.

use shoal_client::{GroupId, Start, wire};
use shoal_node::coordination::{Coordination, PARTITIONS, Roles};
use tokio::time::timeout;

use crate::world::{PATIENCE, World, hear, user};

const NONE: Roles = Roles { access: false, group: false, coordination: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_is_another_nodes() {
    let world = World::led(&[
        ("access", Roles { access: true, ..NONE }),
        ("coordination", Roles { coordination: true, ..NONE }),
        ("group", Roles { group: true, ..NONE }),
    ])
    .await;
    assert_eq!(world.coordination.leader().borrow().clone().unwrap().node.0, "coordination");
    assert_eq!(world.held("group"), usize::from(PARTITIONS));
    let listening =
        world.nodes.iter().filter(|(_, member)| !member.node.local_addresses().unwrap().is_empty());
    assert!(listening.map(|(name, _)| *name).eq(["access"]), "clients are served where the role is");

    let group = GroupId::named("three");
    let (ann, bob) = (world.client("ann", "access").await, world.client("bob", "access").await);
    ann.create(group, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let mut bobs = bob.follow(group, Start::Join).await.unwrap();
    for number in 0..20 {
        timeout(PATIENCE, ann.publish(group, number.to_string())).await.unwrap().unwrap();
        assert_eq!(hear(&mut bobs).await.1, number.to_string());
    }
    let committed = |name: &str| world.nodes[name].metrics.committed.get();
    assert!(committed("group") > 20 && committed("access") + committed("coordination") == 0);
    assert!(world.nodes["access"].metrics.received.get() >= 20, "it follows");
}
