//! The streams of a session, as a node reads them: which frames belong where, what of them is
//! checked, and what a home makes of the publishes.

use bytes::Bytes;
use shoal_protocol::{
    Code, DeviceId, Follower, FrameBuffer, FrameError, GroupId, IdError, Incarnation, Outcome, SenderId,
    SenderNumbers, Seq, UserId, Verdict, frame, wire,
};

/// The bidirectional streams beside the control stream, which decide by their first frame what
/// they are.
const STREAMS: usize = 4;

/// Groups that publishes go to in one run; more are refused, as a node would.
const GROUPS_MAX: usize = 8;

/// Panics where a frame breaks more than its own stream, or a sender's numbers break a rule.
///
/// The input is cut into pieces of `[what, stream, length, bytes…]`, each one chunk of that stream:
/// the bytes as they are, or a frame made of them, so that a run gets deep soon.
pub fn run(input: &[u8]) {
    let mut session = Session::new();
    let mut rest = input;
    while let Some(([what, stream, length], after)) = rest.split_first_chunk() {
        let (bytes, after) = after.split_at(usize::from(*length).min(after.len()));
        let (stream, chunk) = match what % 4 {
            0 => (usize::from(*stream) % (STREAMS + 2), Bytes::copy_from_slice(bytes)),
            1 => (0, hello(bytes)),
            2 => (2 + usize::from(*stream) % STREAMS, open(bytes)),
            _ => (2 + usize::from(*stream) % STREAMS, publish(bytes)),
        };
        session.chunk(stream, chunk);
        rest = after;
    }
    session.check();
}

fn hello(bytes: &[u8]) -> Bytes {
    let token = String::from_utf8_lossy(bytes).into_owned();
    let hello = wire::Hello { token, device: 1, ..Default::default() };
    frame::encode(&wire::ToNode { body: Some(wire::to_node::Body::Hello(hello)) })
}

fn open(bytes: &[u8]) -> Bytes {
    use wire::{request, stream_open::Body};

    let group = Bytes::copy_from_slice(bytes);
    let body = match bytes.len() {
        0 => Body::Publish(wire::PublishOpen {}),
        _ => Body::Request(wire::Request { body: Some(request::Body::Group(wire::GetGroup { group })) }),
    };
    frame::encode(&wire::StreamOpen { body: Some(body) })
}

/// `[number, group, kind, payload…]`.
fn publish(bytes: &[u8]) -> Bytes {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let payload = Bytes::copy_from_slice(bytes.get(3..).unwrap_or_default());
    let message = wire::Message { kind: i32::from(byte(2)), payload, refers_to: 1, ..Default::default() };
    frame::encode(&wire::Publish {
        group: GroupId::from_random(u128::from(byte(1) % 3)).to_wire(),
        incarnation: 1,
        number: u64::from(byte(0)),
        message: Some(message),
    })
}

struct Session {
    control: Stream,
    streams: Vec<Stream>,
    user: Option<UserId>,
    senders: Vec<Sender>,
}

struct Stream {
    buffer: FrameBuffer,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control,
    Unopened,
    Publish,
    /// One request, and no frame after it.
    Request,
    Closed(Code),
}

/// One sender in one group, and all that a home has appended for it.
struct Sender {
    group: GroupId,
    incarnation: Incarnation,
    numbers: SenderNumbers,
    appended: Vec<u64>,
}

impl Session {
    fn new() -> Self {
        let stream = |kind, limit| Stream { buffer: FrameBuffer::new(limit), kind };
        Self {
            control: stream(Kind::Control, frame::HELLO_BYTES_MAX),
            streams: (0..STREAMS).map(|_| stream(Kind::Unopened, frame::FRAME_BYTES_MAX)).collect(),
            user: None,
            senders: Vec::new(),
        }
    }

    fn chunk(&mut self, at: usize, chunk: Bytes) {
        match at.checked_sub(2) {
            Some(at) => self.stream_chunk(at, chunk),
            None if at == 0 => self.control_chunk(chunk),
            // A datagram is one message, or is dropped.
            None => {
                drop(frame::decode::<wire::Signal>(chunk).map(|signal| GroupId::from_wire(&signal.group)))
            }
        }
    }

