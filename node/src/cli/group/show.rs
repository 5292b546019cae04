//! Commands that show groups and members.

use anyhow::Context;
use serde::Serialize;
use shoal_protocol::{GroupId, UserId, wire};

use super::Named;
use crate::cli::{
    connection::Connection,
    now_ms,
    output::{Output, table},
    plan::Layout,
};

#[derive(Debug, Serialize)]
struct Group {
    group: String,
    title: String,
    members: u64,
    sub_groups: u32,
    layout_version: u64,
    /// The first place not yet written.
    tail: u64,
    open: bool,
    history_before_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    members_max: Option<u64>,
    closed: bool,
    created_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    me: Option<Member>,
    read: u64,
    unread: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
}

#[derive(Debug, Serialize)]
struct Member {
    user: String,
    role: &'static str,
    joined_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until_ms: Option<u64>,
    banned: bool,
}

pub(super) async fn group(connection: &Connection, group: &Named, output: Output) -> anyhow::Result<()> {
    let mut found = Group::from(connection.group(group.id()?).await?);
    // Who is no administrator sees the group as its members do.
    found.layout = connection.layout(group.id()?).await.ok().map(Layout::from);
    output.show(&found, text).context("output")
}

pub(super) async fn groups(
    connection: &Connection,
    user: Option<&UserId>,
    output: Output,
) -> anyhow::Result<()> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = connection.groups(user, after).await?;
        found.extend(page.groups.into_iter().map(Group::from));
        if page.next.is_empty() {
            break;
        }
        after = Some(GroupId::from_wire(&page.next)?);
    }
    output.show(&found, |found| groups_table(found)).context("output")
}

pub(super) async fn members(
    connection: &Connection,
    group: &Named,
    limit: Option<usize>,
    output: Output,
) -> anyhow::Result<()> {
    let (mut found, mut after) = (Vec::new(), None);
    let limit = limit.unwrap_or(usize::MAX);
    loop {
        let page = connection.members(group.id()?, after, limit - found.len()).await?;
        found.extend(page.members.into_iter().map(Member::from));
        after = page.next;
        if after.is_none() || found.len() >= limit {
            break;
        }
    }
    found.truncate(limit);
    output.show(&found, |found| members_table(found)).context("output")
}

fn text(group: &Group) -> String {
    let mut lines = vec![
        ("id", group.group.clone()),
        ("title", group.title.clone()),
        ("members", group.members.to_string()),
        ("sub-groups", format!("{} (layout {})", group.sub_groups, group.layout_version)),
        ("records", group.tail.saturating_sub(1).to_string()),
        ("created", time(group.created_ms)),
        ("joining", if group.open { "anyone who knows the group" } else { "by invitation" }.into()),
        ("history", if group.history_before_join { "all" } else { "from one's own join on" }.into()),
    ];
    lines.extend(group.members_max.map(|max| ("at most", format!("{max} members"))));
    if group.closed {
        lines.push(("closed", "for good".into()));
    }
    if let Some(me) = &group.me {
        lines.push(("you are", format!("{} ({})", me.user, me.role)));
        lines.push(("unread", group.unread.to_string()));
    }
    let lines: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    match &group.layout {
        Some(layout) => format!("{lines}\n{}", layout.state()),
        None => lines,
    }
}

fn groups_table(groups: &[Group]) -> String {
    if groups.is_empty() {
        return "no groups".into();
    }
    let mut table = table(["GROUP", "TITLE", "MEMBERS", "RECORDS", "UNREAD", "ROLE", ""]);
    for group in groups {
        let role = group.me.as_ref().map_or("", |me| me.role);
        let closed = if group.closed { "closed" } else { "" };
        let [members, records, unread] =
            [group.members, group.tail.saturating_sub(1), group.unread].map(|number| number.to_string());
        table.add_row([&group.group, &group.title, &members, &records, &unread, role, closed]);
    }
    table.trim_fmt()
}

fn members_table(members: &[Member]) -> String {
    let mut table = table(["USER", "ROLE", "JOINED AT", ""]);
    for member in members {
        let muted = member.muted_until_ms.filter(|until_ms| *until_ms > now_ms());
        let state = match (member.banned, muted) {
            (true, _) => "banned".into(),
            (false, Some(u64::MAX)) => "muted".into(),
            (false, Some(until_ms)) => format!("muted until {}", time(until_ms)),
            (false, None) => String::new(),
        };
        table.add_row([&member.user, member.role, &member.joined_seq.to_string(), &state]);
    }
    table.trim_fmt()
}

fn time(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(ms));
    // Beyond the year 9999 it cannot be written.
    let time = time.filter(|_| ms < 253_402_300_800_000);
    time.map_or_else(|| "the end of time".into(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

impl From<wire::Group> for Group {
    fn from(group: wire::Group) -> Self {
        let settings = group.settings.unwrap_or_default();
        Self {
            group: GroupId::from_wire(&group.group).map(|id| id.to_string()).unwrap_or_default(),
            title: settings.title,
            members: group.members,
            sub_groups: group.sub_groups,
            layout_version: group.layout_version,
            tail: group.tail,
            open: settings.open,
            history_before_join: settings.history_before_join,
            members_max: Some(settings.members_max).filter(|max| *max > 0),
            closed: group.closed,
            created_ms: group.created_ms,
            me: group.me.filter(|me| me.role() != wire::Role::None).map(Into::into),
            read: group.read,
            unread: group.unread,
            layout: None,
        }
    }
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        Self {
            role: match member.role() {
                wire::Role::None => "none",
                wire::Role::Member => "member",
                wire::Role::Admin => "admin",
                wire::Role::Owner => "owner",
            },
            user: member.user,
            joined_seq: member.joined_seq,
            muted_until_ms: Some(member.muted_until_ms).filter(|until_ms| *until_ms > 0),
            banned: member.banned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_shown_with_what_holds_now() {
        let member = |user: &str, muted_until_ms, banned| wire::Member {
            user: user.into(),
            role: wire::Role::Member.into(),
            muted_until_ms,
            banned,
            ..wire::Member::default()
        };
        let members = [member("ann", 0, false), member("bob", u64::MAX, false), member("eve", 1, true)];
        let text = members_table(&members.map(Member::from));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("ann") && !lines[1].contains("muted"), "{text}");
        assert!(lines[2].ends_with("muted"), "{text}");
        assert!(lines[3].ends_with("banned"), "{text}");
    }

    #[test]
    fn times_are_written_as_far_as_they_can_be() {
        assert_eq!(time(1_790_000_000_000), "2026-09-21T14:13:20Z");
        assert_eq!(time(u64::MAX), "the end of time");
    }
}
