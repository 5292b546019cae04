//! The chat itself: keys, records, receipts, signals and states, one event after the other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use shoal_client::{
    Client, Delivered, Follow, GroupId, Message, Seq, Signal, SignalKind, Start, State, UserId, wire,
};
use tokio::sync::{mpsc, watch};

use crate::{
    conversation::{Conversation, parse},
    screen,
    setup::Access,
};

/// The most members that are shown.
const MEMBERS_SHOWN: u32 = 500;
const PAGE: u32 = 100;
const TYPING_SHOWN: Duration = Duration::from_secs(5);
const TYPING_TOLD_EACH: Duration = Duration::from_secs(3);
const PRESENCE_EACH: Duration = Duration::from_secs(10);
const READ_EACH: Duration = Duration::from_secs(2);

/// What happens besides what the client delivers.
enum Event {
    Key(KeyEvent),
    Redraw,
    Receipt(u64, Result<Seq, String>),
    Older(Vec<wire::Record>),
    Members(Vec<wire::Member>),
    Online(Vec<String>),
}

/// All that the screen shows.
pub(crate) struct Chat {
    pub(crate) conversation: Conversation,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) state: State,
    pub(crate) round_trip_us: u64,
    pub(crate) typing: BTreeMap<String, Instant>,
    pub(crate) online: Vec<String>,
    /// Of whom it is asked whether they are online.
    members: watch::Sender<Vec<UserId>>,
    pub(crate) input: String,
    pub(crate) hint: String,
    /// Lines that the view is above the end.
    pub(crate) scroll: usize,
    client: Client,
    group: GroupId,
    events: mpsc::Sender<Event>,
    sent: u64,
    is_loading: bool,
    typing_told: Option<Instant>,
    watermark: u64,
    read: (u64, Option<Instant>),
}