    fn control_chunk(&mut self, chunk: Bytes) {
        if let Kind::Closed(_) = self.control.kind {
            return;
        }
        self.control.buffer.push(chunk);
        loop {
            let read = self.control.buffer.next_message::<wire::ToNode>();
            let code = match read.map_err(|error| error.code()) {
                Ok(None) => return,
                Ok(Some(frame)) => self.control_frame(frame).err(),
                Err(code) => Some(code),
            };
            if let Some(code) = code {
                self.control.kind = Kind::Closed(code);
                return;
            }
        }
    }

    fn control_frame(&mut self, frame: wire::ToNode) -> Result<(), Code> {
        use wire::to_node::Body;

        match (frame.body.ok_or(Code::BadFrame)?, self.user.is_some()) {
            (Body::Hello(hello), false) => {
                // A token is not forged here: its first bytes stand for the user it would name.
                let name: String = hello.token.chars().take(8).collect();
                self.user = Some(UserId::new(name).map_err(|_| Code::TokenInvalid)?);
                self.control.buffer.set_limit(frame::FRAME_BYTES_MAX);
                let _ = DeviceId(hello.device).to_string();
                hello.follows.iter().try_for_each(follow)
            }
            (Body::Follow(request), true) => follow(&request),
            (Body::Heartbeat(beat), true) => beat.watermarks.iter().try_for_each(|watermark| {
                group(&watermark.group)?;
                Seq::new(watermark.watermark).map(drop).ok_or(Code::BadRequest)
            }),
            (Body::Unfollow(unfollow), true) => group(&unfollow.group).map(drop),
            (Body::Renew(_) | Body::Goodbye(_), true) => Ok(()),
            _ => Err(Code::BadFrame),
        }
    }

    fn stream_chunk(&mut self, at: usize, chunk: Bytes) {
        if let Kind::Closed(_) = self.streams[at].kind {
            return;
        }
        self.streams[at].buffer.push(chunk);
        loop {
            let body = match self.streams[at].buffer.next_frame() {
                Ok(Some(body)) => body,
                Ok(None) => return,
                Err(error) => return self.close(at, error.code()),
            };
            if let Err(code) = self.stream_frame(at, body) {
                return self.close(at, code);
            }
        }
    }

    fn stream_frame(&mut self, at: usize, body: Bytes) -> Result<(), Code> {
        let malformed = |error: FrameError| error.code();
        match self.streams[at].kind {
            Kind::Unopened => {
                let open: wire::StreamOpen = frame::decode(body).map_err(malformed)?;
                self.streams[at].kind = match open.body.ok_or(Code::BadFrame)? {
                    wire::stream_open::Body::Publish(_) => Kind::Publish,
                    wire::stream_open::Body::Request(request) => {
                        check_request(&request)?;
                        Kind::Request
                    }
                };
                Ok(())
            }
            Kind::Publish => self.publish(frame::decode(body).map_err(malformed)?),
            Kind::Request => Err(Code::BadFrame),
            Kind::Control | Kind::Closed(_) => unreachable!("neither reads publish or request frames"),
        }
    }

    fn publish(&mut self, publish: wire::Publish) -> Result<(), Code> {
        let user = self.user.clone().ok_or(Code::BadFrame)?;
        let group = group(&publish.group)?;
        let message = publish.message.ok_or(Code::BadRequest)?;
        let kind = message.kind();
        if kind != wire::message::Kind::New && Seq::new(message.refers_to).is_none() {
            return Err(Code::BadRequest);
        }
        let incarnation = Incarnation(publish.incarnation);
        let id = SenderId { user, device: DeviceId(1), incarnation };
        if let Some(sender) = self.sender(group, id.incarnation) {
            sender.take(publish.number, kind);
        }
        Ok(())
    }

    fn sender(&mut self, group: GroupId, incarnation: Incarnation) -> Option<&mut Sender> {
        let found = |sender: &Sender| sender.group == group && sender.incarnation == incarnation;
        if let Some(at) = self.senders.iter().position(found) {
            return self.senders.get_mut(at);
        }
        if self.senders.len() < GROUPS_MAX {
            let numbers = SenderNumbers::new();
            self.senders.push(Sender { group, incarnation, numbers, appended: Vec::new() });
            return self.senders.last_mut();
        }
        None
    }

