//! Commands that change a group.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shoal_node::clock::milliseconds;
use shoal_protocol::{UserId, wire};
use wire::change::Body;

use super::{Named, Role};
use crate::cli::{connection::Connection, now_ms, output::Output};

/// Users in one request; each request is one record.
const USERS_AT_ONCE: usize = 2_000;

/// What a command brought about.
#[derive(Debug, Serialize)]
struct Done {
    group: String,
    /// The record of the change, or of the one that had brought it about before; 0 where that is not known.
    seq: u64,
    /// Members it changed.
    changed: u64,
}

pub(super) async fn create(
    connection: &Connection,
    group: &Named,
    settings: wire::Settings,
    members: &[UserId],
    output: Output,
) -> anyhow::Result<()> {
    let id = group.id()?;
    let (first, rest) = members.split_at(members.len().min(USERS_AT_ONCE));
    let body = Body::Create(wire::Create { settings: Some(settings), members: names(first) });
    let mut done = done(group, connection.change(id, body).await?)?;
    if !rest.is_empty() {
        done.changed += in_steps(connection, group, rest, add_step).await?.changed;
    }
    output
        .show(&done, |done| match done.changed {
            0 => format!(
                "{} was there already, with id {id}: its title and its members are as they were. To add members: \
                 shoal group add",
                group.group
            ),
            _ => format!("{} is there, with id {id}", group.group),
        })
        .context("output")
}

pub(super) async fn add(
    connection: &Connection,
    group: &Named,
    users: &[UserId],
    output: Output,
) -> anyhow::Result<()> {
    let done = in_steps(connection, group, users, add_step).await?;
    output.show(&done, |done| format!("{} added to {}", members(done.changed), group.group)).context("output")
}

pub(super) async fn remove(
    connection: &Connection,
    group: &Named,
    users: &[UserId],
    output: Output,
) -> anyhow::Result<()> {
    let done = in_steps(connection, group, users, |users| Body::Remove(wire::Remove { users })).await?;
    output
        .show(&done, |done| format!("{} removed from {}", members(done.changed), group.group))
        .context("output")
}

pub(super) async fn role(
    connection: &Connection,
    group: &Named,
    user: &UserId,
    role: Role,
    output: Output,
) -> anyhow::Result<()> {
    let (name, role) = match role {
        Role::Member => ("a member", wire::Role::Member),
        Role::Admin => ("an admin", wire::Role::Admin),
        Role::Owner => ("the owner", wire::Role::Owner),
    };
    let body = Body::Role(wire::SetRole { user: user.to_string(), role: role.into() });
    one(connection, group, body, output, format!("{user} is {name} of {}", group.group)).await
}

pub(super) async fn mute(
    connection: &Connection,
    group: &Named,
    user: &UserId,
    time: Option<Duration>,
    lift: bool,
    output: Output,
) -> anyhow::Result<()> {
    let (until_ms, said) = match time {
        _ if lift => (0, format!("{user} may send to {} again", group.group)),
        None => (u64::MAX, format!("{user} is muted in {}", group.group)),
        Some(time) => {
            let time_ms = milliseconds(time);
            let said = format!("{user} is muted in {} for {}", group.group, humantime::format_duration(time));
            (now_ms().saturating_add(time_ms), said)
        }
    };
    let body = Body::Mute(wire::Mute { user: user.to_string(), until_ms });
    one(connection, group, body, output, said).await
}

pub(super) async fn ban(
    connection: &Connection,
    group: &Named,
    user: &UserId,
    banned: bool,
    output: Output,
) -> anyhow::Result<()> {
    let said = if banned { "is banned from" } else { "may come back to" };
    let body = Body::Ban(wire::Ban { user: user.to_string(), banned });
    one(connection, group, body, output, format!("{user} {said} {}", group.group)).await
}

pub(super) async fn rename(
    connection: &Connection,
    group: &Named,
    title: String,
    output: Output,
) -> anyhow::Result<()> {
    let settings = connection.group(group.id()?).await?.settings.unwrap_or_default();
    let said = format!("{} is called {title:?}", group.group);
    one(connection, group, Body::Settings(wire::Settings { title, ..settings }), output, said).await
}

pub(super) async fn close(
    connection: &Connection,
    group: &Named,
    yes: bool,
    output: Output,
) -> anyhow::Result<()> {
    if !yes {
        let found = connection.group(group.id()?).await?;
        let title = found.settings.map(|settings| settings.title).unwrap_or_default();
        eprint!("Close {} ({title:?}, {}) for good? [y/N] ", group.group, members(found.members));
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        anyhow::ensure!(answer.trim().eq_ignore_ascii_case("y"), "not closed");
    }
    one(connection, group, Body::Close(wire::Closed {}), output, format!("{} is closed", group.group)).await
}

pub(super) async fn one(
    connection: &Connection,
    group: &Named,
    body: Body,
    output: Output,
    said: String,
) -> anyhow::Result<()> {
    let done = done(group, connection.change(group.id()?, body).await?)?;
    output.show(&done, |_| said).context("output")
}

/// Many users, some thousands at a time; each step is one record, and can be repeated.
async fn in_steps(
    connection: &Connection,
    group: &Named,
    users: &[UserId],
    step: impl Fn(Vec<String>) -> Body,
) -> anyhow::Result<Done> {
    let progress = progress(users.len());
    let mut total = Done { group: group.id()?.to_string(), seq: 0, changed: 0 };
    for some in users.chunks(USERS_AT_ONCE) {
        let changed = connection.change(group.id()?, step(names(some))).await;
        let changed = changed.map_err(|error| after(error, progress.position(), users.len()))?;
        (total.seq, total.changed) = (changed.seq.max(total.seq), total.changed + u64::from(changed.changed));
        progress.inc(some.len() as u64);
    }
    progress.finish_and_clear();
    Ok(total)
}

/// Whoever had some steps done already is told that the rest can be done by the same command.
fn after(error: anyhow::Error, done: u64, users: usize) -> anyhow::Error {
    if done == 0 {
        return error;
    }
    error.context(format!("after {done} of {users} users; the same command again does the rest"))
}

fn add_step(users: Vec<String>) -> Body {
    Body::Add(wire::Add { users })
}

/// A bar where somebody waits and sees it.
fn progress(users: usize) -> ProgressBar {
    if users <= USERS_AT_ONCE || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30.cyan} {pos}/{len} users  {eta} left")
        .expect("the template is one")
        .progress_chars("━╸─");
    ProgressBar::new(users as u64).with_style(style)
}

fn done(group: &Named, changed: wire::Changed) -> anyhow::Result<Done> {
    Ok(Done { group: group.id()?.to_string(), seq: changed.seq, changed: changed.changed.into() })
}

fn members(count: u64) -> String {
    if count == 1 { "1 member".into() } else { format!("{count} members") }
}

fn names(users: &[UserId]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}
