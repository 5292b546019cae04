//! A node that is told to use PostgreSQL.

use serde_json::Value;
use shoal_engines::Postgres;

use crate::{
    running::{Running, run, stderr},
    world::{client, database_on, eventually},
};

fn ask(node: &Running, args: &[&str]) -> Value {
    let output = run(&[args, &["--json", "--node", &node.address(), "--data", node.data()]].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_only_keys_in_its_folder_and_outlives_a_restart_of_its_database() {
    let mut server = Postgres::start();
    let url = database_on(&server.url()).await;
    let node = Running::start(&["--set", &format!("store.postgres={url}")]);
    assert_eq!(node.get("/readyz").0, 200);
    let create = ["group", "create", "#g", "--owner", "ann", "--member", "bob"];
    let created = ask(&node, &create);
    let rows = "SELECT count(*) FROM shoal.members";
    assert_eq!(client(&url).await.query_one(rows, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert!(!node.dir.path().join("store").exists());

    server.stop();
    eventually(async || (node.get("/readyz").0 == 503).then_some(())).await;
    server.up();
    eventually(async || (node.get("/readyz").0 == 200).then_some(())).await;
    ask(&node, &["group", "add", "#g", "carol"]);

    // Another node, with a folder of its own, has the same groups.
    drop(node);
    let other = Running::start(&["--set", &format!("store.postgres={url}")]);
    assert_eq!(ask(&other, &create)["seq"], created["seq"]);
    assert_eq!(ask(&other, &["group", "members", "#g"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_node_says_why_it_does_not_use_a_server_and_what_to_do() {
    let server = Postgres::start_with(&["fsync=off"]);
    let (dir, url) = (tempfile::tempdir().unwrap(), server.url());
    let store = format!("store.postgres={url}");
    let (data, listen) = (dir.path().to_str().unwrap(), ["--listen", "127.0.0.1:0", "--ops", "off"]);
    let output = run(&[&["serve", "--data", data, "--set", &store], &listen[..]].concat());
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains("fsync = off") && said.contains("Set fsync = on"), "{said}");
}
