//! Handshakes in memory: who is let in, under which name and which ALPN.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, pki_types::ServerName,
};
use shoal_certs::{
    Authority, Identity, NODE_NAME, PrivateKey, Seed, client_config, peer_client_config, peer_server_config,
    quic_client, quic_server, roots_from_pem, server_config,
};

use crate::DAY_MS;

/// rustls reads the machine's clock, so these certificates are made by it.
fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn authority(number: u64, now_ms: u64) -> Authority {
    Authority::new(PrivateKey::derive(&Seed::from_number(number), "ca"), now_ms)
}

fn identity(authority: &Authority) -> Identity {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    authority.identity(&Seed::from_number(7), &names, now_ms()).unwrap()
}

fn client_of(authority: &Authority) -> ClientConfig {
    client_config(roots_from_pem(authority.cert_pem()).unwrap())
}

struct Ends {
    client: ClientConnection,
    server: ServerConnection,
}

/// Shakes hands until both are done or one refuses.
fn handshake(
    client: impl Into<Arc<ClientConfig>>,
    server: impl Into<Arc<ServerConfig>>,
    name: &str,
) -> Result<Ends, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut ends = Ends {
        client: ClientConnection::new(client.into(), name)?,
        server: ServerConnection::new(server.into())?,
    };
    for _ in 0..4 {
        let mut wire = Vec::new();
        while ends.client.wants_write() {
            ends.client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            ends.server.read_tls(&mut wire).unwrap();
            ends.server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while ends.server.wants_write() {
            ends.server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            ends.client.read_tls(&mut wire).unwrap();
            ends.client.process_new_packets()?;
        }
    }
    assert!(!ends.client.is_handshaking() && !ends.server.is_handshaking(), "the handshake did not end");
    Ok(ends)
}

#[test]
fn a_client_knows_a_node_by_each_of_its_names() {
    let authority = authority(1, now_ms());
    let node = identity(&authority);
    for name in ["localhost", "127.0.0.1", NODE_NAME] {
        let ends = handshake(client_of(&authority), server_config(&node, 16), name).unwrap();
        assert_eq!(ends.client.alpn_protocol(), Some(b"shoal/1".as_slice()));
        assert_eq!(ends.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let suite = ends.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
    assert!(handshake(client_of(&authority), server_config(&node, 16), "example.org").is_err());
}

#[test]
fn a_client_does_not_trust_another_authority() {
    let node = identity(&authority(1, now_ms()));
    assert!(handshake(client_of(&authority(2, now_ms())), server_config(&node, 16), "localhost").is_err());
}

#[test]
fn an_expired_certificate_is_refused() {
    let long_ago = now_ms() - 800 * DAY_MS;
    let authority = authority(1, long_ago);
    let node = authority.identity(&Seed::from_number(7), &["localhost".to_owned()], long_ago).unwrap();
    assert!(handshake(client_of(&authority), server_config(&node, 16), "localhost").is_err());
}

#[test]
fn nodes_know_each_other() {
    let node = identity(&authority(1, now_ms()));
    let ends = handshake(peer_client_config(&node), peer_server_config(&node), NODE_NAME).unwrap();
    assert_eq!(ends.server.alpn_protocol(), Some(b"shoal-peer/1".as_slice()));
    assert!(ends.server.peer_certificates().is_some());
}

#[test]
fn a_node_of_another_authority_is_no_peer() {
    let (ours, theirs) = (authority(1, now_ms()), authority(2, now_ms()));
    let (node, stranger) = (identity(&ours), identity(&theirs));
    assert!(handshake(peer_client_config(&stranger), peer_server_config(&node), NODE_NAME).is_err());
    // Not even one that takes the node for genuine.
    let mut without_certificate = client_of(&ours);
    without_certificate.alpn_protocols = vec![b"shoal-peer/1".to_vec()];
    assert!(handshake(without_certificate, peer_server_config(&node), NODE_NAME).is_err());
}

#[test]
fn clients_and_peers_are_not_mistaken_for_each_other() {
    let authority = authority(1, now_ms());
    let node = identity(&authority);
    assert!(handshake(peer_client_config(&node), server_config(&node, 16), NODE_NAME).is_err());
    assert!(handshake(client_of(&authority), peer_server_config(&node), NODE_NAME).is_err());
}

#[test]
fn a_client_that_comes_back_resumes_with_early_data_while_the_node_holds_its_session() {
    let authority = authority(1, now_ms());
    let node = Arc::new(server_config(&identity(&authority), 64));
    let client = Arc::new(client_of(&authority));
    let first = handshake(Arc::clone(&client), Arc::clone(&node), "localhost").unwrap();
    assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
    let name = ServerName::try_from("localhost").unwrap();
    let mut returning = ClientConnection::new(Arc::clone(&client), name).unwrap();
    assert!(returning.early_data().is_some(), "the ticket allows early data");
    let second = handshake(client, Arc::clone(&node), "localhost").unwrap();
    assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn a_forgotten_session_falls_back_to_a_full_handshake() {
    let authority = authority(1, now_ms());
    let node = Arc::new(server_config(&identity(&authority), 2));
    let client = Arc::new(client_of(&authority));
    handshake(Arc::clone(&client), Arc::clone(&node), "localhost").unwrap();
    for _ in 0..8 {
        handshake(client_of(&authority), Arc::clone(&node), "localhost").unwrap();
    }
    let again = handshake(client, node, "localhost").unwrap();
    assert_eq!(again.client.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn quinn_takes_all_four_configurations() {
    let authority = authority(1, now_ms());
    let node = identity(&authority);
    let _ = quic_server(server_config(&node, 16));
    let _ = quic_server(peer_server_config(&node));
    let _ = quic_client(client_of(&authority));
    let _ = quic_client(peer_client_config(&node));
}
