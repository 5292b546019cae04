//! Follows on a node that leaves things out, or says them in the wrong order.

use std::time::Duration;

use quinn::ConnectionError;
use shoal_client::{Code, FollowError, Seq, Start, wire};
use tokio::time::sleep;
use wire::to_node::Body as Said;

use crate::{
    script::{Stage, deliver, follow, group, other_node, patient, watermark},
    world::{message, texts},
};

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
    peer.follow_ended(group(), Code::NotMember, 3).await;
    sleep(Duration::from_secs(1)).await;
    let mut stream = peer.delivery(group(), 1).await;
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
        peer.follow_ended(group(), Code::Busy, 0).await;
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
async fn a_record_at_no_place_ends_the_connection() {
    let (_node, client, mut peer) = Stage::new().online().await;
    let _heard = follow(&client, &mut peer, 1).await;
    deliver(&mut peer.delivery(group(), 1).await, &[0]).await;
    assert!(matches!(patient(peer.connection.closed()).await, ConnectionError::ApplicationClosed(_)));
}
