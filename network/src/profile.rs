//! Named networks: what they are like, in numbers, and where the numbers come from.
//!
//! Delays are one way; a round trip is twice that. What a table of such networks gives for both directions
//! together is halved.

use std::time::Duration;

use crate::{loss::Loss, path::Conditions};

/// A network as one client has it over time: its stages in turn, again and again.
#[derive(Debug, PartialEq)]
pub struct Profile {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is like.
    pub about: &'static str,
    /// Where its numbers come from.
    pub source: &'static str,
    /// In turn.
    pub stages: &'static [Stage],
}

/// How a network is for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// How long.
    pub lasts: Duration,
    /// From the client.
    pub up: Conditions,
    /// To the client.
    pub down: Conditions,
    /// Nothing passes.
    pub is_dark: bool,
    /// It begins with another address: another network, or a NAT that has forgotten.
    pub moves: bool,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KBIT: u64 = 1_000;
const MBIT: u64 = 1_000_000;

/// Conditions without reordering and copies.
const fn conditions(delay: Duration, jitter: Duration, loss: Loss, bits_per_second: u64) -> Conditions {
    Conditions { delay, jitter, loss, bits_per_second, queue: ms(300), ..Conditions::CLEAR }
}

impl Stage {
    const fn new(lasts: Duration, up: Conditions, down: Conditions) -> Self {
        Self { lasts, up, down, is_dark: false, moves: false }
    }

    const fn dark(self, lasts: Duration) -> Self {
        Self { lasts, is_dark: true, ..self }
    }

    const fn lasting(self, lasts: Duration) -> Self {
        Self { lasts, ..self }
    }

    const fn moving(self) -> Self {
        Self { moves: true, ..self }
    }
}

const WIFI: Stage = Stage::new(
    s(20),
    conditions(ms(8), ms(2), Loss { rate: 0.002, burst: 2.0 }, 20 * MBIT),
    conditions(ms(8), ms(2), Loss { rate: 0.002, burst: 2.0 }, 50 * MBIT),
);

/// At the edge of a network: what still passes is late, and much is lost in a row.
const EDGE: Stage = Stage::new(
    s(3),
    conditions(ms(30), ms(40), Loss { rate: 0.20, burst: 5.0 }, 500 * KBIT),
    conditions(ms(30), ms(40), Loss { rate: 0.20, burst: 5.0 }, MBIT),
);

const LTE: Stage = Stage::new(
    s(20),
    conditions(ms(22), ms(15), Loss { rate: 0.002, burst: 2.0 }, 50 * MBIT),
    conditions(ms(22), ms(5), Loss { rate: 0.002, burst: 2.0 }, 100 * MBIT),
);

const UMTS: Stage = Stage::new(
    s(20),
    conditions(ms(125), ms(50), Loss { rate: 0.005, burst: 2.0 }, 1_200 * KBIT),
    conditions(ms(125), ms(50), Loss { rate: 0.005, burst: 2.0 }, 1_200 * KBIT),
);

const TABLE: &str = "delay, jitter, loss and bandwidth as in Loadero's table of network conditions";

