//! A node that does not answer, and apps that stand still.

use std::time::Duration;

use shoal_client::{Activity, Client, Code, Lost, State, wire};
use tokio::time::{Instant, sleep, timeout};
use wire::{to_client::Body as Told, to_node::Body as Said};

use crate::{
    script::{HEARTBEAT, Peer, Stage, deliver, follow, group, patient},
    world::{NODE, message, state},
};

/// The next heartbeat's token.
async fn beat(peer: &mut Peer) -> u64 {
    match peer.said_or_beat().await {
        Some(Said::Heartbeat(heartbeat)) => heartbeat.token,
        other => panic!("no heartbeat: {other:?}"),
    }
}

async fn answer(peer: &mut Peer, token: u64) {
    peer.tell(Told::HeartbeatAck(wire::HeartbeatAck { token, time_ms: 0 })).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_sees_first_doubt_then_a_reconnect() {
    let (node, client, mut peer) = Stage::new().online().await;
    let began = Instant::now();
    beat(&mut peer).await;
    let doubtful = state(&client, |state| matches!(state, State::Degraded { .. })).await;
    let State::Degraded { node: on, since } = doubtful else { unreachable!() };
    assert_eq!(on, NODE.to_string());
    assert!(since - began < HEARTBEAT + Duration::from_secs(2), "{:?}", since - began);
    state(&client, |state| matches!(state, State::Reconnecting { why: Lost::Silent, .. })).await;
    assert!(began.elapsed() < HEARTBEAT + Duration::from_secs(4), "{:?}", began.elapsed());
    let _second = node.welcome().await;
    state(&client, |state| matches!(state, State::Online { .. })).await;
    assert_eq!((client.stats().reconnects, client.stats().moves), (1, 0), "nobody asked for it");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_is_over_with_the_next_answer() {
    let (node, client, mut peer) = Stage::new().online().await;
    let token = beat(&mut peer).await;
    state(&client, |state| matches!(state, State::Degraded { .. })).await;
    answer(&mut peer, token).await;
    state(&client, |state| matches!(state, State::Online { .. })).await;
    assert!(timeout(HEARTBEAT / 2, node.accept()).await.is_err(), "no other session is opened");
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_that_answers_before_another_goes_on_as_it_was() {
    let (node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let mut stream = peer.delivery(group(), 1).await;
    beat(&mut peer).await;
    state(&client, |state| matches!(state, State::Reconnecting { .. })).await;
    // The next session's hello is not answered; the old node is.
    let hello = node.accept().await;
    let token = beat(&mut peer).await;
    answer(&mut peer, token).await;
    state(&client, |state| matches!(state, State::Online { .. })).await;
    deliver(&mut stream, &[1]).await;
    assert_eq!(message(&mut heard).await.1, "1");
    assert_eq!(client.stats().reconnects, 0);
    drop(hello);
}

/// The node knows of a hello whose welcome never came: so it ends the session before.
#[tokio::test(start_paused = true)]
async fn who_was_replaced_by_themselves_comes_back() {
    let (node, client, mut peer) = Stage::new().online().await;
    beat(&mut peer).await;
    state(&client, |state| matches!(state, State::Reconnecting { .. })).await;
    let unheard = node.accept().await;
    let token = beat(&mut peer).await;
    answer(&mut peer, token).await;
    state(&client, |state| matches!(state, State::Online { .. })).await;
    peer.close(Code::SessionReplaced);
    let _third = node.welcome().await;
    state(&client, |state| matches!(state, State::Online { .. })).await;
    drop(unheard);
}

/// The first hello waits for an answer in vain, and reaches its node after the second.
#[tokio::test(start_paused = true)]
async fn a_hello_that_comes_late_ends_a_session_and_not_the_client() {
    let stage = Stage::new();
    let node = stage.node(NODE);
    let client = Client::start(stage.config(&[NODE])).unwrap();
    let first = node.accept().await;
    let second = node.welcome().await;
    state(&client, State::is_online).await;
    second.close(Code::SessionReplaced);
    let third = node.welcome().await;
    state(&client, State::is_online).await;
    drop(first);
    // There is no other that it could have been.
    third.close(Code::SessionReplaced);
    state(&client, |state| matches!(state, State::Closed { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn another_network_ends_the_wait_for_the_next_attempt() {
    let stage = Stage::new();
    let client = Client::start(stage.config(&[NODE])).unwrap();
    // Nobody is there for so long that waits have become long.
    sleep(Duration::from_secs(60)).await;
    let node = stage.node(NODE);
    let began = Instant::now();
    client.network_changed().unwrap();
    let _peer = node.welcome().await;
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_suspended_app_says_nothing_and_concludes_nothing() {
    let (node, client, mut peer) = Stage::new().online().await;
    client.set_activity(Activity::Suspended);
    assert!(timeout(HEARTBEAT * 2, peer.said_or_beat()).await.is_err());
    assert!(matches!(*client.state().borrow(), State::Online { .. }));
    // Both ends have given the connection up.
    sleep(Duration::from_secs(600)).await;
    assert!(timeout(Duration::from_secs(60), node.accept()).await.is_err());
    let began = Instant::now();
    client.set_activity(Activity::Foreground);
    let _peer = node.welcome().await;
    state(&client, State::is_online).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_app_in_the_background_says_little() {
    let (_node, client, mut peer) = Stage::new().online().await;
    client.set_activity(Activity::Background);
    let token = beat(&mut peer).await;
    answer(&mut peer, token).await;
    let began = Instant::now();
    patient(beat(&mut peer)).await;
    let elapsed = began.elapsed().as_secs();
    assert!((24..=25).contains(&elapsed), "{elapsed}");
}
