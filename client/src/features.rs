//! What a group's admins have given this user by name, while others may still be without it.

use shoal_protocol::{GroupId, Seq, Slot, UserId, wire};

use crate::{Client, RequestError};

/// What a user has of a group's features: named values that an admin gives to some of the members first,
/// then to more, then to all. From [`Client::features`].
///
/// It stands for a place in the group's sequence. A record that changes a feature comes to everybody who
/// follows the group, in its place: hand each record to [`take`](Self::take), and this is up to date. It
/// does nothing by itself, waits for nothing, and holds a few kilobytes at most: up to 32 features (unless
/// the node is set otherwise), with names of up to 64 bytes and values of up to 256.
///
/// ```
/// # use shoal_client::{Client, Delivered, GroupId, Start};
/// # async fn example(client: &Client, group: GroupId) -> Result<(), Box<dyn std::error::Error>> {
/// let mut records = client.follow(group, Start::Resume).await?;
/// // Asked for once the group is followed, so that no change falls between.
/// let mut features = client.features(group).await?;
/// println!("the composer is {}", features.value("composer").unwrap_or("plain"));
/// while let Some(delivered) = records.next().await {
///     match delivered? {
///         Delivered::Record(record) if features.take(&record) => {
///             println!("the composer is now {}", features.value("composer").unwrap_or("plain"));
///         }
///         // What was not this user's to read may have changed them.
///         Delivered::Skipped { .. } => features = client.features(group).await?,
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    all: shoal_protocol::Features,
    slot: Slot,
}

impl Features {
    /// What `user` has of them, as an answer about a group says ([`wire::Group::features`]).
    #[must_use]
    pub fn of(user: &UserId, features: &wire::Features) -> Self {
        Self { all: shoal_protocol::Features::from_wire(features), slot: Slot::of(user) }
    }

    /// What the user has of this name; none where they have not been given it.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.all.value(name, self.slot)
    }

    /// All that the user has, by name, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().filter_map(|(name, feature)| Some((name, feature.value(self.slot)?)))
    }

    /// Takes a record of the group. True where the user has something else after it; false for every other
    /// record, also for one that these features stand behind already.
    pub fn take(&mut self, record: &wire::Record) -> bool {
        let (Some(wire::record::Body::Feature(feature)), Some(seq)) = (&record.body, Seq::new(record.seq))
        else {
            return false;
        };
        let before = self.value(&feature.name).map(str::to_owned);
        self.all.fold(seq, feature) && self.value(&feature.name) != before.as_deref()
    }
}

impl Client {
    /// What this client's user has of a group's features.
    ///
    /// # Errors
    /// [`UnknownGroup`](crate::Code::UnknownGroup), [`NotMember`](crate::Code::NotMember).
    pub async fn features(&self, group: GroupId) -> Result<Features, RequestError> {
        let features = self.group(group).await?.features.unwrap_or_default();
        // Whoever has had an answer has had a session.
        let user = self.user().ok_or(RequestError::Closed)?;
        Ok(Features::of(&user, &features))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, value: Option<&str>, percent: u32) -> wire::Record {
        let feature = wire::Feature {
            name: "composer".into(),
            value: value.map(str::to_owned),
            slots: Some(wire::feature::Slots::Percent(percent)),
            otherwise: None,
        };
        let body = Some(wire::record::Body::Feature(feature));
        wire::Record { seq, body, ..wire::Record::default() }
    }

    #[test]
    fn only_what_changes_something_for_the_user_is_told() {
        let user = UserId::new("ada").unwrap();
        let is_among = |percent| shoal_protocol::share::is_among_first(Slot::of(&user), percent);
        let first = (1..=100).find(|percent| is_among(*percent)).unwrap();
        let mut features = Features::of(&user, &wire::Features::default());
        assert!(!features.take(&record(2, Some("new"), first - 1)), "for others first");
        assert_eq!(features.value("composer"), None);
        assert!(features.take(&record(3, Some("new"), first)));
        assert!(!features.take(&record(4, Some("new"), 100)), "others have it too, now");
        assert!(!features.take(&record(2, None, 0)), "from before");
        assert_eq!(features.iter().collect::<Vec<_>>(), [("composer", "new")]);
        assert!(features.take(&record(9, None, 0)));
        assert_eq!(features.iter().count(), 0);
    }
}
