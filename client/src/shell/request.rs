//! One stream for each question.

use std::time::Duration;

use shoal_protocol::{Code, FrameError, Refusal, Retry, wire};
use tokio::time::{sleep, timeout};

use super::{
    framed::{self, FrameReader, StreamError},
    shared::{Link, Shared},
};
use crate::{RequestError, core::backoff::Backoff};

/// The largest page that is read.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// The waits after refusals that come without one.
const REFUSED_FIRST: Duration = Duration::from_millis(100);
const REFUSED_CEILING: Duration = Duration::from_secs(3);

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum AskError {
    Refused(Refusal),
    /// The node did not see it.
    NotSent(StreamError),
    /// The node may have seen it and done what it says.
    Unanswered(StreamError),
}

/// Asks, over reconnects and refusals for a while, until there is an answer or the time is up.
/// What is not `repeatable` is asked again only where it is known not to have been done. An answer that
/// time cuts short is the last refusal, as long as that holds.
pub(crate) async fn request(
    shared: &Shared,
    body: wire::request::Body,
    repeatable: bool,
) -> Result<wire::response::Body, RequestError> {
    let _turn = shared.requests.acquire().await.map_err(|_| RequestError::Closed)?;
    let mut refused = None;
    let answer = timeout(shared.config.request_timeout, persist(shared, body, repeatable, &mut refused));
    answer.await.unwrap_or_else(|_| Err(refused.map_or(RequestError::TimedOut, RequestError::Refused)))
}

async fn persist(
    shared: &Shared,
    body: wire::request::Body,
    repeatable: bool,
    refused: &mut Option<Refusal>,
) -> Result<wire::response::Body, RequestError> {
    let mut backoff = Backoff::new(REFUSED_FIRST, REFUSED_CEILING);
    let mut failed = None;
    loop {
        let link = next_link(shared, failed).await?;
        let asking = link.ask().await;
        // Whoever goes on to another node waits for those who ask by then, and for nobody else.
        if !shared.is_live(&link) {
            continue;
        }
        if !repeatable {
            // From here on it may be done.
            *refused = None;
        }
        let answer = ask(&link.connection, body.clone()).await;
        drop(asking);
        match answer {
            Ok(answer) => return Ok(answer),
            Err(AskError::Refused(refusal)) if is_for_now(&refusal, repeatable) => {
                let wait = Duration::from_millis(u64::from(refusal.retry_after_ms));
                *refused = Some(refusal);
                sleep(wait.max(backoff.failed(shared.chance()))).await;
            }
            Err(AskError::Refused(refusal)) => return Err(RequestError::Refused(refusal)),
            Err(AskError::Unanswered(error)) if !repeatable => {
                return Err(RequestError::Unanswered(error.into_lost()));
            }
            Err(AskError::NotSent(error) | AskError::Unanswered(error)) => match error {
                StreamError::Connection(_) => failed = Some(link.session),
                StreamError::Stream(_) => sleep(backoff.failed(shared.chance())).await,
                StreamError::Frame(error) => return Err(RequestError::Broken(error.to_string())),
            },
        }
    }
}

/// Asks once.
pub(crate) async fn ask(
    connection: &quinn::Connection,
    body: wire::request::Body,
) -> Result<wire::response::Body, AskError> {
    let unsent = |error| AskError::NotSent(StreamError::Connection(error));
    let (mut send, receive) = connection.open_bi().await.map_err(unsent)?;
    let request = wire::Request { body: Some(body) };
    let open = wire::StreamOpen { body: Some(wire::stream_open::Body::Request(request)) };
    framed::write(&mut send, &open).await.map_err(AskError::NotSent)?;
    // It cannot be finished twice.
    let _ = send.finish();
    let mut reader = FrameReader::new(receive, RESPONSE_BYTES_MAX);
    match reader.next::<wire::Response>().await.map_err(refused_or_unanswered)?.and_then(|frame| frame.body) {
        Some(wire::response::Body::Failure(failure)) => Err(AskError::Refused(failure.into())),
        Some(answer) => Ok(answer),
        None => Err(AskError::Unanswered(StreamError::Frame(FrameError::CutOff))),
    }
}

/// A node that resets a request's stream says with the code why it will not answer.
fn refused_or_unanswered(error: StreamError) -> AskError {
    match error {
        StreamError::Stream(code) if code != Code::None && code != Code::Unknown => {
            AskError::Refused(Refusal::new(code, "the node closed the request"))
        }
        error => AskError::Unanswered(error),
    }
}

/// Is it worth asking again? A refusal says that it was not done, except where the node does not
/// know itself.
fn is_for_now(refusal: &Refusal, repeatable: bool) -> bool {
    match refusal.code {
        Code::Internal | Code::Unknown | Code::TimedOut => repeatable,
        code => matches!(code.retry(), Retry::Later | Retry::Elsewhere),
    }
}

/// A live session other than the one that failed.
async fn next_link(shared: &Shared, failed: Option<u64>) -> Result<Link, RequestError> {
    let mut state = shared.state.subscribe();
    let mut links = shared.link.subscribe();
    let other = |link: &Option<Link>| link.as_ref().is_some_and(|link| Some(link.session) != failed);
    tokio::select! {
        biased;
        // Both senders live as long as `shared`.
        _ = state.wait_for(|state| matches!(state, crate::State::Closed { .. })) => Err(RequestError::Closed),
        link = links.wait_for(other) => link.ok().and_then(|link| link.clone()).ok_or(RequestError::Closed),
    }
}
