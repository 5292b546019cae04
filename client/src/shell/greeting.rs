//! The first words on a connection: the client says who it is and what it follows, and is welcomed or not.

use quinn::SendStream;
use shoal_protocol::{Refusal, VERSION, VERSION_MIN, frame::FRAME_BYTES_MAX, wire};

use super::{
    follows::Asked,
    framed::{self, FrameReader, StreamError},
    hellos::Unanswered,
    publish::{self, Publishing},
    shared::Shared,
};

/// What the nodes' logs are told of the app.
const AGENT_BYTES_MAX: usize = 128;

/// What is sent before the node has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    Hello,
    /// And messages behind it, since no other session sends them.
    Messages,
}

/// A hello that is on its way.
pub(super) struct Said<'s> {
    to_node: SendStream,
    from_node: FrameReader,
    asked: Vec<Asked>,
    publishing: Option<Publishing<'s>>,
    unanswered: Unanswered<'s>,
    in_early_data: bool,
}

/// A hello that was answered with a welcome.
pub(super) struct Greeting<'s> {
    pub(super) to_node: SendStream,
    pub(super) from_node: FrameReader,
    pub(super) welcome: wire::Welcome,
    pub(super) asked: Vec<Asked>,
    pub(super) publishing: Option<Publishing<'s>>,
    pub(super) in_early_data: bool,
}

/// Why there was none.
pub(super) enum HelloError {
    Refused(Refusal),
    Stream(StreamError),
    Unexpected,
}

impl From<StreamError> for HelloError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// Says hello, and behind it what may be sent ahead of the answer.
pub(super) async fn say_hello<'s>(
    shared: &'s Shared,
    connection: &quinn::Connection,
    token: String,
    ahead: Ahead,
) -> Result<Said<'s>, StreamError> {
    let (mut to_node, from_node) = connection.open_bi().await.map_err(StreamError::Connection)?;
    let from_node = FrameReader::new(from_node, FRAME_BYTES_MAX);
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
    let publishing = match ahead {
        Ahead::Hello => None,
        Ahead::Messages => publish::ahead(shared, connection).await?,
    };
    Ok(Said { to_node, from_node, asked, publishing, unanswered, in_early_data: false })
}

impl<'s> Said<'s> {
    /// The node has taken it in early data.
    pub(super) fn taken_early(self) -> Self {
        Self { in_early_data: true, ..self }
    }

    /// The node has not taken it, and never will.
    pub(super) fn void(self) {
        self.unanswered.answered();
    }

    /// Waits for the answer.
    pub(super) async fn hear_welcome(self) -> Result<Greeting<'s>, HelloError> {
        let Self { to_node, mut from_node, asked, publishing, unanswered, in_early_data } = self;
        let answer = from_node.next::<wire::ToClient>().await?.and_then(|frame| frame.body);
        unanswered.answered();
        match answer {
            Some(wire::to_client::Body::Welcome(welcome)) => {
                Ok(Greeting { to_node, from_node, welcome, asked, publishing, in_early_data })
            }
            Some(wire::to_client::Body::Failure(failure)) => Err(HelloError::Refused(failure.into())),
            _ => Err(HelloError::Unexpected),
        }
    }
}

fn fits_agent(bytes: &mut usize, c: char) -> Option<char> {
    *bytes += c.len_utf8();
    (*bytes <= AGENT_BYTES_MAX).then_some(c)
}
