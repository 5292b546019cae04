//! What is wrong with a configuration is named.

use crate::running::{run, shoal, stderr, stdout};

fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{}", stdout(&output));
    stderr(&output)
}

#[test]
fn errors_name_the_key() {
    let error = refused(&["config", "check", "--set", "limits.group.queue_max=0"]);
    assert!(error.contains("limits.group.queue_max"), "{error}");
    let error = refused(&["serve", "--set", "limits.grop.queue_max=1"]);
    assert!(error.contains("limits.grop.queue_max") && error.contains("did you mean"), "{error}");
    let error = refused(&["serve", "--set", "coordination.etcd=http://127.0.0.1:2379"]);
    assert!(error.contains("coordination.etcd") && error.contains("share one store"), "{error}");
    let error = refused(&["serve", "--config", "/nowhere.toml"]);
    assert!(error.contains("/nowhere.toml"), "{error}");
}

#[test]
fn errors_of_the_file_name_the_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "region = 'here'\n[limits.access]\nsessions = 3\n").unwrap();
    let error = refused(&["config", "check", "--config", file.path().to_str().unwrap()]);
    assert!(error.contains("line 3") && error.contains("sessions"), "{error}");
}

#[test]
fn the_environment_stands_over_the_file_and_flags_over_both() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "region = 'file'\nlog = 'file'\nname = 'file'\n").unwrap();
    let output = shoal()
        .args(["config", "show", "--json", "--set", "name=flag"])
        .env("SHOAL_CONFIG", file.path())
        .env("SHOAL_LOG", "warn")
        .env("SHOAL_NAME", "environment")
        .output()
        .unwrap();
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&config["region"], &config["log"], &config["name"]),
        (&"file".into(), &"warn".into(), &"flag".into())
    );
}

#[test]
fn what_is_shown_can_be_used() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), run(&["config", "show"]).stdout).unwrap();
    let output = run(&["config", "check", "--config", file.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
}
