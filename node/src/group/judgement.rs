//! What passes from a sub-group's owner to the home, in one process or over a peer link.

use shoal_protocol::{Code, Refusal, SenderId, Seq, wire};

/// A message with its sender's number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbered {
    /// Who sends.
    pub(crate) sender: SenderId,
    /// The sender's number in this group.
    pub(crate) number: u64,
    /// What.
    pub(crate) message: wire::Message,
}

/// What the owner of a sender's slot thinks of a message. Only the home answers: it may have
/// committed this number long ago.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// None: may be appended.
    pub objection: Option<Refusal>,
    /// The owner had folded everything below when it judged.
    pub as_of: Seq,
}

/// A message as its owner sees it.
#[derive(Debug)]
pub(crate) struct Judged<R> {
    /// The message.
    pub(crate) publish: Numbered,
    /// What the owner thinks.
    pub(crate) opinion: Opinion,
    /// Where the receipt goes.
    pub(crate) reply: R,
}

/// Does a refusal with this code use up the sender's number, as its recorded outcome?
///
/// What will pass with time does not: the client sends the same again, and what it had sent
/// behind waits its turn. What concerns somebody who is not (or no longer) a member does not
/// either: strangers leave no rows behind.
#[must_use]
pub(crate) fn uses_up_number(code: Code) -> bool {
    matches!(
        code,
        Code::Muted
            | Code::NotAllowed
            | Code::GroupClosed
            | Code::UnknownRecord
            | Code::PayloadTooLarge
            | Code::BadRequest
    )
}
