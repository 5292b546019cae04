//! How a group is cut, in words and tables.

use anyhow::Context;
use serde::Serialize;
use shoal_protocol::{GroupId, wire};

use crate::cli::{
    connection::Connection,
    output::{Output, table},
};

/// Of so many slots a group has each once.
const SLOTS: f64 = shoal_protocol::SLOTS as f64;

/// How a group is cut.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Layout {
    group: String,
    title: String,
    members: u64,
    tail: u64,
    home: Option<String>,
    layout_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_plan: Option<PlanEnd>,
    pub(super) sub_groups: Vec<SubGroup>,
}

/// A plan under way.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Plan {
    pub(super) number: u64,
    cause: &'static str,
    sub_groups_before: usize,
    sub_groups_after: usize,
    pub(super) moved_percent: u32,
    pub(super) paused: bool,
    began_ms: u64,
}

/// How a plan ended.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PlanEnd {
    pub(super) number: u64,
    pub(super) committed: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    ended_ms: u64,
}

/// One sub-group, there or to come.
#[derive(Debug, Serialize)]
pub(super) struct SubGroup {
    partition: u32,
    owner: Option<String>,
    slots: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<Report>,
}

/// What its owner says.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    members: u64,
    watermark: u64,
    /// Records that it has not folded.
    pub(super) lag: u64,
    pub(super) ready: bool,
    pub(super) round_trip_us: u64,
    judged: u64,
    objected: u64,
}

pub(super) async fn layout(connection: &Connection, group: GroupId, output: Output) -> anyhow::Result<()> {
    let found = Layout::from(connection.layout(group).await?);
    output.show(&found, Layout::text).context("output")
}

pub(super) async fn plans(connection: &Connection, output: Output) -> anyhow::Result<()> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = connection.plans(after).await?;
        found.extend(page.groups.into_iter().map(Layout::from));
        if page.next.is_empty() {
            break;
        }
        after = Some(GroupId::from_wire(&page.next)?);
    }
    output.show(&found, |found| plans_table(found)).context("output")
}

impl Layout {
    pub(in crate::cli) fn text(&self) -> String {
        let lines = [
            ("id", self.group.clone()),
            ("title", self.title.clone()),
            ("members", self.members.to_string()),
            ("records", self.tail.saturating_sub(1).to_string()),
            ("home", self.home.clone().unwrap_or_else(|| "nobody, at the moment".into())),
        ];
        let lines: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
        format!("{lines}{}", self.state())
    }

    /// Its plan, and its sub-groups.
    pub(in crate::cli) fn state(&self) -> String {
        let plan = self.plan.as_ref().map(|plan| ("plan", plan.text()));
        let last = self.last_plan.as_ref().map(|end| ("last plan", end.text()));
        let lines = plan.into_iter().chain(last);
        let lines: String = lines.map(|(name, value)| format!("{name:<10} {value}\n")).collect();
        format!("{lines}\n{}", self.table())
    }

    /// The sub-groups.
    pub(in crate::cli) fn table(&self) -> String {
        let header = ["PARTITION", "OWNER", "SHARE", "MEMBERS", "WATERMARK", "LAG", "ANSWERS IN", ""];
        let mut table = table(header);
        for sub_group in &self.sub_groups {
            let owner = sub_group.owner.clone().unwrap_or_else(|| "nobody".into());
            let share = format!("{:.1} %", f64::from(sub_group.slots) * 100.0 / SLOTS);
            let [members, watermark, lag, answers, state] = match &sub_group.report {
                Some(report) => [
                    report.members.to_string(),
                    report.watermark.to_string(),
                    report.lag.to_string(),
                    format!("{:.1} ms", report.round_trip_us as f64 / 1000.0),
                    if report.ready { String::new() } else { "fetches its members".into() },
                ],
                None => ["", "", "", "", "does not answer"].map(String::from),
            };
            table.add_row([
                sub_group.partition.to_string(),
                owner,
                share,
                members,
                watermark,
                lag,
                answers,
                state,
            ]);
        }
        table.to_string()
    }
}

impl Plan {
    pub(super) fn text(&self) -> String {
        let Self { number, cause, sub_groups_before, sub_groups_after, moved_percent, paused, .. } = self;
        let paused = if *paused { ", paused" } else { "" };
        format!(
            "{number}: {cause}; from {sub_groups_before} sub-groups to {sub_groups_after}, \
             {moved_percent} % of those who move have{paused}"
        )
    }
}

impl PlanEnd {
    pub(super) fn text(&self) -> String {
        match self.committed {
            true => format!("{}: committed", self.number),
            false => format!("{}: rolled back, since {}", self.number, self.why),
        }
    }
}

fn plans_table(layouts: &[Layout]) -> String {
    if layouts.is_empty() {
        return "no plan is under way".into();
    }
    let mut table = table(["GROUP", "TITLE", "MEMBERS", "HOME", "PLAN"]);
    for layout in layouts {
        let home = layout.home.clone().unwrap_or_default();
        let plan = layout.plan.as_ref().map(Plan::text).unwrap_or_default();
        table.add_row([&layout.group, &layout.title, &layout.members.to_string(), &home, &plan]);
    }
    table.to_string()
}

fn cause(cause: wire::plan::Cause) -> &'static str {
    match cause {
        wire::plan::Cause::Grown => "the group has grown",
        wire::plan::Cause::Thin => "the group has grown thin",
        wire::plan::Cause::Uneven => "its sub-groups are spread unevenly",
        wire::plan::Cause::Command => "an administrator wanted it",
        wire::plan::Cause::Late => "messages waited too long to be judged",
        wire::plan::Cause::Unknown => "for a reason that this version does not know",
    }
}

impl From<wire::GroupLayout> for Layout {
    fn from(found: wire::GroupLayout) -> Self {
        let group =
            GroupId::from_wire(&found.group).map_or_else(|_| String::new(), |group| group.to_string());
        let layout = found.layout.unwrap_or_default();
        let before = layout.partitions.len().max(1);
        let plan = layout.plan.map(|plan| Plan {
            number: plan.number,
            cause: cause(plan.cause()),
            sub_groups_before: before,
            sub_groups_after: plan.partitions.len(),
            moved_percent: plan.percent,
            paused: plan.paused,
            began_ms: plan.began_ms,
        });
        let last_plan = layout.last.map(|end| PlanEnd {
            number: end.number,
            committed: end.committed,
            why: end.why,
            ended_ms: end.ended_ms,
        });
        let tail = found.tail;
        Self {
            group,
            title: found.title,
            members: found.members,
            tail,
            home: Some(found.home).filter(|home| !home.is_empty()),
            layout_version: layout.version,
            plan,
            last_plan,
            sub_groups: found
                .sub_groups
                .into_iter()
                .map(|sub_group| SubGroup::new(sub_group, tail))
                .collect(),
        }
    }
}

impl SubGroup {
    fn new(found: wire::SubGroup, tail: u64) -> Self {
        let report = found.report.map(|report| Report {
            members: report.members,
            watermark: report.watermark,
            lag: tail.saturating_sub(report.watermark),
            ready: report.ready,
            round_trip_us: report.round_trip_us,
            judged: report.judged,
            objected: report.objected,
        });
        let owner = Some(found.owner).filter(|owner| !owner.is_empty());
        Self { partition: found.partition, owner, slots: found.slots, report }
    }
}
