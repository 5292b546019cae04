//! What a judge found.

/// How many findings are told in words.
const FINDINGS_MAX: usize = 20;

/// What is wrong with a group's deliveries, and how much of it there was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Given to a client for sending.
    pub published: u64,
    /// Receipts that say "durable".
    pub acknowledged: u64,
    /// Refused for good.
    pub refused: u64,
    /// Deliveries, over all receivers.
    pub deliveries: u64,
    /// Deliveries that were owed and never came.
    pub lost: u64,
    /// Deliveries of what was had before, and messages with two places.
    pub duplicated: u64,
    /// Deliveries out of order, places at which two receivers got different messages, and messages
    /// that overtook an earlier one of their sender.
    pub reordered: u64,
    /// Deliveries whose bytes are not what was sent.
    pub corrupted: u64,
    /// Deliveries of what was refused or never sent.
    pub phantoms: u64,
    /// Deliveries of what was said before the receiver joined, or after it left.
    pub strays: u64,
    /// Places that a receiver passed over and never got, whether or not anybody knows what is there.
    pub holes: u64,
    /// The first of these, in words.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Is nothing wrong?
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { lost, duplicated, reordered, corrupted, phantoms, strays, holes, .. } = self;
        lost + duplicated + reordered + corrupted + phantoms + strays + holes == 0
    }

    /// Adds another group's.
    pub fn add(&mut self, other: Self) {
        self.published += other.published;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.deliveries += other.deliveries;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.phantoms += other.phantoms;
        self.strays += other.strays;
        self.holes += other.holes;
        let room = FINDINGS_MAX.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }

    pub(super) fn find(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }
}
