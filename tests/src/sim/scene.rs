//! What all hosts of a run share.

use super::{
    app::Stage,
    chronicle::Chronicle,
    keys::{Keys, SimClock},
    ledger::Ledger,
    mutation::Mutation,
    network::Weather,
    plan::Plan,
    reception::Reception,
};

/// A run's plan, and what is the same for everybody in it.
#[derive(Debug)]
pub struct Scene {
    /// What the seed stands for.
    pub plan: Plan,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// What happens is told to it.
    pub chronicle: Chronicle,
    /// What became durable.
    pub ledger: Ledger,
    /// Certificates and tokens.
    pub keys: Keys,
    /// The wall clock of all hosts.
    pub clock: SimClock,
    /// What becomes of datagrams.
    pub weather: Weather,
    /// How each phone is connected.
    pub receptions: Vec<Reception>,
    /// Are apps still to do things?
    pub stage: Stage,
}

impl Scene {
    /// The scene of a plan; with `prints`, what happens is printed.
    #[must_use]
    pub fn new(plan: Plan, mutation: Option<Mutation>, prints: bool) -> Self {
        let chronicle = Chronicle::new(prints);
        Self {
            ledger: Ledger::new(chronicle.clone(), mutation),
            keys: Keys::new(plan.seed),
            receptions: plan.networks.iter().copied().map(Reception::new).collect(),
            plan,
            mutation,
            chronicle,
            clock: SimClock::default(),
            weather: Weather::default(),
            stage: Stage::default(),
        }
    }

    /// Is this broken on purpose?
    #[must_use]
    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}
