//! Broken promises, each in one place: with one switched on, the judge must find it.

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutation {
    /// The store answers an append before it is durable.
    AcknowledgedEarly,
    /// The store takes an append of unknown outcome for done.
    UnknownTakenForDone,
    /// The store forgets which numbers it has had of a sender.
    SendersForgotten,
    /// The store hands out one epoch twice.
    EpochsStand,
    /// The store's cursors go back.
    CursorsGoBack,
    /// A client accepts what lies above its watermark: a record is missing.
    GapAccepted,
    /// A client passes over a record as if it were silent.
    TakenForSilent,
    /// A client gives its app a record twice.
    Doubled,
    /// A client gives its app two records in the wrong order.
    Swapped,
    /// A client sends a message again under another number.
    Renumbered,
    /// A client says "sent" before the node did.
    ReceiptInvented,
    /// A client that is removed goes on for one more record.
    RemovedGoesOn,
    /// The store takes appends of a home that has been replaced.
    FenceGone,
    /// A home that has been replaced goes on as if it had not been told.
    ReplacedGoesOn,
    /// A node takes what a feed brings though it is not what it wants next.
    FedAsItComes,
}

impl Mutation {
    /// Those that one node is enough for.
    pub const OF_ONE_NODE: [Self; 12] = [
        Self::AcknowledgedEarly,
        Self::UnknownTakenForDone,
        Self::SendersForgotten,
        Self::EpochsStand,
        Self::CursorsGoBack,
        Self::GapAccepted,
        Self::TakenForSilent,
        Self::Doubled,
        Self::Swapped,
        Self::Renumbered,
        Self::ReceiptInvented,
        Self::RemovedGoesOn,
    ];

    /// Those that take several.
    pub const OF_A_CLUSTER: [Self; 3] = [Self::FenceGone, Self::ReplacedGoesOn, Self::FedAsItComes];
}
