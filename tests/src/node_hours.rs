//! What a day costs in node-hours: as many nodes as the cluster says it would like, moment by moment,
//! against a fixed number that is sized for the day's peak.
//!
//! Pure. The wish is that of the nodes themselves ([`needed`], [`Desired`]); an autoscaler starts what is
//! missing, which takes a while to carry anything, and drains what is too much, which costs until it has
//! gone. Load is counted in nodes: 1 is what fills one.

use std::{collections::BTreeMap, time::Duration};

use shoal_node::coordination::{Desired, Load, NodeName, NodeRecord, Roles, Slow, needed};

/// How often the wish is looked at.
const LOOK: Duration = Duration::from_secs(15);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sessions of a node that is full.
const SESSIONS_MAX: u64 = 100_000;

/// How much there is to do at each hour of a day, in percent of its peak; between two hours, in between.
pub type Curve = [f64; 24];

/// A day, and how it is met.
#[derive(Debug, Clone, Copy)]
pub struct Day<'curve> {
    /// Members connected.
    pub members: &'curve Curve,
    /// Messages a second; each goes to all members who are there.
    pub messages: &'curve Curve,
    /// So many nodes are filled at the peak, by members as by what they are sent.
    pub peak: f64,
    /// So much of each node is to stay free, in percent, where nodes come and go.
    pub headroom_elastic: u32,
    /// The same where they are as many all day.
    pub headroom_fixed: u32,
    /// From the wish for a node to its carrying its share.
    pub start: Duration,
    /// From the wish to be rid of one to its having gone.
    pub drain: Duration,
}

/// What a day has cost, and how full nodes were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Nodes, summed over the day's hours.
    pub elastic_hours: f64,
    /// The same with a fixed number.
    pub fixed_hours: f64,
    /// How full nodes were at the worst moment, in percent.
    pub elastic_fullest: f64,
    /// The same with a fixed number.
    pub fixed_fullest: f64,
    /// Nodes started over the day.
    pub started: u32,
    /// The fewest and the most at a time.
    pub nodes: (u32, u32),
}

impl Cost {
    /// What was saved, in percent.
    #[must_use]
    pub fn saved(&self) -> f64 {
        100.0 * (1.0 - self.elastic_hours / self.fixed_hours)
    }
}

/// Nodes that come and go.
#[derive(Debug, Default)]
struct Elastic {
    carrying: u32,
    /// When those that start carry something.
    starting: Vec<Duration>,
    /// When those that are drained have gone.
    draining: Vec<Duration>,
}

impl Elastic {
    fn pass_to(&mut self, now: Duration) {
        let ready = self.starting.extract_if(.., |at| *at <= now).count();
        // There are as many as a number of nodes holds.
        self.carrying += ready as u32;
        self.draining.retain(|gone| *gone > now);
    }

    fn follow(&mut self, wish: u32, day: &Day<'_>, now: Duration) -> u32 {
        let coming = self.carrying + self.starting.len() as u32;
        let more = wish.saturating_sub(coming);
        self.starting.extend((0..more).map(|_| now + day.start));
        if self.starting.is_empty() {
            let less = self.carrying.saturating_sub(wish);
            self.carrying -= less;
            self.draining.extend((0..less).map(|_| now + day.drain));
        }
        more
    }

    fn count(&self) -> u32 {
        self.carrying + (self.starting.len() + self.draining.len()) as u32
    }
}

