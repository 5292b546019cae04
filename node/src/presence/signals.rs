//! What may be lost, on its way to whoever follows: from a session to the others here and, through the
//! home, to those on other nodes. One copy goes to each node, and what comes from the home goes no further.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use shoal_protocol::{Code, GroupId, Refusal, UserId, wire};

use crate::{
    delivery::{Signal, Tail},
    ops::Metrics,
};

/// Whose datagram it is that another node sent, and in which group; none where it says something that
/// this version does not know.
///
/// # Errors
/// Where it is nonsense.
pub(crate) fn read(datagram: &Bytes) -> Result<Option<GroupId>, Refusal> {
    let bad = |reason: String| Refusal::new(Code::BadFrame, reason);
    let signal = wire::Signal::decode(datagram.clone()).map_err(|error| bad(error.to_string()))?;
    let group = GroupId::from_wire(&signal.group).map_err(|error| bad(error.to_string()))?;
    UserId::new(signal.user).map_err(|error| bad(error.to_string()))?;
    Ok(signal.what.is_some().then_some(group))
}

/// Who hears of what is passed on at a tail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Audience {
    /// The sessions here: what has come from the home, or goes there.
    Sessions,
    /// The other nodes too: this is the home's.
    Everybody,
}

/// Sends a datagram to those attached to a tail, except to whoever it came from; to nobody where more
/// sessions are here than `sessions_max`, which whoever sent it may not have known.
pub(crate) fn pass_on(
    tail: &Tail,
    datagram: &Bytes,
    from: Option<&Arc<Signal>>,
    to: Audience,
    sessions_max: usize,
    metrics: &Metrics,
) {
    if tail.sessions() > sessions_max {
        return metrics.datagrams_dropped.inc();
    }
    let is_other = |signal: &Arc<Signal>| from.is_none_or(|from| !Arc::ptr_eq(signal, from));
    let mut receivers = Vec::new();
    // They are gathered first, for sending takes locks that must not be waited for under the tail's.
    tail.for_each_attached(|signal| {
        if is_other(signal) && (signal.user().is_some() || matches!(to, Audience::Everybody)) {
            receivers.push(Arc::clone(signal));
        }
    });
    for receiver in receivers {
        let was_sent = receiver.send_datagram(datagram.clone());
        match (receiver.user(), was_sent) {
            (Some(_), _) => metrics.datagrams_forwarded.inc(),
            (None, true) => metrics.peer_datagrams_sent.inc(),
            (None, false) => metrics.peer_datagrams_dropped.inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(group: Bytes, user: &str) -> wire::Signal {
        let what = Some(wire::signal::What::Typing(wire::Typing { active: true }));
        wire::Signal { group, user: user.into(), what }
    }

    fn code(signal: &wire::Signal) -> Code {
        read(&signal.encode_to_vec().into()).unwrap_err().code
    }

    #[test]
    fn nonsense_is_told_from_what_a_later_version_says() {
        let group = GroupId::named("a");
        let good = signal(group.to_wire(), "ann");
        assert_eq!(read(&good.encode_to_vec().into()).unwrap(), Some(group));
        let later = wire::Signal { what: None, ..good };
        assert_eq!(read(&later.encode_to_vec().into()).unwrap(), None);
        assert_eq!(code(&signal(Bytes::from_static(b"short"), "ann")), Code::BadFrame);
        assert_eq!(code(&signal(group.to_wire(), "")), Code::BadFrame, "a node says whose it is");
        assert_eq!(read(&Bytes::from_static(&[0xff; 20])).unwrap_err().code, Code::BadFrame);
    }
}
