//! What to run.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use shoal_network::{Profile, Trouble, profile::PROFILES};

use crate::{
    curve::{Curve, DAY_MEMBERS, DAY_MESSAGES, HOURS},
    payload::PAYLOAD_BYTES_MIN,
    plan::{Plan, Shape},
};

const GROUPS: u32 = 1;
const MEMBERS: u32 = 10;

/// From the end of one blackout to the beginning of the next.
const BLACKOUT_PAUSE: Duration = Duration::from_secs(30);

/// The clients of a run: whom they connect to, and what is common to all that they do.
#[derive(Debug, Clone, Args)]
pub struct Clients {
    /// A node's address; of several, each client begins with one drawn by lot, and goes to the others when it fails
    #[arg(long = "node", value_name = "ADDR", default_value = "127.0.0.1:4433", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// The region that all clients say they are in: they go to its nodes, wherever they began [default: they say none]
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// A node's data folder: its keys sign the clients' tokens
    #[arg(long, value_name = "DIR", default_value = "shoal-data")]
    pub data: PathBuf,
    /// Bytes of a message; at least 40, which hold what it is checked by
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = payload_bytes)]
    pub payload: usize,
    /// Repeats the plan of a run [default: at random, and told in the report]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// How long to wait, after the last message, for everything acknowledged to arrive
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
    /// Clients that connect at the same time
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// The network between the clients and their nodes.
    #[command(flatten)]
    pub network: NetworkOptions,
    /// Spoils one client's deliveries, to show that the judge bites
    #[arg(long, value_name = "HOW", hide = true)]
    pub sabotage: Option<Sabotage>,
}

/// A weak network between the clients and their nodes.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkOptions {
    /// Puts each client on a weak network: a relay of its own loses, delays, doubles and cuts off its packets
    #[arg(long, value_name = "PROFILE", value_parser = profiles())]
    pub network: Option<&'static Profile>,
    /// Gives each client another address, again and again: a NAT that forgets
    #[arg(long, value_name = "TIME", requires = "network", value_parser = a_while, conflicts_with = "blackout")]
    pub moves_every: Option<Duration>,
    /// Cuts all clients off for so long, again and again, with 30 s between
    #[arg(long, value_name = "TIME", requires = "network", value_parser = a_while)]
    pub blackout: Option<Duration>,
    /// Tells the clients' apps when their network has changed, as a phone's system does
    #[arg(long, requires = "network")]
    pub told: bool,
}

impl NetworkOptions {
    /// What happens besides what the network does by itself.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        match (self.moves_every, self.blackout) {
            (Some(every), _) => Trouble::Moves { every },
            (None, Some(lasts)) => Trouble::Blackouts { every: lasts + BLACKOUT_PAUSE, lasts },
            (None, None) => Trouble::Steady,
        }
    }
}

/// A run: who is there, what they send, and what is done to them.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Whom the clients connect to, and how.
    #[command(flatten)]
    pub clients: Clients,
    /// How many groups [default: 1, or none where --shape is given]
    #[arg(long, value_name = "N")]
    pub groups: Option<u32>,
    /// Members of each group, each a client with a connection of its own [default: 10]
    #[arg(long, value_name = "M")]
    pub members: Option<u32>,
    /// Further groups, as in --shape 10x10 --shape 3x300: ten of 10 members and three of 300; in --shape 1x200/2000, 200 of 2,000 are connected
    #[arg(long = "shape", value_name = "NxM")]
    pub shapes: Vec<Shape>,
    /// Messages a second over all groups
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    pub rate: f64,
    /// How long to send
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How many in a hundred clients stop reading for a while, again and again
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub slow: f64,
    /// How many in a hundred clients leave, and come back with what they saved, again and again
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub churn: f64,
}

/// One group that changes its size while it talks.
#[derive(Debug, Clone, Copy, Args)]
pub struct Bounds {
    /// Deliveries of messages a second at most, and as many of members coming and going while they are few: the more members there are, the fewer messages
    #[arg(long, value_name = "D", default_value_t = 20_000.0, value_parser = positive)]
    pub deliveries: f64,
    /// How many in a hundred members are replaced by others in a minute, beside the curve
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, value_parser = percent)]
    pub turnover: f64,
}

/// A group that grows and shrinks again.
#[derive(Debug, Clone, Args)]
pub struct GrowOptions {
    /// Whom the clients connect to, and how.
    #[command(flatten)]
    pub clients: Clients,
    /// What there is at most.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Members at the beginning, each a client with a connection of its own
    #[arg(long, value_name = "M", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub from: u32,
    /// Members in the end
    #[arg(long, value_name = "M", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub to: u32,
    /// How long it takes from one to the other
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    pub over: Duration,
    /// How long it stays as it has become, after growing and after shrinking
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// How long the way back takes [default: as long]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "no_back")]
    pub back_over: Option<Duration>,
    /// There is no way back
    #[arg(long)]
    pub no_back: bool,
    /// Messages a second at most
    #[arg(long, value_name = "R", default_value_t = 20.0, value_parser = positive)]
    pub rate: f64,
}

