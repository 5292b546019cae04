//! Hours of the day, in UTC.

use std::fmt;

use serde::{Deserialize, Serialize};

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u16 = 24 * 60;

/// Hours of each day, from a minute to another (`22:00-05:30`), beyond midnight where the second is the
/// earlier; empty for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours(Option<(u16, u16)>);

impl Hours {
    /// Is the moment, in milliseconds since 1970, among them?
    #[must_use]
    pub fn contain(self, wall_ms: u64) -> bool {
        // The remainder fits.
        let minute = (wall_ms / MINUTE_MS % u64::from(DAY_MINUTES)) as u16;
        match self.0 {
            None => true,
            Some((from, to)) if from <= to => (from..to).contains(&minute),
            Some((from, to)) => minute >= from || minute < to,
        }
    }
}

/// It is not of the form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no hours: 22:00-05:30 would, and nothing at all stands for all day")]
pub struct NoHours(String);

impl TryFrom<String> for Hours {
    type Error = NoHours;

    fn try_from(text: String) -> Result<Self, NoHours> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let hours = text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
        hours.filter(|(from, to)| from != to).map(|hours| Self(Some(hours))).ok_or(NoHours(text))
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((from, to)) = self.0 else { return Ok(()) };
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Result<Hours, NoHours> {
        Hours::try_from(text.to_owned())
    }

    #[test]
    fn a_moment_is_among_the_hours_or_not() {
        let at = |hour: u64, minute: u64| (hour * 60 + minute) * MINUTE_MS + 17 * 86_400_000;
        let (day, night) = (hours("08:00-17:30").unwrap(), hours("22:00-05:30").unwrap());
        assert!(day.contain(at(8, 0)) && day.contain(at(17, 29)) && !day.contain(at(17, 30)));
        assert!(night.contain(at(23, 0)) && night.contain(at(5, 29)) && !night.contain(at(12, 0)));
        assert!(Hours::default().contain(at(3, 3)));
    }

    #[test]
    fn hours_are_written_as_they_are_read() {
        for text in ["", "08:00-17:30", "22:00-05:30"] {
            assert_eq!(hours(text).unwrap().to_string(), text);
        }
        for text in ["8", "24:00-01:00", "10:00-10:00", "10:60-11:00", "always"] {
            assert!(hours(text).is_err(), "{text}");
        }
    }
}
