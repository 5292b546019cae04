//! A node's keys and certificates on disk.
//!
//! | file | is | mode |
//! |---|---|---|
//! | `ca.pem` | the authority's certificate, for clients and other nodes | 0644 |
//! | `ca.key` | its private key; may be kept elsewhere once the nodes have certificates | 0600 |
//! | `node.pem` | the node's certificate | 0644 |
//! | `node.key` | its private key | 0600 |
//! | `token.key` | the private key that signs tokens; may be elsewhere, with whoever issues them | 0600 |
//! | `token.pub` | the public keys that verify tokens, one after the other | 0644 |
//!
//! Each file appears whole or not at all, synced, and a key that is there is never overwritten. A
//! node's certificate is made anew at a start when it nears its end or lacks a name, if the
//! authority's key is there.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{
    Authority, Identity, IdentityError, IssueError, KeyError, PrivateKey, Seed, TokenKeyError, TokenSigner,
    TokenVerifier,
    authority::{check_chain, needs_renewal},
    identity::PRIVATE_KEY,
    roots_from_pem,
};

/// The authority's certificate.
pub const CA_CERT: &str = "ca.pem";
/// The authority's private key.
pub const CA_KEY: &str = "ca.key";
/// The node's certificate.
pub const NODE_CERT: &str = "node.pem";
/// The node's private key.
pub const NODE_KEY: &str = "node.key";
/// The private key that signs tokens.
pub const TOKEN_KEY: &str = "token.key";
/// The public keys that verify tokens.
pub const TOKEN_PUB: &str = "token.pub";

const FOLDER_MODE: u32 = 0o700;
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const OTHERS: u32 = 0o007;

/// What is wrong with a key folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that is needed is not there.
    #[error("{path} is missing: {why}")]
    Missing {
        /// Which.
        path: PathBuf,
        /// What it is needed for.
        why: &'static str,
    },
    /// A private key that everybody on the machine may read.
    #[error("{0} can be read by everybody on this machine: take that away (chmod o= {0})")]
    Exposed(PathBuf),
    /// A certificate that does not parse, or does not fit its key.
    #[error("{path}: {source}")]
    Identity {
        /// Which.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// A key that does not parse.
    #[error("{path}: {source}")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// A token key that does not parse.
    #[error("{path}: {source}")]
    Token {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TokenKeyError,
    },
    /// The node's certificate cannot be used now, and could not be made.
    #[error("{path}: {source}")]
    Issue {
        /// Which.
        path: PathBuf,
        /// Why.
        source: IssueError,
    },
}

/// A folder with a node's keys and certificates.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    dir: PathBuf,
}

impl KeyFolder {
    /// Opens the folder and makes what is not there yet: authority, node certificate for `names`
    /// (DNS names and IP addresses) and token key. `now_ms` is milliseconds since 1970.
    ///
    /// What an operator has put there is used, never replaced: where only `ca.pem` is there, no
    /// authority is made; where only `token.pub` is, no token key.
    ///
    /// # Errors
    /// [`FolderError`] names the file.
    pub fn open_or_create(
        dir: impl Into<PathBuf>,
        names: &[String],
        seed: &Seed,
        now_ms: u64,
    ) -> Result<Self, FolderError> {
        let folder = Self::create_dir(dir)?;
        folder.create_authority(seed, now_ms)?;
        folder.create_node(names, seed, now_ms)?;
        folder.create_token_key(seed)?;
        Ok(folder)
    }

