//! Early data (0-RTT): what a client says before its handshake is done, and what becomes of it when somebody who
//! has listened says it again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{ClientConfig, Endpoint};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use shoal_protocol::{Code, GroupId, frame, wire};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};
use wire::{request::Body as Ask, response::Body as Answer, stream_open::Body as Open};

use super::{
    client::{CREATED, Client, Frames, Publisher, endpoint, hello, payload, say},
    world::{PATIENCE, World, eventually},
};

/// How long a connection has for its hello and the end of its handshake.
const HELLO: Duration = Duration::from_millis(300);

/// Longer than a client takes to say all that it says in early data.
const FLIGHT: Duration = Duration::from_millis(150);

const DEVICE: u64 = 7;

/// Tickets that are good again and again, as no store should have it.
#[derive(Debug)]
struct Kept(Arc<ServerSessionMemoryCache>);

impl StoresServerSessions for Kept {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

async fn world(keeps_tickets: bool) -> World {
    let mut world = World::with(|limits| limits.access.hello_ms = HELLO.as_millis() as u64).await;
    if keeps_tickets {
        world.crash();
        world.tickets = Some(Arc::new(Kept(ServerSessionMemoryCache::new(64))));
        world.start().await;
    }
    world
}

/// A client that keeps its tickets, and what it knows from its first session.
struct Phone {
    endpoint: Endpoint,
    config: ClientConfig,
    incarnation: u64,
    group: GroupId,
}

impl Phone {
    /// Has had a session, created a group and published the number 1 there.
    async fn known(world: &World) -> Self {
        let roots = shoal_certs::roots_from_pem(&world.ca_pem).unwrap();
        let config = ClientConfig::new(shoal_certs::quic_client(shoal_certs::client_config(roots)));
        let mut phone = Self { endpoint: endpoint(), config, incarnation: 0, group: GroupId::named("early") };
        let connection = phone.connect(world.address).await.unwrap();
        let first = phone.greet(world, connection).await;
        phone.incarnation = first.welcome.incarnation;
        first.create(phone.group, &[]).await;
        let mut publisher = first.publisher().await;
        publisher.send(phone.group, 1, b"one").await;
        publisher.committed().await;
        first.connection.close(0_u32.into(), b"");
        eventually("the first session ends", || world.metrics.sessions.get() == 0).await;
        phone
    }

    async fn connect(&self, to: SocketAddr) -> Result<quinn::Connection, quinn::ConnectionError> {
        let connecting = self.endpoint.connect_with(self.config.clone(), to, "127.0.0.1").unwrap();
        timeout(PATIENCE, connecting).await.expect("a handshake ends in time")
    }

    /// Begins a connection with a ticket.
    fn connect_early(&self, to: SocketAddr) -> (quinn::Connection, quinn::ZeroRttAccepted) {
        let connecting = self.endpoint.connect_with(self.config.clone(), to, "127.0.0.1").unwrap();
        connecting.into_0rtt().unwrap_or_else(|_| panic!("there is a ticket"))
    }

    async fn greet(&self, world: &World, connection: quinn::Connection) -> Client {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&say(wire::to_node::Body::Hello(hello(world.token("ada"), DEVICE)))).await.unwrap();
        let mut control = Frames::new(recv);
        let told = control.next::<wire::ToClient>().await.body;
        let Some(wire::to_client::Body::Welcome(welcome)) = told else { panic!("{told:?}") };
        Client { connection, send, control, welcome, endpoint: self.endpoint.clone() }
    }

    /// Says hello and opens a stream, with its first frames, in early data that reaches nobody: what the client
    /// sent, packet by packet.
    async fn record(&self, world: &World, open: Open, then: &[u8]) -> Vec<Vec<u8>> {
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (connection, _accepted) = self.connect_early(nobody.local_addr().unwrap());
        let (mut control, _told) = connection.open_bi().await.unwrap();
        control.write_all(&say(wire::to_node::Body::Hello(hello(world.token("ada"), DEVICE)))).await.unwrap();
        let (mut stream, _answers) = connection.open_bi().await.unwrap();
        stream.write_all(&frame::encode(&wire::StreamOpen { body: Some(open) })).await.unwrap();
        stream.write_all(then).await.unwrap();
        let mut packets = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(received) = timeout(FLIGHT, nobody.recv(&mut buffer)).await {
            packets.push(buffer[..received.unwrap()].to_vec());
        }
        packets
    }

    /// The same, of the message with the number 2.
    async fn record_message(&self, world: &World) -> Vec<Vec<u8>> {
        let message = wire::Message { payload: b"two".as_slice().into(), ..Default::default() };
        let (group, incarnation) = (self.group.to_wire(), self.incarnation);
        let publish = wire::Publish { group, incarnation, number: 2, message: Some(message) };
        self.record(world, Open::Publish(wire::PublishOpen {}), &frame::encode(&publish)).await
    }
}