/// A day of a group.
#[derive(Debug, Clone, Args)]
pub struct DayOptions {
    /// Whom the clients connect to, and how.
    #[command(flatten)]
    pub clients: Clients,
    /// What there is at most.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Members at the fullest hour, each a client with a connection of its own
    #[arg(long, value_name = "M", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,
    /// Messages a second at the busiest hour
    #[arg(long, value_name = "R", default_value_t = 20.0, value_parser = positive)]
    pub rate: f64,
    /// Into how long a time the day is compressed
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub over: Duration,
    /// Members at the beginning of each hour, in percent of the most: 24 numbers [default: a day that has its peak at nine in the evening]
    #[arg(long, value_name = "P,P,…", value_parser = hours)]
    pub member_percents: Option<[f64; HOURS]>,
    /// Messages, likewise [default: of the same day]
    #[arg(long, value_name = "P,P,…", value_parser = hours)]
    pub message_percents: Option<[f64; HOURS]>,
}

/// What is done to one delivery of one client before it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// It is left out.
    Drop,
    /// It comes twice.
    Double,
    /// It comes after the next one.
    Swap,
    /// One of its bits is flipped.
    Corrupt,
}

impl Clients {
    /// Of a node on this machine, with what the command takes by itself.
    #[must_use]
    pub fn new(node: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            nodes: vec![node.into()],
            region: None,
            data: data.into(),
            payload: 128,
            seed: None,
            drain: Duration::from_secs(60),
            connecting: 128,
            network: NetworkOptions::default(),
            sabotage: None,
        }
    }
}

impl GrowOptions {
    /// Its curve.
    #[must_use]
    pub fn curve(&self) -> Curve {
        let back_over = (!self.no_back).then(|| self.back_over.unwrap_or(self.over));
        let curve = Curve::grow(self.from, self.to, self.over, self.hold, back_over);
        curve.at_most(self.rate, self.bounds.deliveries)
    }
}

impl DayOptions {
    /// Its curve.
    #[must_use]
    pub fn curve(&self) -> Curve {
        let members = self.member_percents.unwrap_or(DAY_MEMBERS);
        let messages = self.message_percents.unwrap_or(DAY_MESSAGES);
        let curve = Curve::day(self.members, self.rate, self.over, &members, &messages);
        curve.at_most(self.rate, self.bounds.deliveries)
    }
}

impl Options {
    /// A short run against a node on this machine, with what the command takes by itself.
    #[must_use]
    pub fn new(node: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            clients: Clients::new(node, data),
            groups: None,
            members: None,
            shapes: Vec::new(),
            rate: 50.0,
            duration: Duration::from_secs(30),
            slow: 0.0,
            churn: 0.0,
        }
    }

    /// Its plan, with this seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        Plan::new(&self.all_shapes(), self.duration, self.slow, self.churn, seed)
    }

    fn all_shapes(&self) -> Vec<Shape> {
        let mut shapes = self.shapes.clone();
        if shapes.is_empty() || self.groups.is_some() {
            let groups = self.groups.unwrap_or(GROUPS);
            shapes.insert(0, Shape::new(groups, self.members.unwrap_or(MEMBERS)));
        }
        shapes
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("from 0 to 100".into()) }
}

fn profiles() -> impl TypedValueParser<Value = &'static Profile> {
    let value = |profile: &'static Profile| PossibleValue::new(profile.name).help(profile.about);
    PossibleValuesParser::new(PROFILES.iter().map(value))
        .map(|name| Profile::named(&name).expect("it is one of them"))
}

/// A tenth of a second at least.
fn a_while(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time >= Duration::from_millis(100) { Ok(time) } else { Err("at least 100ms".into()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("above 0".into()) }
}

fn hours(text: &str) -> Result<[f64; HOURS], String> {
    let percents = text.split(',').map(|one| percent(one.trim())).collect::<Result<Vec<_>, _>>()?;
    percents.try_into().map_err(|percents: Vec<_>| format!("{HOURS} numbers, not {}", percents.len()))
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if bytes >= PAYLOAD_BYTES_MIN { Ok(bytes) } else { Err(format!("at least {PAYLOAD_BYTES_MIN}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(change: impl FnOnce(&mut Options)) -> Vec<u32> {
        let mut options = Options::new("127.0.0.1:1", "data");
        change(&mut options);
        options.plan(1).groups().to_vec()
    }

    #[test]
    fn groups_and_shapes_go_together() {
        let shape = Shape::new(2, 30);
        assert_eq!(groups(|_| ()), [10]);
        assert_eq!(groups(|options| options.groups = Some(3)), [10, 10, 10]);
        assert_eq!(groups(|options| options.members = Some(5)), [5]);
        assert_eq!(groups(|options| options.shapes = vec![shape]), [30, 30]);
        assert_eq!(
            groups(
                |options| (options.groups, options.members, options.shapes) = (Some(1), Some(4), vec![shape])
            ),
            [4, 30, 30]
        );
    }

    #[test]
    fn clients_state_a_region_where_they_are_told_one() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            clients: Clients,
        }
        let region = |line: &[&str]| {
            let words = ["shoal-loadgen"].iter().chain(line);
            <Line as clap::Parser>::try_parse_from(words).unwrap().clients.region
        };
        assert_eq!(region(&[]), None);
        assert_eq!(region(&["--region", "south"]).as_deref(), Some("south"));
    }

    #[test]
    fn a_day_has_24_hours() {
        assert!(hours("1,2").is_err() && hours(&["50"; 25].join(",")).is_err());
        assert!(hours(&["101"; 24].join(",")).is_err());
        assert_eq!(hours(&["50"; 24].join(", ")), Ok([50.0; 24]));
    }
}