    /// A folder that is there, without making anything in it.
    ///
    /// # Errors
    /// [`FolderError::Missing`] where it is not.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let dir = dir.into();
        if dir.is_dir() {
            Ok(Self { dir })
        } else {
            Err(FolderError::Missing { path: dir, why: "it holds the keys" })
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The authority's certificate, for clients.
    ///
    /// # Errors
    /// [`FolderError`] where it cannot be read.
    pub fn ca_pem(&self) -> Result<String, FolderError> {
        self.need(CA_CERT, "clients and nodes trust by it")
    }

    /// The node's certificate and key.
    ///
    /// # Errors
    /// [`FolderError`] where one cannot be read, or they do not belong together.
    pub fn identity(&self) -> Result<Identity, FolderError> {
        let chain = self.need(NODE_CERT, "a node shows it to whoever connects")?;
        let key = self.need(NODE_KEY, "a node proves with it who it is")?;
        let ca = self.ca_pem()?;
        let of = |name| move |source| FolderError::Identity { path: self.file(name), source };
        roots_from_pem(&ca).map_err(of(CA_CERT))?;
        Identity::from_pem(&ca, &chain, &key).map_err(|source| match source {
            IdentityError::Pem { what: PRIVATE_KEY, .. } => of(NODE_KEY)(source),
            other => of(NODE_CERT)(other),
        })
    }

    /// What issues tokens.
    ///
    /// # Errors
    /// [`FolderError`] where the private key is not here, or cannot be read.
    pub fn token_signer(&self) -> Result<TokenSigner, FolderError> {
        let key = self.need(TOKEN_KEY, "tokens are issued with it")?;
        TokenSigner::from_pem(&key)
            .map_err(|source| FolderError::Token { path: self.file(TOKEN_KEY), source })
    }

    /// What checks tokens.
    ///
    /// # Errors
    /// [`FolderError`] where the public keys are not here, or cannot be read.
    pub fn token_verifier(&self) -> Result<TokenVerifier, FolderError> {
        let keys = self.need(TOKEN_PUB, "tokens are verified with it")?;
        TokenVerifier::from_pem(&keys)
            .map_err(|source| FolderError::Token { path: self.file(TOKEN_PUB), source })
    }

    /// The folder alone, made where it is not there.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn create_dir(dir: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let dir = dir.into();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&dir)
            .map_err(|source| FolderError::Io { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// The authority, made where neither its certificate nor its key is there.
    ///
    /// # Errors
    /// [`FolderError`] names the file.
    pub fn create_authority(&self, seed: &Seed, now_ms: u64) -> Result<(), FolderError> {
        if self.read(CA_CERT)?.is_some() {
            return Ok(());
        }
        if self.read(NODE_CERT)?.is_some() {
            return Err(FolderError::Missing {
                path: self.file(CA_CERT),
                why: "the node's certificate is of it",
            });
        }
        // A key without its certificate is what a start leaves that was cut short.
        let key = self.key_or_create(CA_KEY, seed, "ca")?;
        self.write_new(CA_CERT, PUBLIC_MODE, Authority::new(key, now_ms).cert_pem())?;
        Ok(())
    }

    /// The node's key and certificate, made where they are not there; the certificate is made anew
    /// where it nears its end or lacks one of `names`, as long as the authority's key is here.
    ///
    /// # Errors
    /// [`FolderError`] names the file; a certificate that is not valid now is an error.
    pub fn create_node(&self, names: &[String], seed: &Seed, now_ms: u64) -> Result<(), FolderError> {
        if self.read(CA_KEY)?.is_some() {
            return self.create_node_from(self, names, seed, now_ms);
        }
        if self.read(NODE_CERT)?.is_none() {
            return Err(FolderError::Missing {
                path: self.file(NODE_CERT),
                why: "it is what clients know this node by, and without ca.key it cannot be made here",
            });
        }
        check_chain(self.identity()?.certificate(), &self.ca_pem()?, now_ms)
            .map_err(|source| self.not_issued(source))
    }

    /// The same, by the authority in another folder, whose certificate this folder gets too.
    ///
    /// # Errors
    /// [`FolderError`] names the file.
    pub fn create_node_from(
        &self,
        authority: &Self,
        names: &[String],
        seed: &Seed,
        now_ms: u64,
    ) -> Result<(), FolderError> {
        let ca = authority.ca_pem()?;
        self.write_new(CA_CERT, PUBLIC_MODE, &ca)?;
        if self.read(NODE_CERT)?.is_some() && !needs_renewal(&self.identity()?, &ca, names, now_ms) {
            return Ok(());
        }
        let authority_key = authority.need(CA_KEY, "certificates are issued with it")?;
        let authority = Authority::from_pem(&ca, &authority_key)
            .map_err(|source| FolderError::Key { path: authority.file(CA_KEY), source })?;
        let key = self.key_or_create(NODE_KEY, seed, "node")?;
        let chain = authority.issue(&key, names, now_ms).map_err(|source| self.not_issued(source))?;
        self.replace(NODE_CERT, &chain)?;
        // A ca.pem that was here before may be another authority's.
        check_chain(self.identity()?.certificate(), &self.ca_pem()?, now_ms)
            .map_err(|source| self.not_issued(source))
    }

    /// The keys of tokens, made where none is there.
    ///
    /// # Errors
    /// [`FolderError`] names the file.
    pub fn create_token_key(&self, seed: &Seed) -> Result<(), FolderError> {
        if self.read(TOKEN_PUB)?.is_some() {
            return Ok(());
        }
        let key = self.key_or_create(TOKEN_KEY, seed, "token")?;
        self.write_new(TOKEN_PUB, PUBLIC_MODE, &key.public_pem())?;
        Ok(())
    }

    fn key_or_create(
        &self,
        name: &'static str,
        seed: &Seed,
        purpose: &str,
    ) -> Result<PrivateKey, FolderError> {
        let text = match self.read(name)? {
            Some(text) => text,
            None => {
                let key = PrivateKey::derive(seed, purpose);
                self.write_new(name, SECRET_MODE, &key.to_pem())?;
                // Another process may have been first; whoever's file is there counts.
                self.need(name, "it has just been written")?
            }
        };
        PrivateKey::from_pem(&text).map_err(|source| FolderError::Key { path: self.file(name), source })
    }

    fn not_issued(&self, source: IssueError) -> FolderError {
        FolderError::Issue { path: self.file(NODE_CERT), source }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn need(&self, name: &str, why: &'static str) -> Result<String, FolderError> {
        self.read(name)?.ok_or_else(|| FolderError::Missing { path: self.file(name), why })
    }

    fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.file(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FolderError::Io { path, source }),
        };
        if path.extension().is_some_and(|extension| extension == "key") {
            let mode = fs::metadata(&path).map(|found| found.permissions().mode());
            if mode.map_err(|source| FolderError::Io { path: path.clone(), source })? & OTHERS != 0 {
                return Err(FolderError::Exposed(path));
            }
        }
        Ok(Some(text))
    }

    /// Writes a file that is not there; one that is stays as it is.
    fn write_new(&self, name: &str, mode: u32, text: &str) -> Result<(), FolderError> {
        self.write(name, mode, text, |file, path| match file.persist_noclobber(path) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop).map_err(|error| error.error),
        })
    }

    /// Writes a certificate over the one before.
    fn replace(&self, name: &str, text: &str) -> Result<(), FolderError> {
        self.write(name, PUBLIC_MODE, text, |file, path| {
            file.persist(path).map(drop).map_err(|error| error.error)
        })
    }

    /// Whole, synced, and only then under its name; the folder is synced after, so that the name
    /// is there too when the power goes.
    fn write(
        &self,
        name: &str,
        mode: u32,
        text: &str,
        persist: impl FnOnce(tempfile::NamedTempFile, &Path) -> io::Result<()>,
    ) -> Result<(), FolderError> {
        let path = self.file(name);
        let written = || {
            let mut file = tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .permissions(fs::Permissions::from_mode(mode))
                .tempfile_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            // The umask took from the mode that the file was opened with.
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            persist(file, &path)?;
            fs::File::open(&self.dir)?.sync_all()
        };
        written().map_err(|source| FolderError::Io { path: path.clone(), source })
    }
}
