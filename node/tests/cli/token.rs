//! Tokens from the data folder.

use shoal_certs::KeyFolder;

use crate::running::{Running, run, stderr, stdout};

#[test]
fn a_token_says_who_it_is_for_and_verifies() {
    let dir = Running::start(&[]).stop();
    let data = dir.path().to_str().unwrap();
    let made = run(&[
        "token", "--user", "ann", "--device", "00ff", "--admin", "--ttl", "2h", "--json", "--data", data,
    ]);
    let made: serde_json::Value = serde_json::from_str(&stdout(&made)).unwrap();
    let verifier = KeyFolder::open(data).unwrap().token_verifier().unwrap();
    let expires_ms = made["expires_ms"].as_u64().unwrap();
    let claims = verifier.verify(made["token"].as_str().unwrap(), expires_ms - 7_000_000).unwrap();
    assert_eq!((claims.user.as_str(), claims.admin), ("ann", true));
    assert_eq!(claims.device.unwrap().0, 0xff);

    let plain = run(&["token", "--user", "bob", "--data", data]);
    let claims = verifier.verify(stdout(&plain).trim(), expires_ms - 7_000_000).unwrap();
    assert_eq!((claims.user.as_str(), claims.admin, claims.device), ("bob", false, None));
}

#[test]
fn without_keys_the_error_says_where_they_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let refused = run(&["token", "--user", "ann", "--data", dir.path().to_str().unwrap()]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("--data"), "{}", stderr(&refused));
}

#[test]
fn a_name_that_is_none_is_refused() {
    let refused = run(&["token", "--user", "no body"]);
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("1 to 64 characters"), "{}", stderr(&refused));
}
