//! How it looks.

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, BorderType, Paragraph, Wrap},
};
use shoal_client::{State, wire};

use crate::{
    conversation::{Line as Shown, Pending, Said},
    session::Chat,
};

const COLORS: [Color; 6] =
    [Color::Cyan, Color::Magenta, Color::Yellow, Color::Blue, Color::LightGreen, Color::LightRed];
const MEMBERS_WIDTH: u16 = 24;
/// Narrower than this, the messages have all of it.
const WIDTH_FOR_MEMBERS: u16 = 70;

pub(crate) fn draw(frame: &mut Frame<'_>, chat: &Chat) {
    let rows = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(1), Constraint::Length(3)];
    let [head, body, typing, input] = Layout::vertical(rows).areas(frame.area());
    draw_head(frame, chat, head);
    if body.width >= WIDTH_FOR_MEMBERS {
        let columns = [Constraint::Min(20), Constraint::Length(MEMBERS_WIDTH)];
        let [messages, members] = Layout::horizontal(columns).areas(body);
        draw_messages(frame, chat, messages);
        draw_members(frame, chat, members);
    } else {
        draw_messages(frame, chat, body);
    }
    draw_typing(frame, chat, typing);
    draw_input(frame, chat, input);
}

fn draw_head(frame: &mut Frame<'_>, chat: &Chat, area: Rect) {
    let count = chat.conversation.members.len();
    let left = Line::from(vec![
        Span::from(format!(" {} ", chat.name)).bold().black().on_cyan(),
        Span::from(format!(" {}  ", chat.conversation.title)).bold(),
        Span::from(format!("{count} members, {} online", chat.online.len())).dim(),
    ]);
    frame.render_widget(left, area);
    frame.render_widget(state(chat).alignment(Alignment::Right), area);
}

fn state(chat: &Chat) -> Line<'static> {
    let (dot, text) = match &chat.state {
        State::Online { node } if chat.round_trip_us > 0 => {
            let ms = chat.round_trip_us as f64 / 1000.0;
            ("●".green(), format!(" {node}  {ms:.1} ms "))
        }
        State::Online { node } => ("●".green(), format!(" {node} ")),
        State::Degraded { node, since } => {
            ("●".yellow(), format!(" {node} has not answered for {} s ", since.elapsed().as_secs()))
        }
        State::Connecting => ("◌".yellow(), " connecting ".to_owned()),
        State::Reconnecting { since, why, attempt } => {
            let text =
                format!(" reconnecting for {} s, {attempt} attempts: {why} ", since.elapsed().as_secs());
            ("◌".yellow(), text)
        }
        State::Closed { why } => ("■".red(), format!(" {why} ")),
        _ => ("?".dim(), String::new()),
    };
    Line::from(vec![dot, Span::from(text).dim()])
}

fn draw_messages(frame: &mut Frame<'_>, chat: &Chat, area: Rect) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for shown in chat.conversation.lines() {
        match shown {
            Shown::Message(said) => lines.extend(message(&said, &chat.user)),
            Shown::Event { time_ms, text } => {
                lines.push(Line::from(format!("{}  · {text}", time(time_ms))).dim().italic());
            }
            Shown::Unread(count) => {
                lines.push(Line::from(format!("───── {count} new ─────")).red().centered());
            }
        }
    }
    lines.extend(chat.conversation.pending.iter().map(|own| pending(own, &chat.user)));
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().dim());
    let inner = block.inner(area);
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false });
    let beyond = paragraph.line_count(inner.width).saturating_sub(usize::from(inner.height));
    let top = beyond.saturating_sub(chat.scroll);
    let title = if top < beyond { format!(" {} lines below, Esc ", beyond - top) } else { String::new() };
    frame.render_widget(block.title_bottom(Line::from(title).right_aligned().yellow()), area);
    frame.render_widget(paragraph.scroll((u16::try_from(top).unwrap_or(u16::MAX), 0)), inner);
}

fn message(said: &Said, own: &str) -> Vec<Line<'static>> {
    let mut spans = vec![Span::from(format!("{}  ", time(said.time_ms))).dim(), name(&said.user)];
    if said.is_recalled {
        spans.push("message recalled".dim().italic());
        return vec![Line::from(spans)];
    }
    spans.push(Span::from(said.text.clone()));
    if said.is_edited {
        spans.push(" (edited)".dim());
    }
    if said.user == own {
        spans.push(" ✓".green());
    }
    let mut lines = vec![Line::from(spans)];
    if !said.reactions.is_empty() {
        let told: Vec<_> = said.reactions.iter().map(|(text, count)| format!("[{text} {count}]")).collect();
        lines.push(Line::from(format!("         {}", told.join(" "))).yellow());
    }
    lines
}

fn pending(own: &Pending, user: &str) -> Line<'static> {
    let (mark, text) = match &own.outcome {
        None => ("…".yellow(), Span::from(own.text.clone()).dim()),
        Some(Ok(_)) => ("✓".green(), Span::from(own.text.clone())),
        Some(Err(why)) => ("✗".red(), Span::from(format!("{}  ({why})", own.text)).red()),
    };
    Line::from(vec!["       ".into(), name(user), text, " ".into(), mark])
}

fn draw_members(frame: &mut Frame<'_>, chat: &Chat, area: Rect) {
    let mut lines: Vec<Line<'_>> = Vec::new();
    let is_online = |user: &String| chat.online.contains(user);
    let (here, away): (Vec<_>, Vec<_>) =
        chat.conversation.members.iter().partition(|(user, _)| is_online(user));
    for (user, role) in here.into_iter().chain(away) {
        let dot = if is_online(user) { "● ".green() } else { "○ ".dim() };
        let role = match role {
            wire::Role::Owner => " owner",
            wire::Role::Admin => " admin",
            _ => "",
        };
        lines.push(Line::from(vec![dot, Span::from(user.clone()).fg(color(user)), role.dim()]));
    }
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().dim());
    frame.render_widget(Paragraph::new(lines).block(block.title(" members ")), area);
}

fn draw_typing(frame: &mut Frame<'_>, chat: &Chat, area: Rect) {
    let names: Vec<_> = chat.typing.keys().map(String::as_str).collect();
    let text = match names.as_slice() {
        [] => format!(" {}", chat.hint),
        [one] => format!(" {one} is typing…"),
        [one, other] => format!(" {one} and {other} are typing…"),
        many => format!(" {} people are typing…", many.len()),
    };
    frame.render_widget(Line::from(text).dim().italic(), area);
}

fn draw_input(frame: &mut Frame<'_>, chat: &Chat, area: Rect) {
    let color = if chat.state.is_online() { Color::Cyan } else { Color::Yellow };
    let block = Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().fg(color));
    let inner = block.inner(area);
    let line = Line::from(vec![name(&chat.user), Span::from(chat.input.clone())]);
    let width = u16::try_from(line.width()).unwrap_or(u16::MAX);
    // The end of a long line is what is being written.
    let beyond = width.saturating_sub(inner.width.saturating_sub(1));
    frame.render_widget(Paragraph::new(line).scroll((0, beyond)).block(block), area);
    frame.set_cursor_position((inner.x + width - beyond, inner.y));
}

fn name(user: &str) -> Span<'static> {
    Span::from(format!("{user}  ")).fg(color(user)).bold()
}

fn color(user: &str) -> Color {
    let sum = user.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    COLORS[sum % COLORS.len()]
}

/// Local time of day.
fn time(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or_default();
    let time = Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(TimeZone::system());
    format!("{:02}:{:02}", time.hour(), time.minute())
}
