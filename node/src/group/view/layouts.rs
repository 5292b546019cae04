//! What administrators ask about how groups are cut. The row says how; the owners say how they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use shoal_protocol::{Code, GroupId, Refusal, SLOTS, Slot, wire};
use tokio::time::{Instant, timeout};

use super::{Views, bounded, id, refusal};
use crate::{
    coordination::Partition,
    group::{Groups, Place, layout::Layout},
    store::GroupRow,
};

/// An owner that does not answer for so long is shown as one that does not.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Groups with something left to finish that are looked at for one page.
const DUE_MAX: usize = 256;

/// An owner's answer, and how long it took.
type Answered = Option<(wire::Owner, Duration)>;

impl Views {
    /// How a group is cut; `me` is this node's name.
    pub(crate) async fn layout(
        &self,
        asked: &wire::GetLayout,
        me: &str,
    ) -> Result<wire::GroupLayout, Refusal> {
        let group = id(&asked.group)?;
        let row = self.store().group(group).await.map_err(refusal)?;
        let row = row.ok_or_else(|| Refusal::new(Code::UnknownGroup, "no such group"))?;
        let layout = Layout::from_wire(group, row.state.layout.as_deref());
        let answers = self.ask_owners(group, &layout, me).await;
        let mut shown = self.shown(group, row, me);
        shown.sub_groups = self.sub_groups(&layout, &answers, me);
        Ok(shown)
    }

    /// The groups whose layout is being changed.
    pub(crate) async fn plans(&self, asked: &wire::GetPlans, me: &str) -> Result<wire::Plans, Refusal> {
        let mut after = if asked.after.is_empty() { None } else { Some(id(&asked.after)?) };
        let limit = bounded(asked.limit, self.limits.load().groups_max);
        let mut plans = wire::Plans::default();
        loop {
            let page = self.store().notices_due(after, DUE_MAX).await.map_err(refusal)?;
            let is_last = page.len() < DUE_MAX;
            for group in page {
                if plans.groups.len() == limit {
                    plans.next = after.map(|after| after.to_wire()).unwrap_or_default();
                    return Ok(plans);
                }
                after = Some(group);
                let row = self.store().group(group).await.map_err(refusal)?;
                let is_moving =
                    |row: &GroupRow| row.state.layout.as_deref().is_some_and(|it| it.plan.is_some());
                plans.groups.extend(row.filter(is_moving).map(|row| self.shown(group, row, me)));
            }
            if is_last {
                return Ok(plans);
            }
        }
    }

    fn shown(&self, group: GroupId, row: GroupRow, me: &str) -> wire::GroupLayout {
        wire::GroupLayout {
            group: group.to_wire(),
            title: row.state.settings.title,
            members: row.state.members,
            tail: row.tail.get(),
            home: name(&self.groups.home(group), me),
            layout: row.state.layout.map(|layout| *layout),
            sub_groups: Vec::new(),
        }
    }

    fn sub_groups(
        &self,
        layout: &Layout,
        answers: &BTreeMap<String, Answered>,
        me: &str,
    ) -> Vec<wire::SubGroup> {
        let mut slots = BTreeMap::<Partition, u32>::new();
        for slot in (0..SLOTS).filter_map(Slot::new) {
            *slots.entry(layout.partition(slot)).or_default() += 1;
        }
        let shown = |partition: Partition| {
            let owner = name(&self.groups.place(partition), me);
            let answered = answers.get(&owner).and_then(Option::as_ref);
            let report = answered.map(|(said, took)| report(partition, said, *took));
            let slots = slots.get(&partition).copied().unwrap_or(0);
            wire::SubGroup { partition: partition.number().into(), owner, slots, report }
        };
        partitions(layout).into_iter().map(shown).collect()
    }

    /// Asks all owners at once, each node once.
    async fn ask_owners(&self, group: GroupId, layout: &Layout, me: &str) -> BTreeMap<String, Answered> {
        let mut places: Vec<Place> = Vec::new();
        for partition in partitions(layout) {
            let place = self.groups.place(partition);
            if place != Place::Nowhere && !places.contains(&place) {
                places.push(place);
            }
        }
        let version = layout.version();
        let asked = places.into_iter().map(async |place| {
            let answered = ask(&self.groups, &place, group, version).await;
            (place, answered)
        });
        let answers = join_all(asked).await;
        answers.into_iter().map(|(place, answered)| (name(&place, me), answered)).collect()
    }
}

async fn ask(groups: &Groups, place: &Place, group: GroupId, layout: u64) -> Answered {
    let asked_at = Instant::now();
    let asked = async {
        match place {
            Place::Here => groups.owner(group, layout, true).await,
            Place::There(node) => {
                let asked = wire::GetOwner { group: group.to_wire(), layout, count: true };
                groups.elsewhere().owner(node, asked).await
            }
            Place::Nowhere => Err(Refusal::new(Code::NotHome, "nobody has it")),
        }
    };
    let owner = timeout(ANSWER_MAX, asked).await.ok()?.ok()?;
    Some((owner, asked_at.elapsed()))
}

fn report(partition: Partition, said: &wire::Owner, took: Duration) -> wire::SubGroupReport {
    let mine = |owned: &&wire::OwnedMembers| owned.partition == u32::from(partition.number());
    wire::SubGroupReport {
        members: said.members.iter().find(mine).map_or(0, |owned| owned.members),
        watermark: said.watermark,
        ready: said.ready,
        round_trip_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        judged: said.judged,
        objected: said.objected,
    }
}

/// Where sub-groups are, or are to be; each once.
fn partitions(layout: &Layout) -> Vec<Partition> {
    let to = layout.to().map(|cut| cut.partitions()).unwrap_or_default();
    let mut seen = BTreeSet::new();
    layout.now().partitions().iter().chain(to).copied().filter(|partition| seen.insert(*partition)).collect()
}

fn name(place: &Place, me: &str) -> String {
    match place {
        Place::Here => me.to_owned(),
        Place::There(node) => node.0.clone(),
        Place::Nowhere => String::new(),
    }
}
