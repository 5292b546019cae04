//! Members are moved from owner to owner, on three nodes with real etcd and PostgreSQL, and whoever has a
//! part in it is killed at a step of it. Every delivery is judged by the load generator.

use std::{
    collections::BTreeSet,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use shoal_loadgen::{Report, plan::Shape};
use shoal_tests::slowed::Slowed;

use crate::{
    cluster::{Cluster, pause},
    load::{assert_nothing_is_lost, options},
};

const PATIENCE: Duration = Duration::from_secs(40);

const MEMBERS: u32 = 300;

/// Where the members outgrow the sub-groups each step is watched for an eighth of that.
const SETTINGS: [&str; 2] = ["limits.group.plan_observe_ms=40000", "limits.group.plan_retry_ms=1000"];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    NewOwner,
    OldOwner,
    Home,
    Leader,
}

impl Cluster {
    /// A command, to a node that lives.
    fn ask(&self, args: &[&str]) -> Value {
        self.nodes.iter().find(|node| node.name().is_some()).unwrap().command(args)
    }

    fn plan(&self, group: &str) -> Value {
        self.ask(&["plan", "show", group])
    }

    /// Waits for a plan that has got so far. One that is rolled back begins again by itself.
    fn plan_at(&self, percent: u64) -> (String, Value) {
        let begun = Instant::now();
        loop {
            let plans = self.ask(&["plan", "list"]);
            let found = plans.as_array().unwrap().first();
            if let Some(plan) = found.filter(|plan| plan["plan"]["moved_percent"] == percent) {
                let group = plan["group"].as_str().unwrap().to_owned();
                return (group.clone(), self.plan(&group));
            }
            assert!(begun.elapsed() < PATIENCE, "no plan comes to {percent} %: {plans}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn victim(&self, victim: Victim, shown: &Value) -> Option<usize> {
        let home = shown["home"].as_str()?;
        let owners: Vec<_> = shown["sub_groups"].as_array()?.iter().map(|it| &it["owner"]).collect();
        // Those there were come first, in their order.
        let before = shown["plan"]["sub_groups_before"].as_u64()? as usize;
        let apart = |owners: &[&Value]| {
            let mut names = owners.iter().filter_map(|owner| owner.as_str());
            names.find(|name| *name != home).map(ToOwned::to_owned)
        };
        let name = match victim {
            Victim::NewOwner => apart(&owners[before..]).or_else(|| apart(&owners))?,
            Victim::OldOwner => apart(&owners[..before]).unwrap_or_else(|| home.to_owned()),
            Victim::Home => home.to_owned(),
            Victim::Leader => self.ask(&["node", "list"])["leader"].as_str()?.to_owned(),
        };
        self.nodes.iter().position(|node| node.name() == Some(&name))
    }
}

/// A plan under load: from now on the group has too many members for one sub-group.
fn begin(cluster: &Cluster, seconds: u64) -> JoinHandle<Report> {
    cluster.settle();
    let mut options = options(&cluster.nodes[0], seconds);
    (options.shapes, options.rate) = (vec![Shape::new(1, MEMBERS)], 40.0);
    let load = cluster.load_with(options);
    drop(cluster.ask(&["config", "set", "limits.group.sub_group_max", "100"]));
    load
}

/// Waits until no plan of the group is under way: how it is cut then.
fn ended(cluster: &Cluster, group: &str) -> Value {
    let begun = Instant::now();
    loop {
        let shown = cluster.plan(group);
        if shown["plan"].is_null() {
            return shown;
        }
        assert!(begun.elapsed() < PATIENCE, "{shown}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_plan_outlives_whoever_dies_at_its_steps() {
    let mut cluster = Cluster::with(&SETTINGS);
    let load = begin(&cluster, 65);
    let strikes = [(0, Victim::NewOwner), (10, Victim::Home), (30, Victim::OldOwner), (100, Victim::Leader)];
    let (mut group, mut numbers) = (String::new(), BTreeSet::new());
    for (percent, victim) in strikes {
        let (found, shown) = cluster.plan_at(percent);
        group = found;
        numbers.insert(shown["plan"]["number"].as_u64());
        let at = cluster.victim(victim, &shown).unwrap_or_else(|| panic!("no {victim:?} in {shown}"));
        println!("{victim:?} is killed at {percent} % of {}", shown["plan"]);
        cluster.nodes[at].kill();
        pause(5);
        cluster.nodes[at].up();
    }
    let ended = ended(&cluster, &group);
    println!("plans {numbers:?}; the last has ended: {}", ended["last_plan"]);
    assert!(!load.is_finished(), "all under load");
    let report = load.join().unwrap();
    assert_nothing_is_lost(&report);
    let sub_groups = ended["sub_groups"].as_array().unwrap();
    let members: u64 = sub_groups.iter().filter_map(|it| it["report"]["members"].as_u64()).sum();
    assert_eq!(Some(members), ended["members"].as_u64(), "every member has one owner: {ended}");
    assert!(members >= u64::from(MEMBERS), "they are all there yet: {ended}");
}

/// It lives, and answers late: what has moved to it moves back, and nobody is told.
#[test]
fn a_plan_whose_new_owner_is_slowed_rolls_back_by_itself() {
    // It is the plan that is to find out, and not those who look after nodes.
    let cluster = Cluster::with(&[
        SETTINGS[0],
        "limits.group.plan_delay_max_ms=200",
        "limits.group.plan_retry_ms=600000",
        "limits.cluster.slow_after_ms=600000",
        "coordination.lease_ms=20000",
    ]);
    let load = begin(&cluster, 40);
    let (group, shown) = cluster.plan_at(10);
    let at = cluster.victim(Victim::NewOwner, &shown).unwrap();
    let (slowed, begun) = (Slowed::begin(cluster.nodes[at].pid().unwrap()), Instant::now());
    let home = cluster.nodes.iter().position(|node| node.name() == shown["home"].as_str()).unwrap();
    while cluster.nodes[home].metric("shoal_plans_rolled_back_total") == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is found out");
        thread::sleep(Duration::from_millis(50));
    }
    println!("rolled back after {:?}", begun.elapsed());
    drop(slowed);
    let ended = ended(&cluster, &group);
    let last = &ended["last_plan"];
    assert_eq!(last["committed"], false);
    assert!(last["why"].as_str().unwrap().contains("200 at most"), "{last}");
    let owners: BTreeSet<_> =
        ended["sub_groups"].as_array().unwrap().iter().map(|it| it["owner"].as_str()).collect();
    assert_eq!(owners, BTreeSet::from([shown["home"].as_str()]), "back where they were");
    assert!(!load.is_finished(), "all under load");
    assert_nothing_is_lost(&load.join().unwrap());
}