    fn close(&mut self, at: usize, code: Code) {
        assert_eq!(Code::from_wire(code.number()), code);
        self.streams[at].kind = Kind::Closed(code);
    }

    /// What was appended is 1, 2, 3, … for each sender, and a client follows it without a gap.
    fn check(&self) {
        for sender in &self.senders {
            let last = sender.appended.len() as u64;
            assert!(sender.appended.iter().copied().eq(1..=last), "numbers have no hole and no double");
            assert_eq!(sender.numbers.last(), last);
            let mut follower = Follower::new(Seq::FIRST);
            let mut seq = Seq::FIRST;
            for _ in &sender.appended {
                assert_eq!(follower.accept(seq), shoal_protocol::Accept::Take);
                seq = seq.next();
            }
        }
    }
}

impl Sender {
    /// As a home does: the next one is appended (an edit stands for one that uses its number up
    /// without a record), any other changes nothing.
    fn take(&mut self, number: u64, kind: wire::message::Kind) {
        let before = self.numbers.clone();
        match self.numbers.judge(number) {
            Verdict::Next => {
                let outcome = match kind {
                    wire::message::Kind::Edit => Outcome::Refused(Code::UnknownRecord),
                    _ => Outcome::Committed { seq: Seq::FIRST.advance(self.numbers.last()) },
                };
                self.numbers.record(number, outcome);
                self.appended.push(number);
                assert_eq!(self.numbers.judge(number), Verdict::Had(outcome));
            }
            Verdict::Had(_) | Verdict::Forgotten => assert!(number <= before.last()),
            Verdict::TooHigh { expected } => assert_eq!(expected, before.last() + 1),
        }
        if number <= before.last() {
            self.numbers.record(number, Outcome::Refused(Code::Muted));
            assert_eq!(self.numbers, before, "an outcome never changes");
        }
    }
}

fn group(bytes: &[u8]) -> Result<GroupId, Code> {
    let group = GroupId::from_wire(bytes).map_err(|_: IdError| Code::BadRequest)?;
    assert_eq!(group.to_string().parse(), Ok(group));
    Ok(group)
}

fn follow(follow: &wire::Follow) -> Result<(), Code> {
    group(&follow.group)?;
    match follow.from.as_ref().ok_or(Code::BadRequest)? {
        wire::follow::From::Watermark(number) => Seq::new(*number).map(drop).ok_or(Code::BadRequest),
        wire::follow::From::Join(_) | wire::follow::From::Tail(_) => Ok(()),
    }
}

fn check_request(request: &wire::Request) -> Result<(), Code> {
    use wire::{change, request::Body};

    let users = |names: &[String]| names.iter().try_for_each(|name| user(name));
    match request.body.as_ref().ok_or(Code::BadFrame)? {
        Body::History(get) => group(&get.group).map(drop),
        Body::Members(get) => group(&get.group).map(drop),
        Body::Group(get) => group(&get.group).map(drop),
        Body::Presence(get) => group(&get.group).and_then(|_| users(&get.users)),
        Body::Read(read) => group(&read.group).map(drop),
        Body::Change(change) => {
            group(&change.group)?;
            match change.body.as_ref().ok_or(Code::BadRequest)? {
                change::Body::Create(create) => users(&create.members),
                change::Body::Add(add) => users(&add.users),
                change::Body::Remove(remove) => users(&remove.users),
                change::Body::Role(set) => user(&set.user),
                change::Body::Mute(mute) => user(&mute.user),
                change::Body::Ban(ban) => user(&ban.user),
                _ => Ok(()),
            }
        }
        Body::Layout(get) => group(&get.group).map(drop),
        Body::Plans(get) if !get.after.is_empty() => group(&get.after).map(drop),
        Body::Groups(_)
        | Body::Plans(_)
        | Body::Incarnation(_)
        | Body::Status(_)
        | Body::Cluster(_)
        | Body::Drain(_)
        | Body::Config(_)
        | Body::SetConfig(_)
        | Body::Events(_) => Ok(()),
    }
}

fn user(name: &str) -> Result<(), Code> {
    let user = UserId::new(name).map_err(|_| Code::BadRequest)?;
    assert!(GroupId::own(&user).is_own());
    Ok(())
}
