//! From a node's name to a welcome.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{RecvStream, SendStream, VarInt};
use shoal_protocol::{Code, Refusal, Retry, UserId, wire};
use tokio::time::{sleep, timeout};

use super::{
    follows::Asked,
    framed::{self, FrameReader},
    greeting::{Ahead, Greeting, HelloError, Said, say_hello},
    lock,
    publish::Publishing,
    shared::{Link, Shared},
};
use crate::{Closed, Lost, stats::count};

/// How long a node has for each step. One that is gone is left for the next after this.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address is tried alone before the next one is tried beside it.
const ADDRESS_STAGGER: Duration = Duration::from_millis(250);
/// The most addresses of one node that are tried.
const ADDRESSES_MAX: usize = 8;

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
    /// The publish stream, where messages were sent behind the hello.
    pub(crate) publishing: Option<(SendStream, RecvStream)>,
}

/// A connection whose handshake is done.
pub(crate) struct Reached<'s> {
    connection: quinn::Connection,
    /// What was said in early data, where the node took it.
    said: Option<Said<'s>>,
    ahead: Ahead,
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
    let reached = reach(shared, node, Ahead::Hello).await.map_err(DialError::Lost)?;
    greet(shared, node, reached).await
}

/// A connection to a node, once there is a token for it. Where the node is known from before, it is said hello to in
/// early data (0-RTT), a round trip before the handshake is done.
pub(crate) async fn reach<'s>(shared: &'s Shared, node: &str, ahead: Ahead) -> Result<Reached<'s>, Lost> {
    let token = shared.token().await?;
    connect(shared, node, &token, ahead).await
}

/// Says hello. A token that the node calls expired is renewed once.
pub(crate) async fn greet(shared: &Shared, node: &str, reached: Reached<'_>) -> Result<Connected, DialError> {
    let ahead = reached.ahead;
    match greet_once(shared, node, reached).await {
        Err(DialError::Lost(Lost::Refused(refusal))) if refusal.code == Code::TokenExpired => {
            let reached = reach(shared, node, ahead).await.map_err(DialError::Lost)?;
            greet_once(shared, node, reached).await
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

async fn greet_once(shared: &Shared, node: &str, reached: Reached<'_>) -> Result<Connected, DialError> {
    let Reached { connection, said, ahead } = reached;
    let token = shared.token().await.map_err(DialError::Lost)?;
    let greeted = timeout(HELLO_TIMEOUT, async {
        let said = match said {
            Some(said) => said,
            None => say_hello(shared, &connection, token, ahead).await?,
        };
        said.hear_welcome().await
    });
    let greeting = match greeted.await {
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
    let Greeting { to_node, from_node, welcome, asked, publishing, in_early_data } = greeting;
    count(&shared.counters.early_sessions, in_early_data.into());
    let publishing = publishing.and_then(Publishing::go_on);
    let link = Link::new(connection.clone(), welcome.session);
    let node = node.to_owned();
    Ok(Connected { node, connection, link, to_node, from_node, welcome, user, asked, publishing })
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
async fn connect<'s>(shared: &'s Shared, node: &str, token: &str, ahead: Ahead) -> Result<Reached<'s>, Lost> {
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
            // The same messages are not sent twice at the same time.
            let early = if at == 0 { ahead } else { Ahead::Hello };
            let (connection, said) = connect_to(shared, address, token, early).await?;
            Ok(Reached { connection, said, ahead })
        });
    }
    let first = async {
        let mut last = "did not answer".to_owned();
        while let Some(result) = attempts.next().await {
            match result {
                Ok(reached) => return Ok(reached),
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

async fn connect_to<'s>(
    shared: &'s Shared,
    address: SocketAddr,
    token: &str,
    ahead: Ahead,
) -> Result<(quinn::Connection, Option<Said<'s>>), String> {
    let endpoint = shared.config.transport.endpoint(address).map_err(|error| error.to_string())?;
    let connecting = endpoint
        .connect_with(shared.quic(), address, &shared.config.server_name)
        .map_err(|error| error.to_string())?;
    let (connection, accepted) = match connecting.into_0rtt() {
        Ok(early) => early,
        Err(connecting) => return Ok((connecting.await.map_err(|error| error.to_string())?, None)),
    };
    // What was said to a node that has forgotten the client is void, and the handshake goes on without.
    let (said, is_accepted) = tokio::join!(say_hello(shared, &connection, token.to_owned(), ahead), accepted);
    let said = said.ok();
    if is_accepted {
        return Ok((connection, said.map(Said::taken_early)));
    }
    if let Some(said) = said {
        said.void();
    }
    match connection.close_reason() {
        Some(error) => Err(error.to_string()),
        None => Ok((connection, None)),
    }
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
