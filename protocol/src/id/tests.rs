//! Round trips and refusals.

use proptest::prelude::*;

use super::*;

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

#[test]
fn a_user_id_has_its_length_and_its_characters() {
    for name in ["a", "ada@example.org", "A-Z_0.9+x", &"a".repeat(64)] {
        assert_eq!(UserId::new(name).unwrap().as_str(), name);
    }
    for name in ["", " ", "a b", "a/b", "a#b", "\0", "ad\u{e4}", &"a".repeat(65)] {
        assert!(matches!(UserId::new(name), Err(IdError::User(_))), "{name:?}");
    }
}

#[test]
fn an_error_shows_no_more_than_a_glimpse_of_what_it_refuses() {
    let flood = "\u{1f41f}".repeat(100_000);
    let longest = [
        UserId::new(&flood).unwrap_err().to_string(),
        flood.parse::<GroupId>().unwrap_err().to_string(),
        flood.parse::<DeviceId>().unwrap_err().to_string(),
    ];
    assert!(longest.iter().all(|text| text.len() < 500));
}

#[test]
fn what_is_no_device_is_refused() {
    for text in ["", "+1", "-1", "0x1", "g", "00000000000000000", " 1"] {
        assert!(matches!(text.parse::<DeviceId>(), Err(IdError::Device(_))), "{text:?}");
    }
}

#[test]
fn what_is_no_group_is_refused() {
    let long = format!("#{}", "n".repeat(65));
    for text in [
        "",
        "#",
        "general",
        &"0".repeat(31),
        &"0".repeat(33),
        &"g".repeat(32),
        "+0000000000000000000000000000001",
        &long,
    ] {
        assert!(matches!(text.parse::<GroupId>(), Err(IdError::Group(_))), "{text:?}");
    }
    for length in (0..64).filter(|length| *length != 16) {
        assert_eq!(GroupId::from_wire(&vec![0; length]), Err(IdError::GroupBytes(length)));
    }
}

/// Ids are stored and compared between versions: these never change.
#[test]
fn names_and_users_have_the_same_ids_for_ever() {
    assert_eq!(GroupId::named("general").to_string(), "5eb7131f377d78cdb4226919704e1c17");
    assert_eq!(GroupId::own(&user("ada")).to_string(), "99d0191a4a07579538f81a3f3f84fc45");
    assert_eq!(Slot::of(&user("ada")).number(), 47);
    assert_eq!(GroupId::named("general").stable_hash(), 2_251_516_701_878_193_630);
}

#[test]
fn slots_are_even() {
    let mut members = [0_u32; 16];
    for number in 0..16_000 {
        members[usize::from(Slot::of(&user(&format!("user-{number}"))).number() / (SLOTS / 16))] += 1;
    }
    assert!(members.iter().all(|count| (850..1150).contains(count)), "{members:?}");
}

proptest! {
    #[test]
    fn ids_are_themselves_again_after_text_and_wire(random: u128, device: u64, own: bool) {
        let group = if own { GroupId::own(&user(&format!("u{random}"))) } else { GroupId::from_random(random) };
        prop_assert_eq!(group.is_own(), own);
        prop_assert_eq!(group.to_string().parse(), Ok(group));
        prop_assert_eq!(GroupId::from_wire(&group.to_wire()), Ok(group));
        prop_assert_eq!(GroupId::from_wire(group.as_bytes()), Ok(group));
        let device = DeviceId(device);
        prop_assert_eq!(device.to_string().parse(), Ok(device));
    }

    #[test]
    fn a_named_group_is_nobodys_own(name in ".{1,16}") {
        prop_assert!(!GroupId::named(&name).is_own());
    }

    #[test]
    fn an_incarnation_tells_when_it_was_issued(now_ms in 0..1_u64 << 44, random: u64) {
        prop_assert_eq!(Incarnation::issue(now_ms, random).issued_ms(), now_ms);
    }

    #[test]
    fn a_slot_is_below_the_count_and_keeps_its_number(name in "[a-zA-Z0-9._@+-]{1,64}", number: u16) {
        prop_assert!(Slot::of(&user(&name)).number() < SLOTS);
        prop_assert_eq!(Slot::new(number).map(Slot::number), (number < SLOTS).then_some(number));
    }

    #[test]
    fn parsing_never_panics(text in ".*") {
        let _ = text.parse::<UserId>();
        let _ = text.parse::<GroupId>();
        let _ = text.parse::<DeviceId>();
    }
}
