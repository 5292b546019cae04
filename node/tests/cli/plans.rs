//! How a group is cut, seen and changed from the command line.

use serde_json::json;

use crate::running::{Running, ask, refused, run, stderr, text};

#[test]
fn a_plan_is_started_watched_halted_and_undone() {
    let node = Running::start(&["--set", "limits.group.plan_observe_ms=300"]);
    ask(&node, &["group", "create", "#g", "--title", "The hall", "--owner", "ann", "--member", "bob"]);
    assert_eq!(ask(&node, &["plan", "list"]), json!([]));
    assert!(text(&node, &["plan", "list"]).contains("no plan"));

    let started = ask(&node, &["plan", "start", "#g", "--sub-groups", "3"]);
    assert_eq!(started["plan"]["sub_groups_after"], 3);
    ask(&node, &["plan", "pause", "#g"]);
    let plans = ask(&node, &["plan", "list"]);
    assert_eq!(
        (plans[0]["title"].as_str(), plans[0]["plan"]["paused"].as_bool()),
        (Some("The hall"), Some(true))
    );
    assert!(text(&node, &["plan", "show", "#g"]).contains("paused"));
    let undone = ask(&node, &["plan", "rollback", "#g"]);
    assert_eq!(undone["last_plan"]["committed"], false);
    assert!(undone["last_plan"]["why"].as_str().unwrap().contains("shoal-admin"));
    assert!(refused(&node, &["plan", "rollback", "#g"]).contains("no plan is under way"));

    let said = text(&node, &["plan", "start", "#g", "--sub-groups", "3", "--watch"]);
    for step in ["0 %", "10 %", "30 %", "100 %", "committed"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    let shown = ask(&node, &["group", "show", "#g"]);
    let sub_groups = shown["layout"]["sub_groups"].as_array().unwrap();
    assert_eq!(sub_groups.len(), 3);
    let members: u64 = sub_groups.iter().map(|it| it["report"]["members"].as_u64().unwrap()).sum();
    assert_eq!(members, 2);
    assert!(sub_groups.iter().all(|it| it["report"]["ready"] == true && it["report"]["lag"] == 0), "{shown}");
    ask(&node, &["rebalance", "#g"]);
}

#[test]
fn hours_that_are_none_are_refused_by_their_key() {
    let output = run(&["config", "check", "--set", "limits.group.plan_hours=at night"]);
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains("plan_hours") && said.contains("22:00-05:30"), "{said}");
}
