//! Features of a group from the command line.

use serde_json::json;

use crate::running::{Running, ask, refused, text};

#[test]
fn a_feature_is_given_to_some_then_to_all_and_cleared() {
    let node = Running::start(&[]);
    ask(&node, &["group", "create", "#g"]);
    assert!(text(&node, &["group", "feature", "list", "#g"]).contains("no features"));
    ask(&node, &["group", "feature", "set", "#g", "composer", "old"]);
    let set = text(&node, &["group", "feature", "set", "#g", "composer", "new", "--percent", "10"]);
    assert!(set.contains("10 % of the members"), "{set}");
    ask(&node, &["group", "feature", "set", "#g", "shoal.messages_per_second", "5", "--sub-group", "0"]);
    assert_eq!(
        ask(&node, &["group", "feature", "list", "#g"]),
        json!([
            { "name": "composer", "value": "new", "percent": 10, "otherwise": "old" },
            { "name": "shoal.messages_per_second", "value": "5", "sub_group": { "number": 0, "of": 1 } },
        ])
    );
    let shown = text(&node, &["group", "feature", "list", "#g"]);
    assert!(shown.contains("10 %") && shown.contains("sub-group 0 of 1"), "{shown}");

    node.signal("-KILL");
    let node = Running::start_in(node.wait().1, &[]);
    ask(&node, &["group", "feature", "set", "#g", "composer", "new", "--all"]);
    ask(&node, &["group", "feature", "clear", "#g", "shoal.messages_per_second"]);
    assert_eq!(
        ask(&node, &["group", "feature", "list", "#g"]),
        json!([{ "name": "composer", "value": "new", "percent": 100 }])
    );
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let node = Running::start(&[]);
    ask(&node, &["group", "create", "#g"]);
    let set = |rest: &[&str]| refused(&node, &[&["group", "feature", "set", "#g"], rest].concat());
    assert!(set(&["Composer", "new"]).contains("a-z"));
    assert!(set(&["shoal.colour", "red"]).contains("shoal.messages_per_second"));
    assert!(set(&["shoal.payload_max_bytes", "much"]).contains("whole number"));
    assert!(set(&["composer", "new", "--sub-group", "3"]).contains("no sub-group 3"));
    assert!(set(&["composer", "new", "--percent", "0"]).contains("1..=100"));
}
