//! A link as another node would have it, frame by frame.

use std::sync::Arc;

use quinn::{Connection, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use shoal_client::wire;
use shoal_protocol::{FrameBuffer, VERSION, frame, frame::FRAME_BYTES_MAX};
use wire::to_home::Body as ToHome;

use crate::world::World;

/// One that says hello, and then only what it is told to.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
    frames: FrameBuffer,
    /// It ends with the link.
    _endpoint: Endpoint,
}

impl Link {
    pub(crate) async fn to(world: &World, node: &str) -> Self {
        let quic = QuicClientConfig::try_from(world.peer_tls()).unwrap();
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(quic));
        let address = world.peer_address(node).parse().unwrap();
        let connecting = endpoint.connect_with(config, address, shoal_certs::NODE_NAME).unwrap();
        let connection = connecting.await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let frames = FrameBuffer::new(FRAME_BYTES_MAX);
        let mut link = Self { connection, send, recv, frames, _endpoint: endpoint };
        let hello = wire::PeerHello {
            version_min: VERSION,
            version_max: VERSION,
            node: "x".into(),
            cluster: "test".into(),
        };
        link.tell(ToHome::Hello(hello)).await;
        link
    }

    pub(crate) async fn tell(&mut self, body: ToHome) {
        self.send.write_chunk(frame::encode(&wire::ToHome { body: Some(body) })).await.unwrap();
    }

    /// The next that it is told. Cancellation safe.
    pub(crate) async fn next(&mut self) -> wire::to_follower::Body {
        loop {
            if let Some(frame) = self.frames.next_message::<wire::ToFollower>().unwrap() {
                return frame.body.unwrap();
            }
            self.frames.push(self.recv.read_chunk(1 << 16, true).await.unwrap().unwrap().bytes);
        }
    }
}
