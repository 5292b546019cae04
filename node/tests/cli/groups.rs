//! Groups, members and state of a running node, from the command line.

use serde_json::{Value, json};

use crate::running::{Running, ask, refused, run, shoal, stderr, stdout, text};

fn member<'m>(members: &'m Value, user: &str) -> &'m Value {
    let found = members.as_array().unwrap().iter().find(|member| member["user"] == user);
    found.unwrap_or(&Value::Null)
}

#[test]
fn a_group_is_created_changed_and_closed() {
    let node = Running::start(&[]);
    let create =
        ["group", "create", "#g", "--title", "G", "--owner", "ann", "--member", "bob", "--member", "eve"];
    let created = ask(&node, &create);
    assert_eq!(ask(&node, &create)["seq"], created["seq"], "again, it is answered likewise");

    ask(&node, &["group", "add", "#g", "carol"]);
    ask(&node, &["group", "remove", "#g", "bob"]);
    ask(&node, &["group", "role", "#g", "carol", "admin"]);
    ask(&node, &["group", "mute", "#g", "carol", "--for", "1h"]);
    ask(&node, &["group", "ban", "#g", "eve"]);
    ask(&node, &["group", "rename", "#g", "The hall"]);

    let members = ask(&node, &["group", "members", "#g"]);
    assert_eq!(member(&members, "ann")["role"], "owner");
    assert_eq!(member(&members, "bob"), &Value::Null);
    assert_eq!(member(&members, "eve")["banned"], true);
    let carol = member(&members, "carol");
    assert_eq!(carol["role"], "admin");
    assert!(carol["muted_until_ms"].as_u64().unwrap() > 1_790_000_000_000);
    let shown = text(&node, &["group", "members", "#g"]);
    assert!(shown.contains("muted until") && shown.contains("banned"), "{shown}");

    ask(&node, &["group", "mute", "#g", "carol", "--lift"]);
    ask(&node, &["group", "ban", "#g", "eve", "--lift"]);
    let members = ask(&node, &["group", "members", "#g"]);
    assert_eq!(member(&members, "carol")["muted_until_ms"], Value::Null);

    let group = ask(&node, &["group", "show", "#g"]);
    assert_eq!(
        (&group["title"], &group["members"], &group["closed"]),
        (&json!("The hall"), &json!(2), &json!(false))
    );
    ask(&node, &["group", "close", "#g", "--yes"]);
    assert_eq!(ask(&node, &["group", "show", "#g"])["closed"], true);
    assert!(refused(&node, &["group", "add", "#g", "dan"]).contains("closed"));
}

#[test]
fn thousands_are_added_from_a_file_and_listed_each_once() {
    let node = Running::start(&[]);
    ask(&node, &["group", "create", "#many"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let users: String = (0..5_000).map(|number| format!("user-{number}\n")).collect();
    std::fs::write(file.path(), users).unwrap();
    let added = ask(&node, &["group", "add", "#many", "--file", file.path().to_str().unwrap()]);
    assert_eq!(added["changed"], 5_000);
    let again = ask(&node, &["group", "add", "#many", "--file", file.path().to_str().unwrap()]);
    assert_eq!(again["changed"], 0);

    let members = ask(&node, &["group", "members", "#many"]);
    let mut names: Vec<&str> =
        members.as_array().unwrap().iter().map(|member| member["user"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5_001, "with the one who created it");
    let some = ask(&node, &["group", "members", "#many", "--limit", "7"]);
    assert_eq!(some.as_array().unwrap().len(), 7);
    assert_eq!(ask(&node, &["group", "list", "--user", "user-17"])[0]["members"], 5_001);
}

#[test]
fn the_status_is_what_the_node_says_of_itself() {
    let node = Running::start(&["--set", "name=harbour"]);
    let status = ask(&node, &["status"]);
    assert_eq!(
        (&status["node"], &status["writable"], &status["sessions"]),
        (&json!("harbour"), &json!(true), &json!(1))
    );
    assert!(text(&node, &["status"]).contains("harbour"));
    ask(&node, &["group", "create", "#g"]);
    assert!(ask(&node, &["status"])["committed"].as_u64().unwrap() >= 1);
    assert!(node.get("/metrics").1.contains("shoal_store_writable 1"));
}

#[test]
fn a_node_alone_is_the_only_one_and_cannot_be_drained() {
    let node = Running::start(&["--set", "name=harbour"]);
    let list = ask(&node, &["node", "list"]);
    let [only] = list["nodes"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(
        (&only["name"], &only["state"], &only["partitions"]),
        (&json!("harbour"), &json!("up"), &json!(1024))
    );
    assert_eq!(only["roles"], json!(["access", "group", "coordination"]));
    assert!(text(&node, &["node", "list"]).contains("harbour *"));
    assert!(refused(&node, &["drain", "harbour"]).contains("no other node"));
}

#[test]
fn groups_are_there_after_a_kill_and_a_restart() {
    let node = Running::start(&[]);
    ask(&node, &["group", "create", "#g", "--member", "bob"]);
    node.signal("-KILL");
    let node = Running::start_in(node.wait().1, &[]);
    assert_eq!(ask(&node, &["group", "show", "#g"])["members"], 2);
}

#[test]
fn errors_say_what_to_do() {
    let node = Running::start(&[]);
    let unknown = refused(&node, &["group", "show", "#nowhere"]);
    assert!(unknown.contains("UnknownGroup") && unknown.contains("shoal group create"), "{unknown}");
    let name = refused(&node, &["group", "show", "general"]);
    assert!(name.contains("#"), "{name}");
    let json =
        run(&["group", "show", "#nowhere", "--json", "--node", &node.address(), "--data", node.data()]);
    let error: Value = serde_json::from_slice(&json.stderr).unwrap();
    assert!(error["hint"].as_str().unwrap().contains("group create"), "{error}");
}

#[test]
fn a_user_s_token_does_not_administrate() {
    let node = Running::start(&[]);
    ask(&node, &["group", "create", "#g", "--owner", "ann"]);
    let token = run(&["token", "--user", "eve", "--data", node.data()]);
    let output = shoal()
        .args(["group", "add", "#g", "eve", "--node", &node.address(), "--data", node.data()])
        .env("SHOAL_TOKEN", stdout(&token).trim())
        .output()
        .unwrap();
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("hint:"), "{said}");
    assert_eq!(ask(&node, &["group", "show", "#g"])["members"], 1);
}

#[test]
fn another_folder_s_keys_are_not_this_node_s() {
    let node = Running::start(&[]);
    let other = Running::start(&[]);
    let ca = node.dir.path().join("ca.pem");
    let output = shoal()
        .args(["status", "--node", &node.address(), "--data", other.data(), "--ca"])
        .arg(ca)
        .output()
        .unwrap();
    let said = stderr(&output);
    assert!(!output.status.success() && said.contains("does not know the key"), "{said}");
}
