//! The hello: a client says who it is, and is believed or not.

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use shoal_certs::{Claims, TokenVerifier, token::TOKEN_BYTES_MAX};
use shoal_protocol::{
    Code, DeviceId, FrameBuffer, GroupId, PUBLISH_WINDOW, Refusal, frame::HELLO_BYTES_MAX,
    id::REGION_BYTES_MAX, negotiate, wire,
};

use super::{Shared, session::Session, violation::Violation};
use crate::config::AccessLimits;

/// Reads of a stream, in bytes.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The most bytes in a control frame of a client that is known: a token, or the watermarks of all
/// that it follows.
fn control_bytes_max(limits: &AccessLimits) -> usize {
    const WATERMARK_BYTES_MAX: usize = 40;
    2 * TOKEN_BYTES_MAX + limits.follows_max * WATERMARK_BYTES_MAX
}

/// The streams and the claims of a client that is let in.
pub(super) struct Greeting {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) frames: FrameBuffer,
    pub(super) hello: wire::Hello,
    pub(super) identity: Identity,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) claims: Claims,
    pub(super) device: DeviceId,
    pub(super) version: u32,
    /// The region it says it is in; empty where it said none.
    pub(super) region: Box<str>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    #[error(transparent)]
    Lost(#[from] ConnectionError),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Reads the hello from the client's first stream and checks it.
pub(super) async fn greet(shared: &Shared, connection: &Connection) -> Result<Greeting, NoSession> {
    let (send, mut recv) = connection.accept_bi().await?;
    let mut frames = FrameBuffer::new(HELLO_BYTES_MAX);
    let hello = loop {
        let read =
            recv.read_chunk(CHUNK_BYTES_MAX, true).await.map_err(|error| Violation::from(error).refusal())?;
        let chunk =
            read.ok_or_else(|| Refusal::new(Code::BadFrame, "the control stream ended before a hello"))?;
        frames.push(chunk.bytes);
        let message =
            frames.next_message::<wire::ToNode>().map_err(|error| Violation::from(error).refusal())?;
        match message.map(|message| message.body) {
            None => {}
            Some(Some(wire::to_node::Body::Hello(hello))) => break hello,
            Some(_) => return Err(Refusal::new(Code::BadFrame, "the first frame is a hello").into()),
        }
    };
    let identity = identify(&hello, &shared.tokens, shared.clock.now_ms())?;
    if hello.follows.len() > shared.limits.load().follows_max {
        return Err(Refusal::new(Code::TooMany, "more follows than a session may have").into());
    }
    frames.set_limit(control_bytes_max(&shared.limits.load()));
    Ok(Greeting { send, recv, frames, hello, identity })
}

/// Checks what a hello claims.
fn identify(hello: &wire::Hello, tokens: &TokenVerifier, now_ms: u64) -> Result<Identity, Refusal> {
    let version = negotiate(hello.version_min, hello.version_max)?;
    let device = DeviceId(hello.device);
    let claims = check_token(&hello.token, device, tokens, now_ms)?;
    let region = check_region(&hello.region)?;
    Ok(Identity { claims, device, version, region })
}

/// Checks the name of a client's region. Whether there is such a region is no matter: it may come to be.
fn check_region(region: &str) -> Result<Box<str>, Refusal> {
    if region.len() > REGION_BYTES_MAX {
        let reason = format!("a region's name has {REGION_BYTES_MAX} bytes at most");
        return Err(Refusal::new(Code::BadRequest, reason));
    }
    Ok(region.into())
}

/// Checks a token of a device.
pub(super) fn check_token(
    token: &str,
    device: DeviceId,
    tokens: &TokenVerifier,
    now_ms: u64,
) -> Result<Claims, Refusal> {
    let claims =
        tokens.verify(token, now_ms).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    match claims.device {
        Some(other) if other != device => {
            Err(Refusal::new(Code::DeviceMismatch, "the token is another device's"))
        }
        _ => Ok(claims),
    }
}

/// What a client that was let in is told.
pub(super) fn welcome(shared: &Shared, session: &Session, identity: &Identity) -> wire::Welcome {
    let (limits, now_ms) = (shared.limits.load(), shared.clock.now_ms());
    let wire_count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    wire::Welcome {
        version: identity.version,
        session: session.id(),
        user: identity.claims.user.to_string(),
        limits: Some(wire::Limits {
            payload_bytes_max: wire_count(shared.groups.payload_bytes_max()),
            publish_window: wire_count(PUBLISH_WINDOW),
            follows_max: wire_count(limits.follows_max),
            requests_max: wire_count(limits.requests_max),
        }),
        heartbeat_ms: limits.heartbeat_ms,
        nodes: nodes(shared, &identity.region),
        incarnation: session.begin_anew(now_ms, shared.random()).0,
        token_expires_ms: identity.claims.expires_ms,
        time_ms: now_ms,
        own_group: GroupId::own(&identity.claims.user).to_wire(),
    }
}

/// This node's addresses, and those of others for when it goes.
fn nodes(shared: &Shared, region: &str) -> Vec<String> {
    let mut nodes = shared.addresses.clone();
    if shared.others.is_some() {
        nodes.extend(shared.elsewhere(region));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use shoal_certs::{PrivateKey, Seed, TokenSigner};
    use shoal_protocol::{UserId, VERSION};

    use super::*;

    const NOW_MS: u64 = 1_790_000_000_000;

    fn keys() -> (TokenSigner, TokenVerifier) {
        let key = PrivateKey::derive(&Seed::from_number(1), "token");
        (TokenSigner::from_pem(&key.to_pem()).unwrap(), TokenVerifier::from_pem(&key.public_pem()).unwrap())
    }

    fn hello(token: String) -> wire::Hello {
        wire::Hello { version_min: 1, version_max: 1, token, device: 7, ..Default::default() }
    }

    fn claims() -> Claims {
        Claims::new(UserId::new("ada").unwrap(), NOW_MS, NOW_MS + 60_000)
    }

    #[test]
    fn versions_meet_in_the_highest_that_both_speak() {
        let (signer, verifier) = keys();
        let with = |version_min, version_max| {
            let hello = wire::Hello { version_min, version_max, ..hello(signer.sign(&claims())) };
            identify(&hello, &verifier, NOW_MS)
                .map(|identity| identity.version)
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(with(1, 1), Ok(1));
        assert_eq!(with(1, 9), Ok(VERSION));
        assert_eq!(with(VERSION + 1, VERSION + 3), Err(Code::VersionUnsupported));
        assert_eq!(with(0, 0), Err(Code::VersionUnsupported));
        assert_eq!(with(3, 2), Err(Code::VersionUnsupported));
    }

    #[test]
    fn a_token_for_one_device_is_no_good_for_another() {
        let (signer, verifier) = keys();
        let with = |device| {
            let token = signer.sign(&Claims { device, ..claims() });
            identify(&hello(token), &verifier, NOW_MS).map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!(with(None), Ok(()));
        assert_eq!(with(Some(DeviceId(7))), Ok(()));
        assert_eq!(with(Some(DeviceId(8))), Err(Code::DeviceMismatch));
    }

    #[test]
    fn a_region_is_any_name_of_bounded_length() {
        let (signer, verifier) = keys();
        let with = |region: String| {
            let hello = wire::Hello { region, ..hello(signer.sign(&claims())) };
            identify(&hello, &verifier, NOW_MS)
                .map(|identity| String::from(identity.region))
                .map_err(|refusal| refusal.code)
        };
        let longest = "r".repeat(REGION_BYTES_MAX);
        assert_eq!(with(String::new()), Ok(String::new()), "it need not be said");
        assert_eq!(with(longest.clone()), Ok(longest.clone()));
        assert_eq!(with(longest + "r"), Err(Code::BadRequest));
    }

    #[test]
    fn no_token_and_an_old_one_are_told_apart() {
        let (signer, verifier) = keys();
        let code = |token, now_ms| identify(&hello(token), &verifier, now_ms).unwrap_err().code;
        assert_eq!(code(String::new(), NOW_MS), Code::TokenMissing);
        assert_eq!(code("nonsense".into(), NOW_MS), Code::TokenInvalid);
        assert_eq!(code(signer.sign(&claims()), NOW_MS + 60_000), Code::TokenExpired);
    }
}