/// Runs until the user or the client ends it.
pub(crate) async fn run(client: &Client, group: GroupId, access: &Access) -> anyhow::Result<()> {
    let (events, mut happened) = mpsc::channel(64);
    let mut chat = Chat::new(client, group, access, events.clone());
    let mut records = chat.begin().await?;
    read_keys(events.clone());
    watch_presence(client.clone(), group, chat.members.subscribe(), events);
    let (mut signals, mut states) = (client.signals(), client.state());
    let mut terminal = ratatui::init();
    let ended = loop {
        chat.look();
        if let Err(error) = terminal.draw(|frame| screen::draw(frame, &chat)) {
            break Err(error.into());
        }
        tokio::select! {
            biased;
            Some(event) = happened.recv() => {
                if !chat.handle(event).await {
                    break Ok(());
                }
            }
            Ok(()) = states.changed() => chat.state = states.borrow_and_update().clone(),
            Some(signal) = signals.next() => chat.signalled(signal),
            delivered = records.next() => match delivered {
                Some(Ok(delivered)) => chat.deliver(delivered),
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(()),
            },
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    };
    ratatui::restore();
    ended
}

impl Chat {
    fn new(client: &Client, group: GroupId, access: &Access, events: mpsc::Sender<Event>) -> Self {
        Self {
            conversation: Conversation::default(),
            name: access.group.clone(),
            user: access.user.to_string(),
            state: client.state().borrow().clone(),
            round_trip_us: 0,
            typing: BTreeMap::new(),
            online: Vec::new(),
            members: watch::Sender::default(),
            input: String::new(),
            hint: "/edit TEXT   /recall   /react TEXT   PageUp: earlier   Ctrl-C: leave".to_owned(),
            scroll: 0,
            client: client.clone(),
            group,
            events,
            sent: 0,
            is_loading: false,
            typing_told: None,
            watermark: 0,
            read: (0, None),
        }
    }

    /// The group as it is, its latest records, and everything that comes after them.
    async fn begin(&mut self) -> anyhow::Result<Follow> {
        let info = self.client.group(self.group).await?;
        self.conversation.title = info.settings.unwrap_or_default().title;
        self.conversation.unread_from = (info.unread > 0).then_some(info.read.max(1));
        let members = self.client.members(self.group, None, MEMBERS_SHOWN).await?.members;
        self.show_members(members);
        let history = self.client.history(self.group, None, PAGE, true).await?;
        history.records.into_iter().for_each(|record| self.conversation.insert(record));
        for (group, message, sending) in self.client.restored() {
            if group == self.group {
                self.wait_for(sending, &text(&message));
            }
        }
        self.watermark = history.tail;
        let tail = Seq::new(history.tail).unwrap_or(Seq::FIRST);
        Ok(self.client.follow(self.group, Start::Watermark(tail)).await?)
    }

    fn deliver(&mut self, delivered: Delivered) {
        match delivered {
            Delivered::Record(record) => {
                self.watermark = record.seq + 1;
                if let Some(author) = &record.author {
                    self.typing.remove(&author.user);
                }
                self.conversation.take(record);
                self.ask_for_members();
            }
            Delivered::GroupChanged { to, .. } => {
                self.watermark = to.get();
                self.load_members();
            }
            _ => {}
        }
    }

    fn show_members(&mut self, members: Vec<wire::Member>) {
        self.conversation.members =
            members.into_iter().map(|member| (member.user.clone(), member.role())).collect();
        self.ask_for_members();
    }

    /// Whether they are online is asked of those who are members now, the first hundred.
    fn ask_for_members(&self) {
        let users = self.conversation.members.keys().filter_map(|user| user.parse().ok());
        self.members.send_replace(users.take(100).collect());
    }

    fn signalled(&mut self, signal: Signal) {
        if signal.group != self.group {
            return;
        }
        match signal.what {
            SignalKind::Typing(true) => {
                self.typing.insert(signal.user.to_string(), Instant::now() + TYPING_SHOWN);
            }
            SignalKind::Typing(false) => {
                self.typing.remove(signal.user.as_str());
            }
            _ => {}
        }
    }

    /// What time brings: typing that ended, a read position to tell.
    fn look(&mut self) {
        let now = Instant::now();
        self.typing.retain(|_, until| *until > now);
        self.round_trip_us = self.client.stats().round_trip_us;
        let (read, told) = self.read;
        if read < self.watermark && self.scroll == 0 && told.is_none_or(|told| now - told > READ_EACH) {
            self.read = (self.watermark, Some(now));
            if let Some(watermark) = Seq::new(self.watermark) {
                let (client, group) = (self.client.clone(), self.group);
                tokio::spawn(async move { client.set_read(group, watermark).await });
            }
        }
    }

    /// Whether the chat goes on.
    async fn handle(&mut self, event: Event) -> bool {
        match event {
            Event::Key(key) => return self.key(key).await,
            Event::Redraw => {}
            Event::Receipt(id, outcome) => self.conversation.settled(id, outcome.map(Seq::get)),
            Event::Older(records) => {
                self.is_loading = false;
                records.into_iter().for_each(|record| self.conversation.insert(record));
            }
            Event::Members(members) => self.show_members(members),
            Event::Online(online) => self.online = online,
        }
        true
    }

    async fn key(&mut self, key: KeyEvent) -> bool {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return false,
            KeyCode::Char('u') if is_control => self.input.clear(),
            KeyCode::Char('w') if is_control => {
                let kept = self.input.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.input.truncate(kept);
            }
            KeyCode::Char(c) => {
                self.input.push(c);
                self.tell_typing();
            }
            KeyCode::Backspace => {
                self.input.pop();
            }
            KeyCode::Esc | KeyCode::End => self.scroll = 0,
            KeyCode::Up => self.scroll += 1,
            KeyCode::Down => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageUp => {
                self.scroll += 10;
                self.load_older();
            }
            KeyCode::PageDown => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Enter => return self.enter().await,
            _ => {}
        }
        true
    }

    async fn enter(&mut self) -> bool {
        let typed = std::mem::take(&mut self.input);
        if typed.trim() == "/quit" {
            return false;
        }
        if typed.trim().is_empty() {
            return true;
        }
        match parse(&self.conversation, &self.user, &typed) {
            Ok(message) => match self.client.send(self.group, message).await {
                Ok(sending) => self.wait_for(sending, &typed),
                Err(error) => self.hint = error.to_string(),
            },
            Err(hint) => self.hint = hint.to_owned(),
        }
        self.typing_told = None;
        self.client.signal(self.group, SignalKind::Typing(false));
        (self.scroll, self.conversation.unread_from) = (0, None);
        true
    }

    fn wait_for(&mut self, sending: shoal_client::Sending, text: &str) {
        self.sent += 1;
        self.conversation.queued(self.sent, text);
        let (id, events) = (self.sent, self.events.clone());
        tokio::spawn(async move {
            let outcome = sending.await.map_err(|error| error.to_string());
            let _ = events.send(Event::Receipt(id, outcome)).await;
        });
    }

    fn tell_typing(&mut self) {
        let now = Instant::now();
        if self.typing_told.is_none_or(|told| now - told > TYPING_TOLD_EACH) {
            self.typing_told = Some(now);
            self.client.signal(self.group, SignalKind::Typing(true));
        }
    }

    fn load_members(&self) {
        let (client, group, events) = (self.client.clone(), self.group, self.events.clone());
        tokio::spawn(async move {
            if let Ok(page) = client.members(group, None, MEMBERS_SHOWN).await {
                let _ = events.send(Event::Members(page.members)).await;
            }
        });
    }

    fn load_older(&mut self) {
        let first = self.conversation.first().and_then(Seq::new);
        if self.is_loading || first == Some(Seq::FIRST) {
            return;
        }
        self.is_loading = true;
        let (client, group, events) = (self.client.clone(), self.group, self.events.clone());
        tokio::spawn(async move {
            let records = client.history(group, first, PAGE, true).await.map(|history| history.records);
            let _ = events.send(Event::Older(records.unwrap_or_default())).await;
        });
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// The terminal is read by a thread of its own, which ends with the program.
fn read_keys(events: mpsc::Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(input) = event::read() {
            let event = match input {
                Input::Key(key) if key.kind != KeyEventKind::Release => Event::Key(key),
                _ => Event::Redraw,
            };
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    });
}

fn watch_presence(
    client: Client,
    group: GroupId,
    members: watch::Receiver<Vec<UserId>>,
    events: mpsc::Sender<Event>,
) {
    tokio::spawn(async move {
        loop {
            let asked = members.borrow().clone();
            if let Ok(presence) = client.presence(group, &asked).await
                && events.send(Event::Online(presence.users)).await.is_err()
            {
                return;
            }
            tokio::time::sleep(PRESENCE_EACH).await;
        }
    });
}
