//! What has happened, from the command line.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use serde_json::Value;

use crate::running::{PATIENCE, Running, ask, refused, run, shoal, stderr, stdout, text};

fn events(node: &Running, more: &[&str]) -> Vec<Value> {
    let lines = text(node, &[&["events", "--json"], more].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command that goes on, line by line; it is killed when dropped.
struct Following {
    child: Child,
    lines: Receiver<Value>,
}

impl Following {
    fn start(node: &Running) -> Self {
        let mut child = shoal()
            .args(["events", "--follow", "--json", "--limit", "1"])
            .args(["--node", &node.address(), "--data", node.data()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, (sender, lines)) = (child.stdout.take().unwrap(), mpsc::channel());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may be over.
                drop(sender.send(serde_json::from_str(&line).unwrap()));
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn what_a_plan_does_is_shown_with_its_time_its_node_and_its_group() {
    let node = Running::start(&["--set", "limits.group.plan_observe_ms=300"]);
    ask(&node, &["group", "create", "#g", "--owner", "ann"]);
    text(&node, &["plan", "start", "#g", "--sub-groups", "2", "--watch"]);
    let events = events(&node, &[]);
    let group = ask(&node, &["plan", "show", "#g"])["group"].as_str().unwrap().to_owned();
    let of_group: Vec<_> = events.iter().filter(|event| event["group"] == group.as_str()).collect();
    let kinds: Vec<_> = of_group.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["plan_begun", "plan_step", "plan_step", "plan_step", "plan_committed"]);
    assert_eq!((&events[0]["kind"], &events[0]["number"]), (&"started".into(), &1.into()));
    assert!(of_group[0]["time"].as_str().unwrap().ends_with('Z') && of_group[0]["node"].is_string());
    assert_eq!((&of_group[0]["severity"], of_group[0]["text"].is_string()), (&"info".into(), true));

    let latest = text(&node, &["events", "--limit", "1"]);
    assert_eq!(latest.lines().count(), 1);
    assert!(latest.contains("plan_committed") && latest.contains(&group), "{latest}");
    assert!(refused(&node, &["events", "--limit", "0"]).contains("--limit"));
}

#[test]
fn a_follower_sees_what_comes() {
    let node = Running::start(&[]);
    let following = Following::start(&node);
    let latest = following.next();
    ask(&node, &["config", "set", "limits.cluster.events_max", "2"]);
    let set = following.next();
    assert_eq!(set["kind"], "setting_changed", "{set}");
    assert!(set["text"].as_str().unwrap().contains("limits.cluster.events_max"), "{set}");
    assert_eq!(set["number"].as_u64().unwrap(), latest["number"].as_u64().unwrap() + 1);
    ask(&node, &["config", "unset", "limits.cluster.events_max"]);
    assert_eq!(following.next()["kind"], "setting_changed");
}

#[test]
fn events_are_for_administrators() {
    let node = Running::start(&[]);
    let token = run(&["token", "--user", "eve", "--data", node.data()]);
    let output = shoal()
        .args(["events", "--node", &node.address(), "--data", node.data()])
        .env("SHOAL_TOKEN", stdout(&token).trim())
        .output()
        .unwrap();
    assert!(!output.status.success() && stderr(&output).contains("NotAllowed"), "{}", stderr(&output));
}