/// Sends a recording to the node, again and again until it is taken for a new connection: not as long as the last
/// one with the same id is there.
async fn replay(world: &World, packets: &[Vec<u8>]) {
    let accepted = world.metrics.connections_accepted.get();
    let somebody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sent = async {
        while world.metrics.connections_accepted.get() == accepted {
            for packet in packets {
                somebody.send_to(packet, world.address).await.unwrap();
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, sent).await.expect("the node takes it for a new connection");
}

#[tokio::test]
async fn a_client_that_is_known_is_answered_before_its_handshake_is_done() {
    let world = world(false).await;
    let phone = Phone::known(&world).await;
    let (connection, accepted) = phone.connect_early(world.address);
    let early = phone.greet(&world, connection).await;
    assert!(accepted.await, "the node knows the ticket");
    assert_eq!(world.metrics.early_hellos.get(), 1);
    let mut publisher = Publisher { incarnation: phone.incarnation, ..early.publisher().await };
    publisher.send(phone.group, 2, b"two").await;
    assert_eq!(publisher.committed().await, CREATED + 1);
    assert_eq!(world.node.as_ref().unwrap().sessions(), 1);
}

#[tokio::test]
async fn early_data_that_is_said_again_doubles_nothing_and_takes_no_session_over() {
    let world = world(true).await;
    let phone = Phone::known(&world).await;
    let recording = phone.record_message(&world).await;
    let mut live = Client::connect(&world, "ada", DEVICE).await;
    for times in 1..=3 {
        replay(&world, &recording).await;
        eventually("early data is read", || world.metrics.early_hellos.get() == times).await;
        eventually("it comes to nothing", || world.metrics.sessions_ended.get(Code::TimedOut) == times).await;
    }
    assert_eq!(world.node.as_ref().unwrap().sessions(), 1);
    live.follow(phone.group).await;
    let mut delivery = live.delivery().await;
    let records = delivery.read_until(CREATED + 2).await;
    let texts: Vec<_> = records[CREATED as usize - 1..].iter().map(payload).collect();
    assert_eq!(texts, [b"one", b"two"], "each once: the client's own copy would have been the next");
    let mut publisher = Publisher { incarnation: phone.incarnation, ..live.publisher().await };
    publisher.send(phone.group, 2, b"two").await;
    assert_eq!(publisher.committed().await, CREATED + 1, "it was had");
    publisher.send(phone.group, 3, b"three").await;
    assert_eq!(publisher.committed().await, CREATED + 2, "nothing else was written in between");
}

#[tokio::test]
async fn a_ticket_is_good_for_early_data_once() {
    let world = world(false).await;
    let phone = Phone::known(&world).await;
    let recording = phone.record_message(&world).await;
    replay(&world, &recording).await;
    eventually("early data is read", || world.metrics.early_hellos.get() == 1).await;
    for times in 2..=3 {
        replay(&world, &recording).await;
        eventually("it comes to nothing", || world.metrics.sessions_ended.get(Code::TimedOut) == times).await;
    }
    assert_eq!(world.metrics.early_hellos.get(), 1, "the node does not know the ticket any more");
}

#[tokio::test]
async fn a_request_in_early_data_is_not_carried_out() {
    let world = world(false).await;
    let phone = Phone::known(&world).await;
    let group = GroupId::named("twice");
    let create = wire::change::Body::Create(wire::Create::default());
    let change = wire::Change { group: group.to_wire(), body: Some(create) };
    let open = Open::Request(wire::Request { body: Some(Ask::Change(change)) });
    let recording = phone.record(&world, open, &[]).await;
    replay(&world, &recording).await;
    eventually("early data is read", || world.metrics.early_hellos.get() == 1).await;
    eventually("it comes to nothing", || world.metrics.sessions_ended.get(Code::TimedOut) == 1).await;
    let live = Client::connect(&world, "ada", DEVICE).await;
    match live.ask(Ask::Group(wire::GetGroup { group: group.to_wire() })).await {
        Answer::Failure(failure) => assert_eq!(Code::from_wire(failure.code), Code::UnknownGroup),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_client_that_is_refused_early_learns_why() {
    let world = world(false).await;
    let phone = Phone::known(&world).await;
    let (connection, _accepted) = phone.connect_early(world.address);
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&say(wire::to_node::Body::Hello(hello("nonsense".to_owned(), DEVICE)))).await.unwrap();
    assert_eq!(super::client::close_code(&connection).await, Code::TokenInvalid);
}
