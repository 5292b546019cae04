//! Over real connections, on one thread.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use quinn::{ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use shoal_certs::{Authority, NODE_NAME, PrivateKey, Seed};
use shoal_protocol::{RecordFrame, UserId, WindowLimits};
use tokio::time::timeout;

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    delivery::WindowBudget,
    store::MemoryStore,
};

fn endpoint(server: Option<ServerConfig>) -> Endpoint {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).unwrap()
}

/// Both ends of a connection.
struct Connected {
    node: Connection,
    client: Connection,
    _endpoints: [Endpoint; 2],
}

impl Connected {
    async fn new() -> Self {
        let (seed, now_ms) = (Seed::from_number(1), SystemClock.now_ms());
        let authority = Authority::new(PrivateKey::derive(&seed, "ca"), now_ms);
        let identity = authority.identity(&seed, &[NODE_NAME.to_owned()], now_ms).unwrap();
        let server = shoal_certs::quic_server(shoal_certs::peer_server_config(&identity));
        let client = shoal_certs::quic_client(shoal_certs::peer_client_config(&identity));
        let endpoints = [endpoint(Some(ServerConfig::with_crypto(server))), endpoint(None)];
        let address = endpoints[0].local_addr().unwrap();
        let dialled = endpoints[1].connect_with(ClientConfig::new(client), address, NODE_NAME).unwrap();
        let accepted = async { endpoints[0].accept().await.unwrap().await };
        let (client, node) = tokio::try_join!(dialled, accepted).unwrap();
        Self { node, client, _endpoints: endpoints }
    }

    /// Deliveries to it of a group with one record, which says so.
    fn deliveries(&self, group: &str) -> Deliveries {
        let signal = Arc::new(Signal::new(UserId::new("ada").unwrap()));
        let (limits, metrics) = (AccessLimits::default(), Arc::new(Metrics::new()));
        let pages = Pages::new(Arc::new(MemoryStore::new(1)), &limits, Arc::clone(&metrics));
        let deliveries =
            Deliveries::new(self.node.clone(), Arc::clone(&signal), Arc::new(pages), limits.into(), metrics);
        let window = WindowLimits { records_max: 8, bytes_max: 1 << 10 };
        let budget = Arc::new(WindowBudget::new(1 << 20));
        let tail = Arc::new(Tail::new(GroupId::named(group), Seq::FIRST, window, budget));
        tail.append([record(group)], &BTreeMap::new());
        let number = deliveries.reserve();
        let attachment = tail.attach(signal, number, Seq::FIRST);
        deliveries.put(number, tail, attachment, Seq::FIRST);
        deliveries
    }
}

fn record(group: &str) -> RecordFrame {
    let body =
        wire::record::Body::Message(wire::Message { payload: group.to_owned().into(), ..Default::default() });
    RecordFrame::encode(&wire::Record { seq: 1, body: Some(body), ..Default::default() })
}

#[tokio::test]
async fn what_a_lost_connection_was_to_be_sent_goes_to_no_other() {
    let (lost, kept) = (Connected::new().await, Connected::new().await);
    lost.node.close(0_u32.into(), b"");
    let one = lost.deliveries("one");
    drop(timeout(Duration::from_secs(10), one.run()).await.expect("it ends with its connection"));
    let other = kept.deliveries("other");
    let open = wire::DeliveryOpen { group: GroupId::named("other").to_wire(), from: 1 };
    let expected = [frame::encode(&open), record("other").frame().clone()].concat();
    let received = async {
        let mut stream = kept.client.accept_uni().await.unwrap();
        let mut received = vec![0; expected.len()];
        stream.read_exact(&mut received).await.unwrap();
        received
    };
    tokio::select! {
        biased;
        received = received => assert_eq!(received, expected),
        lost = other.run() => panic!("{lost}"),
    }
}
