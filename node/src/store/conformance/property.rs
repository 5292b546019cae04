//! Random operations, held against the model.

use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use shoal_protocol::{DeviceId, Incarnation, Outcome, SLOTS, SenderId, SenderNumbers, Slot};

use super::*;
use crate::store::{
    CursorRaise, Cursors, GroupState,
    model::Model,
    write::{Write, Written},
};

const USERS: [&str; 4] = ["a", "ab", "a.", "b"];
const KEYS: [&str; 3] = ["k", "k/1", "l"];

fn groups() -> [GroupId; 3] {
    [group(0), group(1), group(u128::MAX)]
}

#[derive(Debug, Clone)]
enum Step {
    Activate { group: usize, create: bool },
    Append { group: usize, stale_epoch: bool, stale_tail: bool, changes: Draft },
    Raise(Vec<(usize, usize, Option<u64>, Option<u64>)>),
    Swap { key: usize, expected: u64, value: Option<u8> },
    Reopen,
}

/// Changes whose references are brought below the tail once it is known.
#[derive(Debug, Clone)]
struct Draft {
    records: Vec<u8>,
    redacted: Option<u64>,
    edit: Option<(u64, u64)>,
    member: Option<(usize, i32, bool)>,
    sender: Option<(usize, u64, bool)>,
    members_count: Option<u64>,
    notices_due: Option<bool>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let member = proptest::option::of((0..USERS.len(), 0..4, any::<bool>()));
    let sender = proptest::option::of((0..USERS.len(), 1..3_u64, any::<bool>()));
    let reference = || proptest::option::of(0..20_u64);
    let parts =
        (vec(any::<u8>(), 0..4), reference(), proptest::option::of((0..20_u64, 0..20_u64)), member, sender);
    (parts, reference(), any::<Option<bool>>()).prop_map(|(parts, members_count, notices_due)| {
        let (records, redacted, edit, member, sender) = parts;
        Draft { records, redacted, edit, member, sender, members_count, notices_due }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let number = || proptest::option::of(1..50_u64);
    prop_oneof![
        3 => (0..3_usize, any::<bool>()).prop_map(|(group, create)| Step::Activate { group, create }),
        9 => (0..3_usize, prop::bool::weighted(0.1), prop::bool::weighted(0.1), draft()).prop_map(
            |(group, stale_epoch, stale_tail, changes)| Step::Append { group, stale_epoch, stale_tail, changes }
        ),
        3 => vec((0..USERS.len(), 0..3_usize, number(), number()), 0..4).prop_map(Step::Raise),
        3 => (0..KEYS.len(), 0..3_u64, any::<Option<u8>>()).prop_map(|(key, expected, value)| Step::Swap { key, expected, value }),
        1 => Just(Step::Reopen),
    ]
}

impl Draft {
    fn changes(self, tail: Seq) -> Changes {
        let count = tail.get() - 1 + self.records.len() as u64;
        let below = |reference: u64| (count > 0).then(|| seq(1 + reference % count));
        let records = self.records.iter().map(|byte| record("x".repeat(usize::from(*byte)))).collect();
        let member = self.member.map(|(user, role, banned)| MemberRow {
            banned,
            ..member(USERS[user], wire::Role::try_from(role).unwrap())
        });
        let sender = self.sender.map(|(name, device, expired)| {
            let sender =
                SenderId { user: user(USERS[name]), device: DeviceId(device), incarnation: Incarnation(1) };
            (sender, expired)
        });
        let numbers = SenderNumbers::restore(2, [Outcome::Committed { seq: tail }]);
        let kept = sender.iter().filter(|(_, expired)| !expired);
        Changes {
            records,
            redactions: self.redacted.and_then(below).map(|seq| (seq, record("gone"))).into_iter().collect(),
            edits: self.edit.and_then(|(of, by)| Some((below(of)?, below(by)?))).into_iter().collect(),
            members: member.into_iter().collect(),
            senders: kept.map(|(sender, _)| (sender.clone(), numbers.clone())).collect(),
            senders_expired: sender
                .iter()
                .filter(|(_, expired)| *expired)
                .map(|(sender, _)| sender.clone())
                .collect(),
            state: self.members_count.map(|members| GroupState { members, ..GroupState::new(1) }),
            notices_due: self.notices_due,
        }
    }
}

impl Step {
    fn write(self, model: &Model) -> Option<Write> {
        Some(match self {
            Self::Activate { group, create } => {
                let create = create.then_some(Create { incarnation: 3, created_ms: 4 });
                Write::Activate { group: groups()[group], create }
            }
            Self::Append { group, stale_epoch, stale_tail, changes } => {
                let row = model.group(groups()[group]);
                let (epoch, tail) = row.map_or((Epoch(1), Seq::FIRST), |row| (row.epoch, row.tail));
                let epoch = if stale_epoch { Epoch(epoch.0.saturating_sub(1)) } else { epoch };
                let expected_tail = if stale_tail { tail.next() } else { tail };
                let changes = changes.changes(expected_tail);
                Write::Append(Box::new(Append { group: groups()[group], epoch, expected_tail, changes }))
            }
            Self::Raise(raises) => {
                let raise =
                    |(name, group, read, delivered): (usize, usize, Option<u64>, Option<u64>)| CursorRaise {
                        user: user(USERS[name]),
                        group: groups()[group],
                        cursors: Cursors { read: read.map(seq), delivered: delivered.map(seq) },
                    };
                Write::RaiseCursors(raises.into_iter().map(raise).collect())
            }
            Self::Swap { key, expected, value } => Write::Swap {
                key: KEYS[key].into(),
                expected,
                value: value.map(|byte| record(byte.to_string())),
            },
            Self::Reopen => return None,
        })
    }
}

async fn perform(store: &Arc<dyn Store>, write: Write) -> Written {
    match write {
        Write::Activate { group, create } => Written::Activated(store.activate(group, create).await.unwrap()),
        Write::Append(append) => Written::Appended(store.append(*append).await),
        Write::RaiseCursors(raises) => {
            store.raise_cursors(raises).await.unwrap();
            Written::CursorsRaised
        }
        Write::Swap { key, expected, value } => {
            Written::Swapped(store.compare_and_swap(&key, expected, value).await.unwrap())
        }
    }
}

async fn run(place: impl Place, steps: Vec<Step>) -> TestCaseResult {
    let mut model = Model::default();
    let mut store = Some(place.open().await);
    for step in steps {
        if let Some(write) = step.write(&model) {
            let held = store.as_ref().expect("it is open between steps");
            prop_assert_eq!(perform(held, write.clone()).await, model.apply(write));
        } else {
            drop(store.take());
            store = Some(place.open().await);
        }
    }
    compare(&store.expect("it is open between steps"), &model).await
}

async fn compare(store: &Arc<dyn Store>, model: &Model) -> TestCaseResult {
    let users = USERS.map(user);
    for id in groups() {
        prop_assert_eq!(store.group(id).await.unwrap(), model.group(id));
        for from in 1..12 {
            let limit = ReadLimit { records_max: 3, bytes_max: 200 };
            prop_assert_eq!(
                store.read(id, seq(from), limit).await.unwrap(),
                model.read(id, seq(from), limit)
            );
            prop_assert_eq!(store.edits_of(id, seq(from)).await.unwrap(), model.edits_of(id, seq(from)));
        }
        prop_assert_eq!(store.members(id, &users).await.unwrap(), model.members(id, &users));
        for after in [None, Some((Slot::of(&users[1]), users[1].clone()))] {
            let found = store.members_page(id, 0..SLOTS, after.clone(), 2).await.unwrap();
            prop_assert_eq!(found, model.members_page(id, 0..SLOTS, after, 2));
        }
        for of in &users {
            let senders = model.senders_of(id, of);
            prop_assert_eq!(&store.senders_of(id, of).await.unwrap(), &senders);
            for sender in senders {
                prop_assert_eq!(store.sender(id, &sender).await.unwrap(), model.sender(id, &sender));
            }
        }
    }
    for of in &users {
        prop_assert_eq!(store.groups_of(of, None, 2).await.unwrap(), model.groups_of(of, None, 2));
        prop_assert_eq!(store.cursors(of, &groups()).await.unwrap(), model.cursors(of, &groups()));
    }
    prop_assert_eq!(store.notices_due(None, 2).await.unwrap(), model.notices_due(None, 2));
    for prefix in ["", "k", "k/", "l"] {
        prop_assert_eq!(store.setting(prefix).await.unwrap(), model.setting(prefix));
        prop_assert_eq!(store.settings(prefix).await.unwrap(), model.settings(prefix));
    }
    Ok(())
}

fn block_on(case: impl Future<Output = TestCaseResult>) -> TestCaseResult {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(case)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_memory_store_is_the_model(steps in vec(step(), 1..60)) {
        block_on(run(memory(), steps))?;
    }

    #[test]
    fn the_fjall_store_is_the_model(steps in vec(step(), 1..60)) {
        block_on(run(fjall(), steps))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_postgres_store_is_the_model(databases in 1..3_usize, steps in vec(step(), 1..60)) {
        block_on(async { run(postgres(databases).await, steps).await })?;
    }
}
