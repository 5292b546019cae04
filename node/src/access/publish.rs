//! A publish stream: messages in, receipts out, as many unanswered as the limit allows.

use bytes::BytesMut;
use quinn::SendStream;
use shoal_protocol::{Code, GroupId, Incarnation, Refusal, SenderId, frame, wire};
use tokio::{
    sync::mpsc::{self, OwnedPermit, error::SendError},
    time::{Instant, sleep_until},
};

use super::{
    Shared, follows::bad_id, registry::Registered, session::Session, stream::Incoming, violation::Violation,
};
use crate::group::{Publish, ReceiptTo};
use wire::receipt::Outcome;

/// Receipts go before what is delivered.
const PRIORITY: i32 = 1;

/// Receipts in one write.
const RECEIPTS_MAX: usize = 64;

/// Where receipts come back to. An idle stream has none, for its memory is better used.
struct Receipts {
    sender: mpsc::Sender<wire::Receipt>,
    receiver: mpsc::Receiver<wire::Receipt>,
}

impl Receipts {
    fn new(unanswered_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel(unanswered_max.max(1));
        Self { sender, receiver }
    }

    /// Every message that was sent on has been answered.
    fn is_quiet(&self) -> bool {
        self.sender.capacity() == self.sender.max_capacity()
    }
}

/// A message that waits for its turn.
struct Parked {
    publish: wire::Publish,
    /// Not before: the session was too fast.
    until: Option<Instant>,
}

/// What a publish stream waits for.
enum Event {
    Receipt(wire::Receipt),
    Permit(Result<OwnedPermit<wire::Receipt>, SendError<()>>),
    Due,
    Read(bool),
}

/// Serves until the client has finished its half and has every receipt.
pub(super) async fn serve(
    shared: &Shared,
    session: &Session,
    send: &mut SendStream,
    incoming: &mut Incoming,
) -> Result<(), Violation> {
    // Fails only where the stream has ended already, and then the first write says so.
    let _ = send.set_priority(PRIORITY);
    let mut publisher = Publisher { shared, session, receipts: None, parked: None, is_finished: false };
    loop {
        publisher.take_messages(incoming)?;
        if publisher.is_done() {
            // Fails only where the stream has ended already.
            let _ = send.finish();
            return Ok(());
        }
        match publisher.next(incoming).await? {
            Event::Receipt(receipt) => publisher.write_receipts(receipt, send).await?,
            Event::Permit(Ok(permit)) => publisher.send_parked(permit)?,
            Event::Permit(Err(_)) => unreachable!("the receiver is ours"),
            Event::Due => publisher.unpark()?,
            Event::Read(has_more) => publisher.is_finished = !has_more,
        }
    }
}

struct Publisher<'session> {
    shared: &'session Shared,
    session: &'session Session,
    receipts: Option<Receipts>,
    parked: Option<Parked>,
    /// The client sends no more.
    is_finished: bool,
}

impl Publisher<'_> {
    fn is_done(&self) -> bool {
        self.is_finished && self.parked.is_none() && self.receipts.is_none()
    }

    /// Sends on what has come, in its order, as far as the pace and the unanswered ones allow.
    fn take_messages(&mut self, incoming: &mut Incoming) -> Result<(), Violation> {
        while self.parked.is_none() {
            let Some(publish) = incoming.buffered()? else { break };
            let until = self.session.publish_pace.check().err();
            self.parked = Some(Parked { publish, until });
            if until.is_none() {
                self.try_send_parked()?;
            }
        }
        if self.parked.is_none() && self.receipts.as_ref().is_some_and(Receipts::is_quiet) {
            self.receipts = None;
        }
        Ok(())
    }

    /// Waits for whatever can go on.
    async fn next(&mut self, incoming: &mut Incoming) -> Result<Event, Violation> {
        let due = self.parked.as_ref().and_then(|parked| parked.until);
        let may_read = self.parked.is_none() && !self.is_finished;
        let wants_permit = self.parked.is_some() && due.is_none();
        let sender = self.receipts.as_ref().filter(|_| wants_permit).map(|receipts| receipts.sender.clone());
        let receiver = self.receipts.as_mut().map(|receipts| &mut receipts.receiver);
        tokio::select! {
            biased;
            Some(receipt) = recv(receiver) => Ok(Event::Receipt(receipt)),
            permit = reserve(sender), if wants_permit => Ok(Event::Permit(permit)),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Ok(Event::Due),
            read = incoming.read(), if may_read => read.map(Event::Read),
        }
    }

    /// The parked message's time has come, unless another stream was quicker.
    fn unpark(&mut self) -> Result<(), Violation> {
        let Some(parked) = &mut self.parked else { return Ok(()) };
        parked.until = self.session.publish_pace.check().err();
        if parked.until.is_none() { self.try_send_parked() } else { Ok(()) }
    }

    fn try_send_parked(&mut self) -> Result<(), Violation> {
        let unanswered_max = self.shared.limits.load().publishes_unanswered_max;
        let receipts = self.receipts.get_or_insert_with(|| Receipts::new(unanswered_max));
        match receipts.sender.clone().try_reserve_owned() {
            Ok(permit) => self.send_parked(permit),
            Err(_) => Ok(()),
        }
    }

    fn send_parked(&mut self, receipt: OwnedPermit<wire::Receipt>) -> Result<(), Violation> {
        let Some(Parked { publish, .. }) = self.parked.take() else { return Ok(()) };
        let group = GroupId::from_wire(&publish.group).map_err(bad_id)?;
        let Some(message) = publish.message else {
            return Err(Refusal::new(Code::BadRequest, "a publish without a message").into());
        };
        let sender = SenderId {
            user: self.session.user().clone(),
            device: self.session.device(),
            incarnation: Incarnation(publish.incarnation),
        };
        self.shared.groups.publish(Publish {
            group,
            sender,
            number: publish.number,
            message,
            receipt: ReceiptTo::Session(receipt),
            arrived: Instant::now(),
        });
        Ok(())
    }

    /// Writes a receipt and those that are there with it.
    async fn write_receipts(&mut self, first: wire::Receipt, send: &mut SendStream) -> Result<(), Violation> {
        let mut out = BytesMut::new();
        let mut put = |receipt: wire::Receipt| {
            frame::encode_into(&receipt, &mut out);
            if let Some(Outcome::Refused(refused)) = receipt.outcome {
                self.session.has_been(Incarnation(refused.succeeded_by));
            }
        };
        put(first);
        if let Some(receipts) = &mut self.receipts {
            for _ in 1..RECEIPTS_MAX {
                let Ok(receipt) = receipts.receiver.try_recv() else { break };
                put(receipt);
            }
        }
        Ok(send.write_chunk(out.freeze()).await?)
    }
}

async fn recv(receiver: Option<&mut mpsc::Receiver<wire::Receipt>>) -> Option<wire::Receipt> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => None,
    }
}

async fn reserve(
    sender: Option<mpsc::Sender<wire::Receipt>>,
) -> Result<OwnedPermit<wire::Receipt>, SendError<()>> {
    match sender {
        Some(sender) => sender.reserve_owned().await,
        None => std::future::pending().await,
    }
}
