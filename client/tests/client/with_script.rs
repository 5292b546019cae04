//! Clients of a node that does wrong, or goes away at the wrong moment.

use std::{net::SocketAddr, time::Duration};

use quinn::ConnectionError;
use shoal_client::{
    Client, Closed, Code, Follow, FollowError, GroupId, Lost, PublishError, RequestError, Seq, Start, State,
    wire,
};
use tokio::time::{Instant, sleep};
use wire::{to_client::Body as Told, to_node::Body as Said};

use crate::{
    script::{HEARTBEAT, Peer, Stage, answer, committed, deliver, patient, refused},
    world::{NODE, message, state, texts},
};

fn group() -> GroupId {
    GroupId::named("test")
}

fn other_node() -> SocketAddr {
    "10.0.0.2:4433".parse().unwrap()
}

fn watermark(number: u64) -> wire::follow::From {
    wire::follow::From::Watermark(number)
}

/// A follow from a watermark that the node has taken.
async fn follow(client: &Client, peer: &mut Peer, from: u64) -> Follow {
    let start = Start::Watermark(Seq::new(from).unwrap());
    let node = async {
        assert_eq!(peer.asked().await, watermark(from));
        peer.followed(group(), from).await;
    };
    let (follow, ()) = tokio::join!(client.follow(group(), start), node);
    follow.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_refilled_before_the_app_could_see_it() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let mut stream = peer.delivery(group(), 1).await;
    deliver(&mut stream, &[1, 2, 4, 5]).await;
    assert_eq!(texts(&mut heard, 2).await, ["1", "2"]);
    assert_eq!(peer.asked().await, watermark(3));
    peer.followed(group(), 3).await;
    deliver(&mut peer.delivery(group(), 3).await, &[3, 4, 5]).await;
    assert_eq!(texts(&mut heard, 3).await, ["3", "4", "5"]);
    let stats = client.stats();
    assert_eq!((stats.gaps_refilled, stats.duplicates_dropped, stats.records), (1, 0, 5));
}

