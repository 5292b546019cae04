//! From values to places on the paper.

/// Where a value stands on the paper.
pub(super) struct Scale {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    is_logarithmic: bool,
}

impl Scale {
    /// From `from` at `begin` to `to` at `end`.
    pub(super) fn linear(from: f64, to: f64, begin: f64, end: f64) -> Self {
        Self { from, to, begin, end, is_logarithmic: false }
    }

    /// The same between powers of ten, and equally far from each to the next.
    pub(super) fn logarithmic(from: f64, to: f64, begin: f64, end: f64) -> Self {
        let (from, to) = (10_f64.powf(from.log10().floor()), 10_f64.powf(to.log10().ceil()));
        Self { from, to, begin, end, is_logarithmic: true }
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.begin + (self.end - self.begin) * share
    }

    /// Round numbers, four to eight of them; or powers of ten.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let decades = (self.to / self.from).log10().round() as i32;
            return (0..=decades).map(|decade| self.from * 10_f64.powi(decade)).collect();
        }
        let rough = (self.to - self.from) / 4.0;
        let power = 10_f64.powf(rough.log10().floor());
        // Time goes to the right, in halves and quarters of a minute.
        let steps = if self.begin < self.end { [1.0, 1.5, 3.0, 6.0] } else { [1.0, 2.0, 5.0, 5.0] };
        let step = steps.iter().map(|step| step * power).rfind(|step| *step <= rough).unwrap_or(power);
        let count = ((self.to - self.from) / step + 1e-9) as usize;
        (0..=count).map(|tick| self.from + step * tick as f64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for to in [1.0, 7.0, 60.0, 119.0, 630.0, 20_000.0, 3e6] {
            let ticks = Scale::linear(0.0, to, 100.0, 0.0).ticks();
            assert!((4..=10).contains(&ticks.len()), "{to}: {ticks:?}");
            assert!(ticks.last().is_some_and(|last| *last <= to * 1.000_001), "{to}: {ticks:?}");
        }
        assert_eq!(Scale::logarithmic(0.3, 700.0, 100.0, 0.0).ticks(), [0.1, 1.0, 10.0, 100.0, 1000.0]);
    }
}
