//! From a node's name to a welcome.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{SendStream, VarInt};
use shoal_protocol::{Code, Refusal, Retry, UserId, VERSION, VERSION_MIN, frame::FRAME_BYTES_MAX, wire};
use tokio::time::{sleep, timeout};

use super::{
    follows::Asked,
    framed::{self, FrameReader, StreamError},
    lock,
    shared::{Link, Shared},
};
use crate::{Closed, Lost};

/// How long a node has for each step. One that is gone is left for the next after this.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address is tried alone before the next one is tried beside it.
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// The most addresses of one node that are tried.
const ADDRESSES_MAX: usize = 8;
/// What the nodes' logs are told of the app.
const AGENT_BYTES_MAX: usize = 128;

/// A connection with a session on it.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) node: String,
    pub(crate) connection: quinn::Connection,
    pub(crate) link: Link,
    pub(crate) to_node: SendStream,
    pub(crate) from_node: FrameReader,
    pub(crate) welcome: wire::Welcome,
    pub(crate) user: UserId,
    /// What the hello asked for.
    pub(crate) asked: Vec<Asked>,
}

/// Why there is no session on a node.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Nor will there be on any.
    Closed(Closed),
    /// Not now.
    Lost(Lost),
}

/// Connects to a node and says hello.
pub(crate) async fn dial(shared: &Shared, node: &str) -> Result<Connected, DialError> {
    let connection = reach(shared, node).await.map_err(DialError::Lost)?;
    greet(shared, node, connection).await
}

/// A connection to a node, once there is a token for it.
pub(crate) async fn reach(shared: &Shared, node: &str) -> Result<quinn::Connection, Lost> {
    shared.token().await?;
    connect(shared, node).await
}

/// Says hello. A token that the node calls expired is renewed once.
pub(crate) async fn greet(
    shared: &Shared,
    node: &str,
    connection: quinn::Connection,
) -> Result<Connected, DialError> {
    match greet_once(shared, node, connection).await {
        Err(DialError::Lost(Lost::Refused(refusal))) if refusal.code == Code::TokenExpired => {
            let connection = reach(shared, node).await.map_err(DialError::Lost)?;
            greet_once(shared, node, connection).await
        }
        other => other,
    }
}

/// What the node's refusal means for the client.
pub(crate) fn refused(shared: &Shared, refusal: Refusal) -> DialError {
    match refusal.code {
        Code::TokenExpired => {
            shared.forget_token();
            if shared.config.token.renews() {
                DialError::Lost(Lost::Refused(refusal))
            } else {
                DialError::Closed(Closed::Refused(refusal))
            }
        }
        Code::SessionReplaced if shared.hellos.one_came_late() => DialError::Lost(Lost::Refused(refusal)),
        Code::TokenMissing
        | Code::TokenInvalid
        | Code::DeviceMismatch
        | Code::VersionUnsupported
        | Code::SessionReplaced => DialError::Closed(Closed::Refused(refusal)),
        _ => DialError::Lost(Lost::Refused(refusal)),
    }
}

async fn greet_once(
    shared: &Shared,
    node: &str,
    connection: quinn::Connection,
) -> Result<Connected, DialError> {
    let token = shared.token().await.map_err(DialError::Lost)?;
    let greeted = timeout(HELLO_TIMEOUT, hello(shared, &connection, token)).await;
    let greeting = match greeted {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(error)) => return Err(not_greeted(shared, &connection, error)),
        Err(_) => return Err(DialError::Lost(Lost::Silent)),
    };
    let user = UserId::new(&greeting.welcome.user)
        .map_err(|error| DialError::Lost(Lost::Broken(error.to_string())))?;
    let known = lock(&shared.welcomed).as_ref().map(|welcomed| welcomed.user.clone());
    if let Some(known) = known.filter(|known| *known != user) {
        // What is queued and followed is another user's.
        connection.close(VarInt::from_u32(0), b"another user");
        let closed = Closed::OtherUser { saved: known.to_string(), token: user.to_string() };
        return Err(DialError::Closed(closed));
    }
    let Greeting { to_node, from_node, welcome, asked } = greeting;
    let link = Link::new(connection.clone(), welcome.session);
    Ok(Connected { node: node.to_owned(), connection, link, to_node, from_node, welcome, user, asked })
}

