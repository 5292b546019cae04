//! A request stream: one request, one answer. What concerns sessions is answered here, the rest by
//! the users' view.

use quinn::SendStream;
use shoal_protocol::{Code, GroupId, Refusal, UserId, frame, wire};
use wire::{request::Body as Asked, response::Body as Answer};

use super::{Shared, administration, follows::bad_id, session::Session, violation::Violation};
use crate::delivery::Tail;

/// Users in one question who is online.
const PRESENCE_USERS_MAX: usize = 100;

/// Answers a request and ends the stream.
pub(super) async fn serve(
    shared: &Shared,
    session: &Session,
    send: &mut SendStream,
    request: wire::Request,
) -> Result<(), Violation> {
    session.request_pace.wait().await;
    let answer = match answer(shared, session, request).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::Failure(refusal.into()),
    };
    match &answer {
        Answer::Failure(failure) => shared.metrics.requests_refused.inc(Code::from_wire(failure.code)),
        _ => shared.metrics.requests.inc(),
    }
    send.write_chunk(frame::encode(&wire::Response { body: Some(answer) })).await?;
    // Fails only where the client has stopped the stream.
    let _ = send.finish();
    Ok(())
}

async fn answer(shared: &Shared, session: &Session, request: wire::Request) -> Result<Answer, Refusal> {
    match request.body {
        Some(Asked::Incarnation(_)) => {
            let incarnation = session.begin_anew(shared.clock.now_ms(), shared.random());
            Ok(Answer::Incarnation(wire::Incarnation { incarnation: incarnation.0 }))
        }
        Some(Asked::Presence(presence)) => self::presence(shared, session, &presence).await,
        Some(Asked::Status(_)) => administration::status(shared, session),
        Some(Asked::Cluster(_)) => administration::cluster(shared, session),
        Some(Asked::Drain(asked)) => administration::drain(shared, session, asked).await,
        Some(Asked::Config(asked)) => administration::config(shared, session, asked).await,
        Some(Asked::SetConfig(asked)) => administration::set_config(shared, session, asked).await,
        Some(body) => {
            let request = wire::Request { body: Some(body) };
            let response = shared.views.answer(&session.actor(), request).await;
            response.body.ok_or_else(|| Refusal::new(Code::Internal, "the view had no answer"))
        }
        None => Err(Refusal::new(Code::BadRequest, "a request says what it wants")),
    }
}

/// How many of a group's members are here, and which of those named.
async fn presence(shared: &Shared, session: &Session, asked: &wire::GetPresence) -> Result<Answer, Refusal> {
    let group = GroupId::from_wire(&asked.group).map_err(bad_id)?;
    if asked.users.len() > PRESENCE_USERS_MAX {
        let reason = format!("at most {PRESENCE_USERS_MAX} users in one request");
        return Err(Refusal::new(Code::TooMany, reason));
    }
    shared.groups.authorize(&session.actor(), group).await?;
    let online =
        shared.groups.tail(group).map_or(0, |tail| online(&tail, shared.limits.load().signal_sessions_max));
    let is_here = |user: &String| {
        let Ok(user) = UserId::new(user) else { return false };
        shared.sessions.of(&user).iter().any(|other| other.deliveries().watermark(group).is_some())
    };
    let users = asked.users.iter().filter(|user| is_here(user)).cloned().collect();
    Ok(Answer::Presence(wire::Presence { online, users }))
}

/// Users, where there are few sessions; in a large group its sessions, which costs nothing.
fn online(tail: &Tail, users_max: usize) -> u64 {
    let sessions = tail.attached();
    if sessions > users_max {
        return sessions as u64;
    }
    let mut users = Vec::with_capacity(sessions);
    tail.for_each_attached(|signal| users.extend(signal.user().cloned()));
    users.sort_unstable();
    users.dedup();
    users.len() as u64
}
