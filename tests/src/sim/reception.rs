//! The network of a phone: what one of the named networks makes of each datagram, and a NAT that forgets.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_network::{Conditions, Sky, Weather};

/// How a phone is connected. Cheap to clone; all clones are the same phone's.
#[derive(Clone)]
pub struct Reception(Arc<Inner>);

struct Inner {
    /// None: as the links of the simulation are.
    weather: Option<Weather>,
    /// From this moment on it is perfect, in nanoseconds.
    perfect_from: AtomicU64,
    /// So often a NAT has forgotten the phone, besides what the weather does.
    forgotten: AtomicU64,
}

/// A phone's network at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// None where datagrams pass as they do on the links of the simulation.
    pub sky: Option<Sky>,
    /// By which address the phone is known; it only grows.
    pub address: u64,
}

impl Reception {
    /// One that is like this.
    #[must_use]
    pub fn new(weather: Option<Weather>) -> Self {
        Self(Arc::new(Inner {
            weather,
            perfect_from: AtomicU64::new(u64::MAX),
            forgotten: AtomicU64::new(0),
        }))
    }

    /// The NAT forgets the phone: what it sends next comes from another address, and what is sent to the one
    /// before goes nowhere.
    pub fn forget(&self) {
        self.0.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on nothing is amiss with it.
    pub fn mend(&self, now: Duration) {
        self.0.perfect_from.fetch_min(nanos(now), Ordering::Relaxed);
    }

    /// How it is at this moment of the simulation.
    #[must_use]
    pub fn now(&self, now: Duration) -> Now {
        let perfect_from = Duration::from_nanos(self.0.perfect_from.load(Ordering::Relaxed));
        let sky = self.0.weather.map(|weather| weather.at(now.min(perfect_from)));
        let address = self.0.forgotten.load(Ordering::Relaxed) + sky.map_or(0, |sky| sky.moves);
        Now { sky: sky.filter(|_| now < perfect_from), address }
    }
}

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Passage {
    /// It passes, at once.
    Free,
    /// It passes as others do under these conditions.
    Through(Conditions),
    /// It does not.
    None,
}

impl Now {
    /// What becomes of what is sent in one direction.
    #[must_use]
    pub fn passage(&self, direction: impl Fn(&Sky) -> Conditions) -> Passage {
        match &self.sky {
            Some(sky) if sky.is_dark => Passage::None,
            Some(sky) => Passage::Through(direction(sky)),
            None => Passage::Free,
        }
    }
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reception").field(&self.0.weather).finish()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use shoal_network::{Profile, Trouble};

    use super::*;

    #[test]
    fn a_phone_that_is_mended_keeps_the_address_it_has_come_to() {
        let seconds = Duration::from_secs;
        let moves = Trouble::Moves { every: seconds(5) };
        let weather = Weather::new(Profile::named("3g").unwrap(), moves, Duration::ZERO);
        let reception = Reception::new(Some(weather));
        reception.forget();
        assert_eq!(reception.now(seconds(11)).address, 3);
        assert!(reception.now(seconds(11)).sky.is_some());
        reception.mend(seconds(12));
        let mended = reception.now(seconds(60));
        assert_eq!((mended.address, mended.sky), (3, None));
        assert_eq!(mended.passage(|sky| sky.up), Passage::Free);
    }

    #[test]
    fn nothing_passes_in_the_dark() {
        let blackout = Trouble::Blackouts { every: Duration::from_secs(5), lasts: Duration::from_secs(3) };
        let weather = Weather::new(Profile::named("3g").unwrap(), blackout, Duration::ZERO);
        let reception = Reception::new(Some(weather));
        let passes = |s| reception.now(Duration::from_secs(s)).passage(|sky| sky.down) != Passage::None;
        assert_eq!([4, 5, 7, 8].map(passes), [true, false, false, true]);
    }
}