fn not_greeted(shared: &Shared, connection: &quinn::Connection, error: HelloError) -> DialError {
    match error {
        HelloError::Refused(refusal) => refused(shared, refusal),
        HelloError::Stream(error) => match connection.close_reason().as_ref().and_then(framed::refusal_of) {
            Some(refusal) if refusal.code != Code::None => refused(shared, refusal),
            _ => DialError::Lost(error.into_lost()),
        },
        HelloError::Unexpected => DialError::Lost(Lost::Broken("no welcome".to_owned())),
    }
}

/// The first of the node's addresses that answers, each given a head start before the next.
async fn connect(shared: &Shared, node: &str) -> Result<quinn::Connection, Lost> {
    let network = |error: &dyn std::fmt::Display| Lost::Network(format!("{node}: {error}"));
    let addresses = match timeout(RESOLVE_TIMEOUT, shared.config.transport.resolve(node)).await {
        Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
        Ok(Ok(_)) => return Err(network(&"has no address")),
        Ok(Err(error)) => return Err(network(&error)),
        Err(_) => return Err(network(&"its address could not be found in time")),
    };
    let mut attempts = FuturesUnordered::new();
    for (at, address) in (0_u32..).zip(addresses.into_iter().take(ADDRESSES_MAX)) {
        attempts.push(async move {
            sleep(ADDRESS_STAGGER * at).await;
            connect_to(shared, address).await
        });
    }
    let first = async {
        let mut last = "did not answer".to_owned();
        while let Some(result) = attempts.next().await {
            match result {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(network(&last))
    };
    match timeout(CONNECT_TIMEOUT, first).await {
        Ok(result) => result,
        Err(_) => Err(network(&"does not answer")),
    }
}

async fn connect_to(shared: &Shared, address: SocketAddr) -> Result<quinn::Connection, String> {
    let endpoint = shared.config.transport.endpoint(address).map_err(|error| error.to_string())?;
    let connecting = endpoint
        .connect_with(shared.quic.clone(), address, &shared.config.server_name)
        .map_err(|error| error.to_string())?;
    connecting.await.map_err(|error| error.to_string())
}

struct Greeting {
    to_node: SendStream,
    from_node: FrameReader,
    welcome: wire::Welcome,
    asked: Vec<Asked>,
}

enum HelloError {
    Refused(Refusal),
    Stream(StreamError),
    Unexpected,
}

impl From<StreamError> for HelloError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

async fn hello(
    shared: &Shared,
    connection: &quinn::Connection,
    token: String,
) -> Result<Greeting, HelloError> {
    let (mut to_node, from_node) = connection.open_bi().await.map_err(StreamError::Connection)?;
    let mut from_node = FrameReader::new(from_node, FRAME_BYTES_MAX);
    let asked = shared.follows.wanted();
    let hello = wire::Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        token,
        device: shared.config.device.0,
        follows: asked.iter().map(|asked| asked.follow.clone()).collect(),
        agent: shared.config.agent.chars().scan(0, fits_agent).collect(),
        region: shared.config.region.clone(),
    };
    let hello = wire::ToNode { body: Some(wire::to_node::Body::Hello(hello)) };
    let unanswered = shared.hellos.leaves();
    framed::write(&mut to_node, &hello).await?;
    let answer = from_node.next::<wire::ToClient>().await?.and_then(|frame| frame.body);
    unanswered.answered();
    match answer {
        Some(wire::to_client::Body::Welcome(welcome)) => Ok(Greeting { to_node, from_node, welcome, asked }),
        Some(wire::to_client::Body::Failure(failure)) => Err(HelloError::Refused(failure.into())),
        _ => Err(HelloError::Unexpected),
    }
}

fn fits_agent(bytes: &mut usize, c: char) -> Option<char> {
    *bytes += c.len_utf8();
    (*bytes <= AGENT_BYTES_MAX).then_some(c)
}

/// May the next attempt go to another node at once?
pub(crate) fn elsewhere(lost: &Lost) -> bool {
    matches!(lost, Lost::Refused(refusal) if refusal.code.retry() == Retry::Elsewhere)
}

/// How long the node asked to be left alone.
pub(crate) fn retry_after(lost: &Lost) -> Duration {
    match lost {
        Lost::Refused(refusal) => Duration::from_millis(u64::from(refusal.retry_after_ms)),
        _ => Duration::ZERO,
    }
}
