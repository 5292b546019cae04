//! A node that is killed and comes back: how soon its clients know that their sessions are gone, and have
//! others. Nobody waits for the idle timeout, which is half a minute.

use std::{sync::Arc, time::Duration};

use shoal_client::{Client, Follow, GroupId, Start, State, wire};
use shoal_tests::process::Machine;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::chat::{client, user};

/// Longer than anything here takes on a busy machine; as long as the idle timeout, which nobody waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the node asks for by default.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A machine that does other things as well is so late at times.
const LATE: Duration = Duration::from_secs(1);

const SECOND: Duration = Duration::from_secs(1);

/// When a client knew that its session was gone, and when it had another.
struct Back {
    knew: Instant,
    back: Instant,
}

/// Watches a client until it has lost its session and has another.
fn watch(client: &Client) -> JoinHandle<Back> {
    let mut state = client.state();
    tokio::spawn(async move {
        let is_online = |state: &State| matches!(state, State::Online { .. });
        state.wait_for(|state| !is_online(state)).await.expect("the client lives");
        let knew = Instant::now();
        state.wait_for(is_online).await.expect("the client lives");
        Back { knew, back: Instant::now() }
    })
}

/// Says something each tenth of a second, until told to stop.
fn chatter(client: Client, group: GroupId, enough: Arc<Notify>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let talk = async {
            loop {
                client.publish(group, "still here").await.expect("it is sent sooner or later");
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = talk => {}
            () = enough.notified() => {}
        }
    })
}

/// Waits for something to be said.
async fn hear(follow: &mut Follow) {
    timeout(PATIENCE, follow.next()).await.expect("in time").expect("it goes on").expect("a record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_and_comes_back_is_noticed_at_once() {
    let mut machine = Machine::start(&[]);
    let (ann, bob) = (client(&machine, "ann", 1).await, client(&machine, "bob", 2).await);
    // Two groups, so that bob hears nothing, and says nothing but that he is there.
    let (loud, quiet) = (GroupId::named("loud"), GroupId::named("quiet"));
    ann.create(loud, wire::Settings::default(), &[]).await.unwrap();
    ann.create(quiet, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let mut bobs = bob.follow(quiet, Start::Join).await.unwrap();
    let enough = Arc::new(Notify::new());
    let chatter = chatter(ann.clone(), loud, enough.clone());
    for down in [Duration::ZERO, Duration::from_secs(9)] {
        sleep(SECOND).await;
        let (anns, bobs) = (watch(&ann), watch(&bob));
        machine.kill();
        sleep(down).await;
        machine.up();
        let up = Instant::now();
        let both = timeout(PATIENCE, async { [anns.await.unwrap(), bobs.await.unwrap()] }).await;
        let both = both.expect("nobody waits for the idle timeout");
        for (who, Back { knew, back }, within) in
            [("publishing", &both[0], SECOND), ("idle", &both[1], HEARTBEAT)]
        {
            let (knew, back) = (knew.saturating_duration_since(up), *back - up.max(*knew));
            println!("down for {down:?}; {who}: knew {knew:?} after it was up again, back {back:?} later");
            assert!(knew <= within + LATE, "{who}: {knew:?}");
            assert!(back <= SECOND + LATE, "{who}: {back:?}");
        }
    }
    ann.publish(quiet, "welcome back").await.unwrap();
    hear(&mut bobs).await;
    enough.notify_one();
    chatter.await.unwrap();
}
