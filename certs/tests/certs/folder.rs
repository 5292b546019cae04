//! Key folders: what is made, what is kept, what is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use shoal_certs::{Claims, FolderError, KeyFolder, Seed};
use tempfile::TempDir;

use crate::{DAY_MS, NOW_MS};

const FILES: [(&str, u32); 6] = [
    ("ca.key", 0o600),
    ("ca.pem", 0o644),
    ("node.key", 0o600),
    ("node.pem", 0o644),
    ("token.key", 0o600),
    ("token.pub", 0o644),
];

fn names() -> Vec<String> {
    ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
}

fn open(dir: &Path, seed: u64, now_ms: u64) -> Result<KeyFolder, FolderError> {
    KeyFolder::open_or_create(dir, &names(), &Seed::from_number(seed), now_ms)
}

fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn new_folder() -> (TempDir, PathBuf) {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("data/keys");
    open(&dir, 1, NOW_MS).unwrap();
    (temporary, dir)
}

#[test]
fn a_first_start_makes_everything_with_the_right_permissions() {
    let (_temporary, dir) = new_folder();
    let found: Vec<_> = contents(&dir).into_iter().map(|(path, _)| path).collect();
    assert_eq!(found, FILES.map(|(name, _)| dir.join(name)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for (name, expected) in FILES {
        assert_eq!(mode(&dir.join(name)), expected, "{name}");
    }
}

#[test]
fn a_second_start_changes_nothing() {
    let (_temporary, dir) = new_folder();
    let before = contents(&dir);
    open(&dir, 2, NOW_MS + DAY_MS).unwrap();
    assert_eq!(contents(&dir), before);
}

#[test]
fn the_same_seed_and_time_make_the_same_folder() {
    let (_one, first) = new_folder();
    let (_two, second) = new_folder();
    let bytes = |dir: &Path| contents(dir).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    assert_eq!(bytes(&first), bytes(&second));
}

#[test]
fn what_it_signs_it_verifies() {
    let (_temporary, dir) = new_folder();
    let folder = KeyFolder::open(&dir).unwrap();
    let token =
        folder.token_signer().unwrap().sign(&Claims::new("ada".parse().unwrap(), NOW_MS, NOW_MS + 1000));
    assert_eq!(folder.token_verifier().unwrap().verify(&token, NOW_MS).unwrap().user.as_str(), "ada");
}

/// A start cut short at any file: the next one makes the rest and keeps what is there.
#[test]
fn a_start_that_was_cut_short_is_finished_by_the_next() {
    let order = ["ca.key", "ca.pem", "node.key", "node.pem", "token.key", "token.pub"];
    for made in 0..order.len() {
        let (_temporary, dir) = new_folder();
        for name in &order[made..] {
            fs::remove_file(dir.join(name)).unwrap();
        }
        let before = contents(&dir);
        let folder = open(&dir, 2, NOW_MS).unwrap();
        folder.identity().unwrap();
        folder.token_verifier().unwrap();
        let after = contents(&dir);
        assert_eq!(after.len(), order.len());
        assert!(before.iter().all(|file| after.contains(file)), "a file changed, {made} were there");
    }
}

#[test]
fn a_certificate_near_its_end_is_made_anew_with_the_same_key() {
    let (_temporary, dir) = new_folder();
    let before = contents(&dir);
    let folder = open(&dir, 2, NOW_MS + 700 * DAY_MS).unwrap();
    folder.identity().unwrap();
    let changed: Vec<_> = contents(&dir).into_iter().filter(|file| !before.contains(file)).collect();
    assert_eq!(changed.into_iter().map(|(path, _)| path).collect::<Vec<_>>(), [dir.join("node.pem")]);
    // Two years after the first one's end.
    open(&dir, 2, NOW_MS + 1400 * DAY_MS).unwrap();
}

#[test]
fn a_new_name_makes_a_new_certificate_and_a_missing_one_does_not() {
    let (_temporary, dir) = new_folder();
    let before = fs::read(dir.join("node.pem")).unwrap();
    let seed = Seed::from_number(2);
    KeyFolder::open_or_create(&dir, &["localhost".to_owned()], &seed, NOW_MS).unwrap();
    assert_eq!(fs::read(dir.join("node.pem")).unwrap(), before);
    KeyFolder::open_or_create(&dir, &["chat.example.org".to_owned()], &seed, NOW_MS + 1).unwrap();
    assert_ne!(fs::read(dir.join("node.pem")).unwrap(), before);
}

#[test]
fn a_name_that_is_none_is_refused_by_name() {
    let temporary = TempDir::new().unwrap();
    let names = ["caf\u{e9} \u{1f41f}".to_owned()];
    let error =
        KeyFolder::open_or_create(temporary.path(), &names, &Seed::from_number(1), NOW_MS).unwrap_err();
    assert!(error.to_string().contains("caf"), "{error}");
}

#[test]
fn an_operator_may_keep_the_authority_and_the_signing_key_elsewhere() {
    let (_temporary, dir) = new_folder();
    fs::remove_file(dir.join("ca.key")).unwrap();
    fs::remove_file(dir.join("token.key")).unwrap();
    let before = contents(&dir);
    let folder = open(&dir, 2, NOW_MS).unwrap();
    assert_eq!(contents(&dir), before);
    folder.identity().unwrap();
    folder.token_verifier().unwrap();
    let missing = folder.token_signer().unwrap_err();
    assert!(missing.to_string().contains("token.key is missing"), "{missing}");
}

#[test]
fn an_expired_certificate_without_its_authority_stops_the_start() {
    let (_temporary, dir) = new_folder();
    fs::remove_file(dir.join("ca.key")).unwrap();
    let error = open(&dir, 2, NOW_MS + 731 * DAY_MS).unwrap_err();
    assert!(error.to_string().contains("node.pem"), "{error}");
}

#[test]
fn a_node_gets_its_certificate_from_the_authority_of_another_folder() {
    let (temporary, authority) = new_folder();
    let dir = temporary.path().join("node-2");
    let node = KeyFolder::create_dir(&dir).unwrap();
    let from = KeyFolder::open(&authority).unwrap();
    node.create_node_from(&from, &names(), &Seed::from_number(2), NOW_MS).unwrap();
    node.identity().unwrap();
    assert_eq!(node.ca_pem().unwrap(), from.ca_pem().unwrap());
    assert!(!dir.join("ca.key").exists());
    assert_ne!(fs::read(dir.join("node.key")).unwrap(), fs::read(authority.join("node.key")).unwrap());
}

#[test]
fn a_key_that_everybody_can_read_is_refused() {
    let (_temporary, dir) = new_folder();
    fs::set_permissions(dir.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = open(&dir, 2, NOW_MS).unwrap_err();
    assert!(matches!(&error, FolderError::Exposed(path) if path.ends_with("node.key")), "{error}");
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let (_one, first) = new_folder();
    let temporary = TempDir::new().unwrap();
    open(temporary.path(), 2, NOW_MS).unwrap();
    fs::copy(temporary.path().join("node.key"), first.join("node.key")).unwrap();
    let error = open(&first, 3, NOW_MS).unwrap_err();
    assert!(matches!(error, FolderError::Identity { .. }), "{error}");
}

#[test]
fn garbage_in_any_file_is_an_error_that_names_it() {
    for (name, _) in FILES {
        let (_temporary, dir) = new_folder();
        fs::write(dir.join(name), "garbage").unwrap();
        // So much later that the authority's key is needed too.
        let used = open(&dir, 2, NOW_MS + 700 * DAY_MS).and_then(|folder| {
            folder.identity()?;
            folder.token_signer()?;
            folder.token_verifier()
        });
        let error = used.expect_err(name);
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}

#[test]
fn several_first_starts_at_once_agree() {
    let temporary = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let dir = temporary.path();
            scope.spawn(move || open(dir, seed, NOW_MS + seed).unwrap());
        }
    });
    let folder = KeyFolder::open(temporary.path()).unwrap();
    folder.identity().unwrap();
    let token =
        folder.token_signer().unwrap().sign(&Claims::new("ada".parse().unwrap(), NOW_MS, NOW_MS + 1000));
    folder.token_verifier().unwrap().verify(&token, NOW_MS).unwrap();
    assert_eq!(contents(temporary.path()).len(), FILES.len(), "nothing temporary is left");
}
