//! Settings of a running node, from the command line.

use serde_json::{Value, json};

use crate::running::{Running, ask, refused, run, shoal, stderr, stdout, text};

const RATE: &str = "limits.group.member_rate_per_second";

#[test]
fn a_setting_is_shown_with_where_it_comes_from() {
    let node = Running::start(&["--set", "limits.group.idle_ms=7000"]);
    let all = ask(&node, &["config", "get"]);
    let of = |key: &str| {
        let settings = all["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    assert_eq!(of("limits.group.idle_ms")["from"], "flag");
    assert_eq!(of(RATE), json!({ "key": RATE, "value": 200, "from": "default", "live": true }));
    assert_eq!((&of("listen")["live"], &of("store.postgres")["value"]), (&json!(false), &Value::Null));
    let shown = text(&node, &["config", "get", "limits.group.idle_ms"]);
    assert!(shown.contains("7000") && shown.contains("flag") && !shown.contains(RATE), "{shown}");
    assert!(refused(&node, &["config", "get", "limits.moons"]).contains("shoal config get"));
}

#[test]
fn what_is_set_stands_over_flags_and_outlives_a_kill_until_it_is_unset() {
    let node = Running::start(&["--set", "limits.group.member_rate_per_second=7"]);
    let set = ask(&node, &["config", "set", RATE, "3"]);
    assert_eq!(set, json!({ "key": RATE, "value": 3, "from": "live", "live": true }));
    node.signal("-KILL");
    let node = Running::start_in(node.wait().1, &["--set", "limits.group.member_rate_per_second=7"]);
    assert_eq!(ask(&node, &["config", "get", RATE])["value"], 3);
    let unset = ask(&node, &["config", "unset", RATE]);
    assert_eq!((&unset["value"], &unset["from"]), (&json!(7), &json!("flag")));
}

#[test]
fn what_cannot_be_set_is_refused_with_what_to_do() {
    let node = Running::start(&[]);
    let refused = |args: &[&str]| refused(&node, &[&["config"], args].concat());
    assert!(refused(&["set", RATE, "many"]).contains(&format!("{RATE} cannot be \"many\"")));
    assert!(refused(&["set", RATE, "-1"]).contains(&format!("{RATE} cannot be \"-1\"")));
    assert!(refused(&["set", "member_rate_per_second", "3"]).contains(&format!("did you mean {RATE}?")));
    assert!(refused(&["set", "listen", "[::]:4433"]).contains("restart them in turn"));
    assert_eq!(ask(&node, &["config", "get", RATE])["from"], "default");
}

#[test]
fn settings_are_for_administrators() {
    let node = Running::start(&[]);
    let token = run(&["token", "--user", "eve", "--data", node.data()]);
    for args in [&["get"][..], &["set", RATE, "1"], &["unset", RATE], &["watch"]] {
        let output = shoal()
            .arg("config")
            .args(args)
            .args(["--node", &node.address(), "--data", node.data()])
            .env("SHOAL_TOKEN", stdout(&token).trim())
            .output()
            .unwrap();
        let said = stderr(&output);
        assert!(!output.status.success() && said.contains("NotAllowed"), "{args:?}: {said}");
    }
}
