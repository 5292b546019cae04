//! The data folder: keys and certificates, the node's name and secret, and the store.

use std::{
    fs, io,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use shoal_certs::{FolderError, KeyFolder, Seed, TokenSigner};
use shoal_node::config::Config;

use super::{now_ms, output::Hinted};

const NAME: &str = "node.name";
const SECRET: &str = "quic.secret";
const STORE: &str = "store";

/// A node's data folder, with all that is in it before the store is opened.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) keys: KeyFolder,
    /// The node's name.
    pub(super) name: String,
    /// Secret, and the same after each restart.
    pub(super) secret: [u8; 32],
    /// Where the embedded store lies.
    pub(super) store: PathBuf,
    /// Was everything made just now?
    pub(super) is_new: bool,
}

impl Folder {
    /// Opens the folder and makes what is missing.
    pub(super) fn open_or_create(config: &Config) -> anyhow::Result<Self> {
        let dir = &config.data;
        let is_new = !dir.join(shoal_certs::folder::CA_CERT).exists();
        let keys = KeyFolder::open_or_create(dir, &certificate_names(config), &Seed::random(), now_ms())?;
        let name = match config.name.as_str() {
            "" => kept(&dir.join(NAME), || format!("node-{:08x}", rand::random::<u32>()))?,
            name => name.to_owned(),
        };
        let secret_path = dir.join(SECRET);
        let secret = kept(&secret_path, || to_hex(&rand::random()))?;
        let secret = from_hex(&secret)
            .with_context(|| format!("{}: not 64 hexadecimal digits", secret_path.display()))?;
        Ok(Self { keys, name, secret, store: dir.join(STORE), is_new })
    }
}

/// What signs tokens, with a word on where it may be if it is not there.
pub(super) fn token_signer(data: &Path) -> anyhow::Result<TokenSigner> {
    let signer = KeyFolder::open(data).and_then(|keys| keys.token_signer());
    signer.map_err(|error| match error {
        FolderError::Missing { .. } => Hinted {
            message: error.to_string(),
            hint: "name the data folder of the node with --data, or start a node: shoal serve".into(),
        }
        .into(),
        other => other.into(),
    })
}

/// The names that the node's certificate holds: those it is reached by, and this machine's.
fn certificate_names(config: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listened = config.listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    names.extend(listened.map(|ip| ip.to_string()));
    names.extend(config.advertise.iter().filter_map(|address| {
        let (host, _) = address.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
    }));
    names.sort();
    names.dedup();
    names
}

/// What a file holds; it is made, for its owner alone, where it is not there.
fn kept(path: &Path, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    let read = || fs::read_to_string(path).map(|text| text.trim().to_owned());
    let found = match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_new(path, &make()).and_then(|()| read())
        }
        other => other,
    };
    found.with_context(|| path.display().to_string())
}

/// Whole and synced, or not at all. Where another process was first, its file counts.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
        _ => fs::File::open(dir)?.sync_all(),
    }
}

fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_opened_again_is_the_same_node() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().join("data"), ..Config::default() };
        let first = Folder::open_or_create(&config).unwrap();
        let second = Folder::open_or_create(&config).unwrap();
        assert!(first.is_new && !second.is_new);
        assert_eq!((&first.name, first.secret), (&second.name, second.secret));
        assert_eq!(first.keys.ca_pem().unwrap(), second.keys.ca_pem().unwrap());
        let named = Folder::open_or_create(&Config { name: "n1".into(), ..config }).unwrap();
        assert_eq!(named.name, "n1");
    }

    #[test]
    fn a_secret_that_was_damaged_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data: dir.path().into(), ..Config::default() };
        fs::write(dir.path().join(SECRET), "abc").unwrap();
        let error = Folder::open_or_create(&config).unwrap_err().to_string();
        assert!(error.contains(SECRET), "{error}");
    }

    #[test]
    fn the_certificate_names_what_clients_connect_to() {
        let config = Config {
            listen: vec!["0.0.0.0:4433".parse().unwrap(), "192.0.2.7:4433".parse().unwrap()],
            advertise: vec!["chat.example.org:4433".into(), "[2001:db8::1]:4433".into()],
            ..Config::default()
        };
        let names = certificate_names(&config);
        for name in ["192.0.2.7", "chat.example.org", "2001:db8::1", "localhost"] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
        assert!(!names.contains(&"0.0.0.0".to_owned()));
    }
}
