//! Messages, requests and sessions on a node that goes away at the wrong moment.

use std::time::Duration;

use quinn::ConnectionError;
use shoal_client::{Client, Closed, Code, FollowError, Lost, PublishError, RequestError, State, wire};
use tokio::time::{Instant, sleep, timeout};
use wire::{to_client::Body as Told, to_node::Body as Said};

use crate::{
    script::{
        HEARTBEAT, Stage, answer, committed, deliver, follow, group, other_node, patient, refused, watermark,
    },
    world::{NODE, message, state},
};

#[tokio::test(start_paused = true)]
async fn a_receipt_that_is_lost_is_asked_for_and_given_once() {
    let (node, client, peer) = Stage::new().online().await;
    let receipt = client.send(group(), "hello").await.unwrap();
    let sent = peer.publishes().await.next().await;
    peer.close(Code::Internal);
    let peer = node.welcome().await;
    let mut publishes = peer.publishes().await;
    assert_eq!(publishes.next().await, sent, "under the same number");
    publishes.receipt(group(), (sent.0, sent.1), committed(7)).await;
    assert_eq!(patient(receipt).await.unwrap().get(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_while_is_sent_again_in_order() {
    let (_node, client, peer) = Stage::new().online().await;
    for text in ["a", "b"] {
        drop(client.send(group(), text).await.unwrap());
    }
    let mut publishes = peer.publishes().await;
    let (incarnation, ..) = publishes.next().await;
    publishes.next().await;
    publishes.receipt(group(), (incarnation, 1), refused(Code::TooFast, 2000)).await;
    let expected = wire::receipt::Outcome::OutOfOrder(wire::OutOfOrder { expected: 1 });
    publishes.receipt(group(), (incarnation, 2), expected).await;
    publishes.quiet(Duration::from_millis(1900)).await;
    assert_eq!(publishes.next().await, (incarnation, 1, "a".to_owned()));
    assert_eq!(publishes.next().await, (incarnation, 2, "b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_new_incarnation_is_asked_for_before_publishing_where_one_was_no_member() {
    let (_node, client, peer) = Stage::new().online().await;
    let refused_one = client.send(group(), "a").await.unwrap();
    let mut publishes = peer.publishes().await;
    let (incarnation, ..) = publishes.next().await;
    publishes.receipt(group(), (incarnation, 1), refused(Code::NotMember, 0)).await;
    let outcome = patient(refused_one).await;
    assert!(
        matches!(&outcome, Err(PublishError::Refused(why)) if why.code == Code::NotMember),
        "{outcome:?}"
    );

    drop(client.send(group(), "b").await.unwrap());
    let (request, mut stream) = peer.request().await;
    assert!(matches!(request, wire::request::Body::Incarnation(_)));
    let issued = wire::Incarnation { incarnation: 77 };
    answer(&mut stream, wire::response::Body::Incarnation(issued)).await;
    assert_eq!(publishes.next().await, (77, 1, "b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_is_left_before_the_idle_timeout() {
    let (node, client, mut peer) = Stage::new().online().await;
    assert!(matches!(peer.said_or_beat().await, Some(Said::Heartbeat(_))));
    let began = Instant::now();
    let lost = state(&client, |state| matches!(state, State::Reconnecting { .. })).await;
    assert!(matches!(lost, State::Reconnecting { why: Lost::Silent, .. }), "{lost:?}");
    assert!(began.elapsed() < HEARTBEAT * 2 + Duration::from_secs(1), "{:?}", began.elapsed());
    let _peer = node.welcome().await;
    state(&client, State::is_online).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_answer_makes_the_client_look_whether_the_node_is_there() {
    let (_node, client, _peer) = Stage::new().online().await;
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    drop(client.send(group(), "hello?").await.unwrap());
    state(&client, |state| matches!(state, State::Reconnecting { .. })).await;
    assert!(began.elapsed() < HEARTBEAT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_is_left_for_another_without_a_break() {
    let stage = Stage::new();
    let (_first, client, mut peer) = stage.online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    deliver(&mut peer.delivery(group(), 1).await, &[1]).await;
    message(&mut heard).await;
    let mut states = client.state();
    states.mark_unchanged();

    let second = stage.node(other_node());
    let nodes = vec![NODE.to_string(), other_node().to_string()];
    peer.tell(Told::Drain(wire::Drain { nodes, grace_ms: 10_000, may_stay: false })).await;
    let mut moved = second.accept().await;
    let asked: Vec<_> = moved.hello.follows.iter().map(|follow| follow.from).collect();
    assert_eq!(asked, [Some(watermark(2))]);
    assert!(peer.connection.close_reason().is_none(), "the first is left after the second took over");
    // The first node sees the device on another, and closes; that is no reason to stop.
    peer.close(Code::SessionReplaced);
    sleep(Duration::from_secs(1)).await;
    moved.welcome(&[]).await;
    moved.followed(group(), 2).await;
    deliver(&mut moved.delivery(group(), 2).await, &[2]).await;
    assert_eq!(message(&mut heard).await.1, "2");
    assert_eq!(*states.borrow_and_update(), State::Online { node: other_node().to_string() });
}

/// The node that offers it is as good as before.
#[tokio::test(start_paused = true)]
async fn an_offer_is_tried_once_and_who_is_taken_nowhere_stays() {
    let stage = Stage::new();
    let (_first, client, mut peer) = stage.online().await;
    let mut states = client.state();
    let second = stage.node(other_node());
    let offer = || {
        let nodes = vec![NODE.to_string(), other_node().to_string()];
        Told::Drain(wire::Drain { nodes, grace_ms: 0, may_stay: true })
    };
    peer.tell(offer()).await;
    second.accept().await.close(Code::Busy);
    assert!(timeout(Duration::from_secs(3), second.accept()).await.is_err(), "it is asked once");
    let here = State::Online { node: NODE.to_string() };
    assert_eq!(*states.borrow_and_update(), here, "it is online all the while");

    peer.tell(offer()).await;
    let _moved = second.welcome().await;
    state(&client, |state| *state == State::Online { node: other_node().to_string() }).await;
    assert_eq!(client.stats().moves, 1);
}

#[tokio::test(start_paused = true)]
async fn a_region_is_stated_in_each_hello_and_none_by_default() {
    let stage = Stage::new();
    let node = stage.node(NODE);
    let _client = Client::start(stage.config(&[NODE]).region("south")).unwrap();
    let peer = node.welcome().await;
    assert_eq!(peer.hello.region, "south");
    peer.close(Code::Internal);
    assert_eq!(node.welcome().await.hello.region, "south");

    let (_node, _client, peer) = Stage::new().online().await;
    assert_eq!(peer.hello.region, "");
}

#[tokio::test(start_paused = true)]
async fn another_node_is_tried_when_one_is_gone_or_full() {
    let stage = Stage::new();
    let (gone, full, good) = (NODE, other_node(), "10.0.0.3:4433".parse().unwrap());
    let (full_node, good_node) = (stage.node(full), stage.node(good));
    let client = Client::start(stage.config(&[gone, full, good])).unwrap();
    let refuse = async {
        loop {
            full_node.accept().await.close(Code::Busy);
        }
    };
    let peer = tokio::select! {
        peer = good_node.welcome() => peer,
        () = refuse => unreachable!(),
    };
    assert_eq!(state(&client, State::is_online).await, State::Online { node: good.to_string() });
    drop(peer);
}

/// Whichever is tried first, no more than two wait in vain before it.
#[tokio::test(start_paused = true)]
async fn a_node_is_tried_beside_one_that_does_not_answer() {
    for seed in 0..6 {
        let stage = Stage::new();
        let good = other_node();
        let node = stage.node(good);
        let nobody = ["10.0.0.8:4433", "10.0.0.9:4433"].map(|nobody| nobody.parse().unwrap());
        let began = Instant::now();
        let client = Client::start(stage.config(&[nobody[0], good, nobody[1]]).seed(seed)).unwrap();
        let _peer = node.welcome().await;
        assert_eq!(state(&client, State::is_online).await, State::Online { node: good.to_string() });
        assert!(began.elapsed() < Duration::from_secs(2), "seed {seed}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_from_a_node_ends_the_connection_with_a_code_and_not_the_client() {
    let garbage: [&[u8]; 3] = [&[0xff; 64], &[3, 0x0a, 0xff, 0xff], &[2, 0x12, 0x05]];
    let (node, client, mut peer) = Stage::new().online().await;
    for bytes in garbage {
        peer.tell_bytes(bytes).await;
        let _ = peer.tell_bytes(&[0; 8]).await;
        let error = patient(peer.connection.closed()).await;
        let ConnectionError::ApplicationClosed(close) = &error else { panic!("{error:?}") };
        let code = u32::try_from(close.error_code.into_inner()).map(Code::from_wire).unwrap();
        assert!(matches!(code, Code::BadFrame | Code::FrameTooLarge), "{code}");
        peer = node.welcome().await;
    }
    state(&client, State::is_online).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_done_is_not_asked_for_again() {
    let (node, client, peer) = Stage::new().online().await;
    let change = async {
        let script = async {
            peer.request().await;
            peer.close(Code::Internal);
            node.welcome().await
        };
        tokio::join!(client.leave(group()), script)
    };
    let (left, peer) = change.await;
    assert!(matches!(left, Err(RequestError::Unanswered(_))), "{left:?}");

    let script = async {
        peer.request().await;
        peer.close(Code::Internal);
        let peer = node.welcome().await;
        let (request, mut stream) = peer.request().await;
        assert!(matches!(request, wire::request::Body::Change(_)));
        answer(&mut stream, wire::response::Body::Changed(wire::Changed { seq: 4, changed: 1 })).await;
        peer
    };
    let (joined, _peer) = tokio::join!(client.join(group()), script);
    assert_eq!(joined.unwrap().seq, 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_for_now_is_asked_again_and_one_without_an_answer_ends() {
    let (_node, client, peer) = Stage::new().online().await;
    let script = async {
        let (_, mut stream) = peer.request().await;
        let busy = wire::Failure { code: Code::Busy as u32, reason: String::new(), retry_after_ms: 500 };
        answer(&mut stream, wire::response::Body::Failure(busy)).await;
        let (_, mut stream) = peer.request().await;
        answer(&mut stream, wire::response::Body::Changed(wire::Changed { seq: 4, changed: 1 })).await;
    };
    let (left, ()) = tokio::join!(client.leave(group()), script);
    left.unwrap();
    assert_eq!(client.group(group()).await, Err(RequestError::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn closing_says_goodbye_and_ends_whatever_waits() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let receipt = client.send(group(), "never answered").await.unwrap();
    deliver(&mut peer.delivery(group(), 1).await, &[1]).await;
    sleep(Duration::from_millis(100)).await;
    let goodbye = async {
        loop {
            match peer.said_or_beat().await {
                Some(Said::Goodbye(_)) => return,
                Some(Said::Heartbeat(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(client.close(), goodbye);
    assert_eq!(*client.state().borrow(), State::Closed { why: Closed::ByApp });
    assert_eq!(receipt.await, Err(PublishError::Closed));
    assert_eq!(message(&mut heard).await.1, "1", "what had come is still the app's");
    assert_eq!(heard.next().await, Some(Err(FollowError::Closed)));
    assert_eq!(client.join(group()).await, Err(RequestError::Closed));
    assert_eq!(client.save().queued(), 1);
}