#[tokio::test(start_paused = true)]
async fn what_comes_twice_is_dropped_and_counted() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 2).await;
    deliver(&mut peer.delivery(group(), 1).await, &[1, 2, 2, 3, 1]).await;
    assert_eq!(texts(&mut heard, 2).await, ["2", "3"]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(client.stats().duplicates_dropped, 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_overtakes_the_one_before_waits_for_it() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let mut first = peer.delivery(group(), 1).await;
    deliver(&mut peer.delivery(group(), 3).await, &[3, 4]).await;
    sleep(Duration::from_secs(2)).await;
    deliver(&mut first, &[1, 2]).await;
    assert_eq!(texts(&mut heard, 4).await, ["1", "2", "3", "4"]);
    assert_eq!(client.stats().gaps_refilled, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_beginning_never_comes_is_a_gap() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    deliver(&mut peer.delivery(group(), 3).await, &[3]).await;
    assert_eq!(peer.asked().await, watermark(1));
    peer.followed(group(), 1).await;
    deliver(&mut peer.delivery(group(), 1).await, &[1, 2, 3]).await;
    assert_eq!(texts(&mut heard, 3).await, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_come_before_the_answer_wait_for_it() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let node = async {
        assert_eq!(peer.asked().await, wire::follow::From::Join(true));
        deliver(&mut peer.delivery(group(), 40).await, &[40, 41]).await;
        sleep(Duration::from_secs(3)).await;
        peer.followed(group(), 40).await;
        peer
    };
    let (heard, peer) = tokio::join!(client.follow(group(), Start::Join), node);
    assert_eq!(texts(&mut heard.unwrap(), 2).await, ["40", "41"]);
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_reset_is_asked_for_again() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let mut stream = peer.delivery(group(), 1).await;
    deliver(&mut stream, &[1]).await;
    assert_eq!(texts(&mut heard, 1).await, ["1"]);
    stream.reset(0_u32.into()).unwrap();
    assert_eq!(peer.asked().await, watermark(2));
}

#[tokio::test(start_paused = true)]
async fn the_last_records_are_read_though_the_end_is_told_before_them() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let mut stream = peer.delivery(group(), 1).await;
    peer.follow_ended(group(), Code::NotMember).await;
    sleep(Duration::from_secs(1)).await;
    deliver(&mut stream, &[1, 2]).await;
    stream.finish().unwrap();
    assert_eq!(texts(&mut heard, 2).await, ["1", "2"]);
    let ended = patient(heard.next()).await;
    assert!(
        matches!(&ended, Some(Err(FollowError::Refused(why))) if why.code == Code::NotMember),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_follow_that_is_refused_for_now_is_asked_for_again() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let node = async {
        peer.asked().await;
        peer.follow_ended(group(), Code::Busy).await;
        assert_eq!(peer.asked().await, wire::follow::From::Tail(true));
        peer.followed(group(), 9).await;
        peer
    };
    let (heard, _peer) = tokio::join!(client.follow(group(), Start::Tail), node);
    assert_eq!(heard.unwrap().watermark().get(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_a_follow_that_was_dropped_is_not_taken_for_the_next_ones() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let first = client.follow(group(), Start::Watermark(Seq::new(100).unwrap()));
    let dropped = tokio::time::timeout(Duration::from_millis(100), first).await;
    assert!(dropped.is_err());
    let node = async {
        assert_eq!(peer.asked().await, watermark(100));
        peer.followed(group(), 100).await;
        assert!(matches!(peer.said().await, Said::Unfollow(_)));
        assert_eq!(peer.asked().await, watermark(5));
        peer.followed(group(), 5).await;
        deliver(&mut peer.delivery(group(), 5).await, &[5]).await;
        peer
    };
    let second = client.follow(group(), Start::Watermark(Seq::new(5).unwrap()));
    let (heard, _peer) = tokio::join!(second, node);
    assert_eq!(texts(&mut heard.unwrap(), 1).await, ["5"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_follow_is_told_to_the_node() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let heard = follow(&client, &mut peer, 1).await;
    drop(heard);
    assert!(matches!(peer.said().await, Said::Unfollow(_)));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_tell_what_the_app_has_and_not_what_has_come() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    deliver(&mut peer.delivery(group(), 1).await, &[1, 2, 3]).await;
    message(&mut heard).await;
    let beat = peer.said_or_beat().await;
    let Some(Said::Heartbeat(heartbeat)) = beat else { panic!("{beat:?}") };
    assert_eq!(heartbeat.watermarks.iter().map(|told| told.watermark).collect::<Vec<_>>(), [2]);
}

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
    peer.tell(Told::Drain(wire::Drain { nodes, grace_ms: 10_000 })).await;
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

#[tokio::test(start_paused = true)]
async fn a_group_that_is_handed_off_takes_the_session_along() {
    let stage = Stage::new();
    let (_first, client, mut peer) = stage.online().await;
    let mut heard = follow(&client, &mut peer, 1).await;
    let second = stage.node(other_node());
    let mut stream = peer.delivery(group(), 1).await;
    deliver(&mut stream, &[1, 2]).await;
    let handoff = wire::Handoff { node: other_node().to_string(), watermark: 3 };
    let body = Some(wire::delivery::Body::Handoff(handoff));
    stream.write_all(&shoal_protocol::frame::encode(&wire::Delivery { body })).await.unwrap();
    let mut moved = second.welcome().await;
    assert_eq!(moved.hello.follows[0].from, Some(watermark(3)));
    moved.followed(group(), 3).await;
    deliver(&mut moved.delivery(group(), 3).await, &[3]).await;
    assert_eq!(texts(&mut heard, 3).await, ["1", "2", "3"]);
    drop(client);
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
async fn a_record_at_no_place_ends_the_connection() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let _heard = follow(&client, &mut peer, 1).await;
    deliver(&mut peer.delivery(group(), 1).await, &[0]).await;
    assert!(matches!(patient(peer.connection.closed()).await, ConnectionError::ApplicationClosed(_)));
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
