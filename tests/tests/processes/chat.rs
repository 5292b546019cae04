//! Two people talk.

use std::time::Duration;

use shoal_certs::{Claims, KeyFolder};
use shoal_client::{
    Client, Config, Delivered, DeviceId, Follow, GroupId, Seq, Start, UserId, tls_from_ca, wire,
};
use shoal_node::clock::{Clock, SystemClock};
use shoal_tests::process::Machine;
use wire::record::Body;

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) async fn client(machine: &Machine, name: &str, device: u64) -> Client {
    let config = config(machine, name, device, [machine.address().to_string()], |_| {});
    Client::connect(config).await.unwrap()
}

/// A client of the machine's that reaches it at these addresses.
pub(crate) fn config(
    machine: &Machine,
    name: &str,
    device: u64,
    nodes: [String; 1],
    change: impl FnOnce(&mut rustls::ClientConfig),
) -> Config {
    let keys = KeyFolder::open(machine.data()).unwrap();
    let now_ms = SystemClock.now_ms();
    let claims = Claims::new(user(name), now_ms, now_ms + 3_600_000);
    let token = keys.token_signer().unwrap().sign(&claims);
    let mut tls = tls_from_ca(&keys.ca_pem().unwrap()).unwrap();
    change(&mut tls);
    Config::new(nodes, tls, token, DeviceId(device))
}

/// The next message of a follow: who sent it, and what.
async fn hear(follow: &mut Follow) -> (String, String) {
    loop {
        let heard = tokio::time::timeout(Duration::from_secs(20), follow.next()).await;
        let Delivered::Record(record) = heard.expect("comes in time").unwrap().unwrap() else { continue };
        if let Some(Body::Message(message)) = record.body {
            let author = record.author.map(|author| author.user).unwrap_or_default();
            return (author, String::from_utf8(message.payload.to_vec()).unwrap());
        }
    }
}

fn said(author: &str, text: &str) -> (String, String) {
    (author.into(), text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk_and_the_node_restarts_in_between() {
    let mut machine = Machine::start(&[]);
    let (ann, bob) = (client(&machine, "ann", 1).await, client(&machine, "bob", 2).await);
    let group = GroupId::named("general");
    ann.create(group, wire::Settings::default(), &[user("bob")]).await.unwrap();
    let mut anns = ann.follow(group, Start::Join).await.unwrap();
    let mut bobs = bob.follow(group, Start::Join).await.unwrap();
    ann.publish(group, "hello bob").await.unwrap();
    bob.publish(group, "hello ann").await.unwrap();
    for follow in [&mut anns, &mut bobs] {
        assert_eq!(hear(follow).await, said("ann", "hello bob"));
        assert_eq!(hear(follow).await, said("bob", "hello ann"));
    }
    machine.kill();
    let waiting = tokio::spawn({
        let ann = ann.clone();
        async move { ann.publish(group, "are you there?").await }
    });
    machine.up();
    let seq = waiting.await.unwrap().unwrap();
    assert_eq!(hear(&mut bobs).await, said("ann", "are you there?"));
    bob.set_read(group, seq.next()).await.unwrap();
    let told = bob.group(group).await.unwrap();
    assert_eq!((told.tail, told.unread, told.members), (seq.next().get(), 0, 2));
    let anns_view = ann.group(group).await.unwrap();
    assert_eq!(anns_view.unread, seq.get(), "everybody has a read position of their own");
    bob.leave(group).await.unwrap();
    assert!(bob.publish(group, "and gone").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recalled_message_is_gone_for_whoever_comes_later() {
    let mut machine = Machine::start(&[]);
    let ann = client(&machine, "ann", 1).await;
    let group = GroupId::named("general");
    ann.create(group, wire::Settings { history_before_join: true, open: true, ..Default::default() }, &[])
        .await
        .unwrap();
    let secret = ann.publish(group, "a secret").await.unwrap();
    ann.edit(group, secret, "a secret, edited").await.unwrap();
    let recall = ann.recall(group, secret).await.unwrap();
    for killed in [false, true] {
        if killed {
            machine.kill();
            machine.up();
        }
        let bob = client(&machine, &format!("bob{killed}"), 3).await;
        bob.join(group).await.unwrap();
        let history = bob.history(group, Some(Seq::FIRST), 100, false).await.unwrap();
        let text = format!("{history:?}");
        assert!(!text.contains("a secret"), "{text}");
        let recalled = history.records.iter().find(|record| record.seq == secret.get()).unwrap();
        let Some(Body::Message(message)) = &recalled.body else { panic!("{recalled:?}") };
        assert_eq!(message.recalled_by, recall.get());
    }
}