impl Day<'_> {
    /// Plays the day, twice over: the second time begins as the first has ended, and counts.
    #[must_use]
    pub fn play(&self) -> Cost {
        let steps = DAY.as_secs() / LOOK.as_secs();
        let peak = (0..steps).map(|step| self.filled(at(step))).fold(0.0, f64::max);
        let fixed = self.wish(1, peak, self.headroom_fixed);
        let (mut elastic, mut desired) =
            (Elastic { carrying: fixed, ..Elastic::default() }, Desired::default());
        let mut cost = Cost {
            elastic_hours: 0.0,
            fixed_hours: f64::from(fixed) * 24.0,
            elastic_fullest: 0.0,
            fixed_fullest: 100.0 * peak / f64::from(fixed),
            started: 0,
            nodes: (u32::MAX, 0),
        };
        for step in 0..2 * steps {
            let now = at(step);
            elastic.pass_to(now);
            let filled = self.filled(at(step % steps));
            let wish = self.wish(elastic.carrying, filled, self.headroom_elastic);
            let started = elastic.follow(desired.turn(wish, now), self, now);
            if step >= steps {
                cost.started += started;
                cost.elastic_hours += f64::from(elastic.count()) * LOOK.as_secs_f64() / 3600.0;
                cost.elastic_fullest = cost.elastic_fullest.max(100.0 * filled / f64::from(elastic.carrying));
                cost.nodes = (cost.nodes.0.min(elastic.count()), cost.nodes.1.max(elastic.count()));
            }
        }
        cost
    }

    /// How many nodes are filled, by sessions or by what is delivered to them.
    fn filled(&self, at: Duration) -> f64 {
        let members = percent(self.members, at);
        self.peak * members.max(members * percent(self.messages, at))
    }

    /// How many nodes so many that carry this would like there to be.
    fn wish(&self, carrying: u32, filled: f64, headroom: u32) -> u32 {
        let share = filled / f64::from(carrying.max(1));
        // What is above a node's capacity waits outside, and is asked for all the same.
        let sessions = (share * SESSIONS_MAX as f64).ceil() as u64;
        let record = |number: u32| {
            let name = NodeName(format!("node-{number}"));
            let load = Load { sessions, sessions_max: SESSIONS_MAX, ..Load::default() };
            let record = NodeRecord {
                name: name.clone(),
                addresses: Vec::new(),
                peer_addresses: Vec::new(),
                roles: Roles::ALL,
                region: String::new(),
                capacity: 1,
                started_ms: 0,
                load,
            };
            (name, record)
        };
        let nodes: BTreeMap<_, _> = (0..carrying.max(1)).map(record).collect();
        needed(&nodes, &Slow::new(), headroom)
    }
}

fn at(step: u64) -> Duration {
    Duration::from_secs(step * LOOK.as_secs())
}

/// The share of the peak at a moment of the day.
fn percent(curve: &Curve, at: Duration) -> f64 {
    let hours = at.as_secs_f64() / 3600.0;
    let hour = hours as usize % curve.len();
    let (from, to) = (curve[hour], curve[(hour + 1) % curve.len()]);
    (from + (to - from) * hours.fract()) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(members: &Curve) -> Day<'_> {
        Day {
            members,
            messages: members,
            peak: 20.0,
            headroom_elastic: 30,
            headroom_fixed: 30,
            start: Duration::from_secs(180),
            drain: Duration::from_secs(120),
        }
    }

    #[test]
    fn a_day_that_is_flat_saves_nothing() {
        let cost = day(&[100.0; 24]).play();
        assert_eq!((cost.nodes, cost.started, cost.saved().round()), ((29, 29), 0, 0.0), "{cost:?}");
    }

    #[test]
    fn half_a_day_of_quiet_saves_less_than_half_of_its_nodes() {
        let mut curve = [100.0; 24];
        curve[..12].fill(10.0);
        let cost = day(&curve).play();
        assert!((38.0..45.0).contains(&cost.saved()), "{cost:?}");
        // Ten times as much within the hour is what the headroom of three nodes just holds.
        assert!(cost.elastic_fullest < 100.0 && cost.nodes.0 == 3, "{cost:?}");
    }

    /// What comes while nodes start fills those there are: with too little headroom, above what they hold.
    #[test]
    fn a_rise_is_met_by_the_headroom() {
        let mut curve = [10.0; 24];
        curve[12..].fill(100.0);
        let slow = Duration::from_secs(1200);
        let fullest =
            |headroom_elastic| Day { headroom_elastic, start: slow, ..day(&curve) }.play().elastic_fullest;
        assert!(fullest(5) > 100.0 && fullest(60) < fullest(30) && fullest(30) < fullest(5));
    }
}
