//! What operators are told of: a kind that programs go by, and a sentence for people.

use shoal_protocol::{GroupId, wire};
use tracing::{error, field::display, info, warn};
use wire::event::Severity;

/// A sentence has no more bytes than this.
const TEXT_BYTES_MAX: usize = 512;

/// Declares the kinds: a name that stays, and how much it matters.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal, $severity:ident;)+) => {
        /// What has happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl Kind {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind),+];

            /// By which programs know it, for good.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            pub(crate) fn severity(self) -> Severity {
                match self {
                    $(Self::$kind => Severity::$severity,)+
                }
            }
        }
    };
}

kinds! {
    /// The node serves: its events are counted from here.
    Started = "started", Info;
    /// Another node leads than before.
    LeaderChanged = "leader_changed", Info;
    /// A node has come.
    NodeJoined = "node_joined", Info;
    /// A node has gone that nobody had emptied.
    NodeLost = "node_lost", Warning;
    /// A node has gone that was empty, or on its way to be.
    NodeLeft = "node_left", Info;
    /// A node is to be emptied.
    NodeDraining = "node_draining", Info;
    /// A node is empty, and safe to remove.
    NodeDrained = "node_drained", Info;
    /// A node is not to be emptied any more.
    NodeStays = "node_stays", Info;
    /// A node holds its lease, is slow, and is emptied for that.
    NodeSlow = "node_slow", Warning;
    /// A node that was slow takes part again.
    NodeWell = "node_well", Info;
    /// A node has more than its share of sessions, and offers some of them another.
    SessionsOffered = "sessions_offered", Info;
    /// A setting was set for all nodes, or taken away.
    SettingChanged = "setting_changed", Info;
    /// A plan to change a group's layout begins.
    PlanBegun = "plan_begun", Info;
    /// More of the members have moved.
    PlanStep = "plan_step", Info;
    /// A plan stays where it is until somebody says otherwise.
    PlanPaused = "plan_paused", Info;
    /// It goes on.
    PlanResumed = "plan_resumed", Info;
    /// A plan has reached its end.
    PlanCommitted = "plan_committed", Info;
    /// A plan was undone.
    PlanRolledBack = "plan_rolled_back", Warning;
    /// Messages of a group wait longer for their turn than they may.
    Backlog = "backlog", Warning;
    /// A home has given up; the next one reads what is there.
    HomeGaveUp = "home_gave_up", Warning;
    /// A watermark was seen above its group's tail.
    SequenceWentBack = "sequence_went_back", Error;
    /// What the store read is not what was written.
    StoreCorrupt = "store_corrupt", Error;
    /// The store answers this node late.
    StoreSlow = "store_slow", Warning;
    /// It answers in time again.
    StoreWell = "store_well", Info;
    /// The store writes no more.
    StoreStopped = "store_stopped", Error;
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    pub(crate) group: Option<GroupId>,
    pub(crate) text: String,
}

impl Event {
    /// About no group; a sentence that is too long is cut.
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8()));
            text.push('…');
        }
        Self { kind, group: None, text }
    }

    /// About a group.
    pub(crate) fn of(self, group: GroupId) -> Self {
        Self { group: Some(group), ..self }
    }

    /// As a line of the log.
    pub(crate) fn log(&self) {
        let (event, group, text) = (self.kind.name(), self.group.map(display), &self.text);
        match self.kind.severity() {
            Severity::Error => error!(event, group, "{text}"),
            Severity::Warning => warn!(event, group, "{text}"),
            Severity::Info | Severity::Unknown => info!(event, group, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(names.iter().all(is_plain), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn a_sentence_is_cut_between_two_characters() {
        for short in ["", "short", &"x".repeat(TEXT_BYTES_MAX)] {
            assert_eq!(Event::new(Kind::Started, short).text, short);
        }
        for long in ["x".repeat(TEXT_BYTES_MAX + 1), "ü".repeat(TEXT_BYTES_MAX), "€".repeat(TEXT_BYTES_MAX)]
        {
            let cut = Event::new(Kind::Started, long.clone()).text;
            assert!(cut.len() <= TEXT_BYTES_MAX && cut.len() > TEXT_BYTES_MAX - 4, "{}", cut.len());
            assert!(long.starts_with(cut.strip_suffix('…').unwrap()));
        }
    }
}