/// All of them.
pub static PROFILES: [Profile; 9] = [
    Profile {
        name: "clear",
        about: "what a cable gives: 5 ms, nothing lost",
        source: "chosen, to compare with",
        stages: &[Stage::new(
            s(60),
            Conditions { delay: ms(5), ..Conditions::CLEAR },
            Conditions { delay: ms(5), ..Conditions::CLEAR },
        )],
    },
    Profile {
        name: "wifi-to-4g",
        about: "out of the house and in again: Wi-Fi fades for 3 s and is gone for 300 ms, 4G takes over \
                under another address, and after 20 s Wi-Fi again",
        source: TABLE,
        stages: &[WIFI, EDGE, EDGE.dark(ms(300)), LTE.moving(), WIFI.lasting(ms(1)).moving()],
    },
    Profile {
        name: "elevator",
        about: "4G that fades for 3 s, is gone for 18 s and comes back by and by, under the same address",
        source: "4G: Loadero's table; the ride: chosen",
        stages: &[LTE, EDGE, EDGE.dark(s(18)), EDGE.lasting(s(2))],
    },
    Profile {
        name: "train",
        about: "4G and 3G in turn with a short hole at each handover, and a tunnel of 8 s behind which the \
                address is another",
        source: "4G and 3G: Loadero's table; handovers and tunnel: chosen",
        stages: &[
            LTE.lasting(s(12)),
            LTE.dark(ms(600)),
            UMTS.lasting(s(12)),
            EDGE.lasting(s(2)),
            EDGE.dark(s(8)),
            UMTS.lasting(s(6)).moving(),
        ],
    },
    Profile {
        name: "3g",
        about: "250 ms for a round trip, 1.2 Mbit/s, one packet in two hundred lost",
        source: TABLE,
        stages: &[UMTS],
    },
    Profile {
        name: "satellite",
        about: "600 ms for a round trip, 1 Mbit/s down and 256 kbit/s up, one packet in two hundred lost",
        source: "delay and bandwidth: Loadero's satellite phone; loss: chosen",
        stages: &[Stage::new(
            s(60),
            conditions(ms(300), ms(10), Loss::random(0.005), 256 * KBIT),
            conditions(ms(300), ms(10), Loss::random(0.005), MBIT),
        )],
    },
    Profile {
        name: "conference-hall",
        about: "Wi-Fi that a thousand share: 5 % lost in bursts, 40 ms of jitter, some out of order and some \
                twice, 1 Mbit/s",
        source: "chosen",
        stages: &[Stage::new(
            s(60),
            Conditions {
                reordered: 0.01,
                doubled: 0.002,
                ..conditions(ms(10), ms(40), Loss { rate: 0.05, burst: 3.0 }, 500 * KBIT)
            },
            Conditions {
                reordered: 0.01,
                doubled: 0.002,
                ..conditions(ms(10), ms(40), Loss { rate: 0.05, burst: 3.0 }, MBIT)
            },
        )],
    },
    Profile {
        name: "rough",
        about: "20 % lost, each packet for itself, and 300 ms for a round trip",
        source: "chosen: as bad as a conversation may get",
        stages: &[Stage::new(
            s(60),
            conditions(ms(150), ms(10), Loss::random(0.20), 5 * MBIT),
            conditions(ms(150), ms(10), Loss::random(0.20), 5 * MBIT),
        )],
    },
    Profile {
        name: "vpn",
        about: "a path that takes 1,472 bytes, and every other 20 s no more than 1,232, without a word",
        source: "1,232: what a packet of 1,280 bytes, the least that IPv6 takes, has left for UDP",
        stages: &[
            WIFI,
            Stage::new(
                s(20),
                Conditions { payload_bytes_max: 1_232, ..WIFI.up },
                Conditions { payload_bytes_max: 1_232, ..WIFI.down },
            ),
        ],
    },
];

impl Profile {
    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// How long all its stages take.
    #[must_use]
    pub fn cycle(&self) -> Duration {
        self.stages.iter().map(|stage| stage.lasts).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_a_source_and_stages_that_make_sense() {
        for profile in &PROFILES {
            assert_eq!(Profile::named(profile.name), Some(profile), "{}", profile.name);
            assert!(!profile.about.is_empty() && !profile.source.is_empty() && !profile.cycle().is_zero());
            for Conditions { loss, bits_per_second, payload_bytes_max, .. } in
                profile.stages.iter().flat_map(|stage| [stage.up, stage.down])
            {
                assert!((0.0..1.0).contains(&loss.rate) && loss.burst >= 1.0, "{}", profile.name);
                // QUIC needs 1,200 bytes.
                assert!(bits_per_second > 0 && payload_bytes_max >= 1_200, "{}", profile.name);
            }
        }
    }
}
