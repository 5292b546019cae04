//! Writes keys and certificates for operators.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use shoal_certs::{KeyFolder, NODE_NAME, Seed, folder};

/// Makes the keys and certificates of Shoal nodes.
///
/// `shoal serve` makes its own at its first start, which is all that one node needs. Use this for
/// several nodes, or to keep the private keys apart.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Two nodes of one authority:
  shoal-certs ca        --dir authority
  shoal-certs token-key --dir authority
  shoal-certs node      --dir node-1 --ca authority --name chat-1.example.org --name 192.0.2.7
  shoal-certs node      --dir node-2 --ca authority --name chat-2.example.org
  cp authority/token.pub node-1/   # and to node-2: nodes verify tokens, and need not sign them

Copy each node's folder to its machine, as the data folder that `shoal serve --data` names. Clients get
ca.pem. The .key files in `authority` stay where you are.

No file that exists is overwritten, but a node's certificate that nears its end.";

#[derive(Subcommand)]
enum Command {
    /// Make an authority: ca.pem, which clients and nodes trust, and its private key, ca.key.
    Ca {
        #[command(flatten)]
        dir: Dir,
    },
    /// Make a node's certificate and private key: node.pem, node.key, and a copy of ca.pem.
    Node {
        #[command(flatten)]
        dir: Dir,
        /// The folder with ca.pem and ca.key; that of --dir, unless given.
        #[arg(long, value_name = "DIR")]
        ca: Option<PathBuf>,
        /// A DNS name or IP address under which clients reach the node; give one for each.
        #[arg(long = "name", value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Make the key that signs users' tokens, token.key, and the one that verifies them, token.pub.
    ///
    /// To change keys: make new ones in another folder, append their token.pub to that of every
    /// node, restart the nodes in turn, then sign with the new token.key. Once the old tokens have
    /// expired, take the old key out of token.pub.
    TokenKey {
        #[command(flatten)]
        dir: Dir,
    },
}

#[derive(Args)]
struct Dir {
    /// The folder to write to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
    let now_ms = u64::try_from(now_ms)?;
    let seed = Seed::random();
    let (folder, written) = match Cli::parse().command {
        Command::Ca { dir } => {
            let folder = KeyFolder::create_dir(dir.dir)?;
            folder.create_authority(&seed, now_ms)?;
            (folder, [folder::CA_CERT, folder::CA_KEY].as_slice())
        }
        Command::Node { dir, ca, names } => {
            let folder = KeyFolder::create_dir(dir.dir)?;
            match ca {
                Some(ca) => folder.create_node_from(&KeyFolder::open(ca)?, &names, &seed, now_ms)?,
                None => folder.create_node(&names, &seed, now_ms)?,
            }
            println!("The certificate names {NODE_NAME}, {}.", names.join(", "));
            (folder, [folder::CA_CERT, folder::NODE_CERT, folder::NODE_KEY].as_slice())
        }
        Command::TokenKey { dir } => {
            let folder = KeyFolder::create_dir(dir.dir)?;
            folder.create_token_key(&seed)?;
            (folder, [folder::TOKEN_KEY, folder::TOKEN_PUB].as_slice())
        }
    };
    for name in written {
        let path = folder.path().join(name);
        let absent = if path.exists() { "" } else { "  (not here)" };
        println!("{}{absent}", path.display());
    }
    Ok(())
}
