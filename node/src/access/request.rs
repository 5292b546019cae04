//! A request stream: one request, one answer. What concerns sessions is answered here, the rest by
//! the users' view.

use quinn::SendStream;
use shoal_protocol::{Code, GroupId, Refusal, UserId, frame, wire};
use wire::{request::Body as Asked, response::Body as Answer};

use super::{Shared, administration, follows::bad_id, session::Session, violation::Violation};
use crate::presence;

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
        Some(Asked::Cluster(_)) => administration::cluster(shared, session).await,
        Some(Asked::Drain(asked)) => administration::drain(shared, session, asked).await,
        Some(Asked::Config(asked)) => administration::config(shared, session, asked).await,
        Some(Asked::SetConfig(asked)) => administration::set_config(shared, session, asked).await,
        Some(Asked::Layout(asked)) => administration::layout(shared, session, &asked).await,
        Some(Asked::Plans(asked)) => administration::plans(shared, session, &asked).await,
        Some(Asked::Events(asked)) => administration::events(shared, session, &asked).await,
        Some(body) => {
            let request = wire::Request { body: Some(body) };
            let response = shared.views.answer(&session.actor(), request).await;
            response.body.ok_or_else(|| Refusal::new(Code::Internal, "the view had no answer"))
        }
        None => Err(Refusal::new(Code::BadRequest, "a request says what it wants")),
    }
}

/// How many of a group's members are there, on all nodes, and which of those named.
async fn presence(shared: &Shared, session: &Session, asked: &wire::GetPresence) -> Result<Answer, Refusal> {
    let group = GroupId::from_wire(&asked.group).map_err(bad_id)?;
    if asked.users.len() > presence::NAMED_MAX {
        let reason = format!("at most {} users in one request", presence::NAMED_MAX);
        return Err(Refusal::new(Code::TooMany, reason));
    }
    shared.groups.authorize(&session.actor(), group).await?;
    let mut named: Vec<_> = asked.users.iter().filter_map(|user| UserId::new(user).ok()).collect();
    let all = shared.presence.of(group, &named).await;
    named.retain(|user| all.users.contains(user));
    let users = named.iter().map(ToString::to_string).collect();
    Ok(Answer::Presence(wire::Presence { online: all.online(), users }))
}
