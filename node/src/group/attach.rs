//! Where a session's cursor begins.

use std::sync::Arc;

use shoal_protocol::{Code, Refusal, Seq};

use super::{Follow, Followed, From};
use crate::delivery::Tail;

/// Attaches a cursor of a user who joined at `joined`.
pub(super) fn attach(tail: &Arc<Tail>, follow: Follow, joined: Option<Seq>) -> Result<Followed, Refusal> {
    let joined = joined.ok_or_else(|| Refusal::new(Code::NotMember, "you are not a member of this group"))?;
    let at = tail.tail();
    let from = match follow.from {
        From::Watermark(watermark) if watermark > at => {
            tracing::error!(
                group = %follow.group, user = ?follow.signal.user(), %watermark, tail = %at,
                "a client has seen more of this group than there is"
            );
            let reason = format!("your watermark is {watermark}, the tail is {at}");
            return Err(Refusal::new(Code::WatermarkAhead, reason));
        }
        From::Watermark(watermark) => watermark.max(joined),
        From::Join => joined,
        From::Tail => at,
    };
    let attachment = tail.attach(follow.signal, follow.cursor, from);
    Ok(Followed { tail: tail.clone(), attachment, from, at })
}
