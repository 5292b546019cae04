//! `shoal group`: groups, their members and what these may do.

mod change;

mod feature;

mod show;

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use shoal_protocol::{GroupId, UserId, wire};

use super::{
    connection::{Access, Connection},
    output::Output,
};

/// Create groups, show them, and change who is in them.
#[derive(Debug, Args)]
pub(super) struct Group {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    access: Access,
}

/// A group is `#name`, or its id of 32 hexadecimal digits.
#[derive(Debug, Subcommand)]
enum Command {
    /// Create a group.
    Create {
        #[command(flatten)]
        group: Named,
        /// What people see; the name, unless given.
        #[arg(long)]
        title: Option<String>,
        /// Who owns it; whoever acts, unless given.
        #[arg(long, value_name = "USER")]
        owner: Option<UserId>,
        /// A first member; may be given more than once.
        #[arg(long = "member", value_name = "USER")]
        members: Vec<UserId>,
        /// Anyone may join who knows the group.
        #[arg(long)]
        open: bool,
        /// New members may not read what was said before they joined.
        #[arg(long)]
        hide_history: bool,
        /// The most members; no limit, unless given.
        #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
        members_max: u64,
    },
    /// Show a group.
    Show(Named),
    /// List the groups of a user.
    List {
        /// Whose; those of whoever acts, unless given.
        #[arg(long, value_name = "USER")]
        user: Option<UserId>,
    },
    /// List the members of a group.
    Members {
        #[command(flatten)]
        group: Named,
        /// The most to list.
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Add members, one or thousands.
    Add(Many),
    /// Remove members, one or thousands.
    Remove(Many),
    /// Give a member a role.
    Role {
        #[command(flatten)]
        group: Named,
        user: UserId,
        role: Role,
    },
    /// Keep a member from sending, for a while or until further notice.
    Mute {
        #[command(flatten)]
        group: Named,
        user: UserId,
        /// For how long: 10m, 2h, 7d; until further notice, unless given.
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
        /// Let them send again.
        #[arg(long, conflicts_with = "time")]
        lift: bool,
    },
    /// Remove a user and keep them out.
    Ban {
        #[command(flatten)]
        group: Named,
        user: UserId,
        /// Let them back in.
        #[arg(long)]
        lift: bool,
    },
    /// Give a group another title.
    Rename {
        #[command(flatten)]
        group: Named,
        title: String,
    },
    /// Give members something by name: some of them first, then more, then all.
    ///
    /// Apps are told at once, and decide what it means. Names that begin with shoal. are settings that
    /// the node goes by: shoal.messages_per_second (a member's messages a second in this group) and
    /// shoal.payload_max_bytes (of one message).
    #[command(subcommand)]
    Feature(feature::Command),
    /// Close a group for good. What was said can still be read.
    Close {
        #[command(flatten)]
        group: Named,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Which group.
#[derive(Debug, Clone, Args)]
pub(super) struct Named {
    /// `#name`, or an id of 32 hexadecimal digits.
    #[arg(value_name = "GROUP")]
    group: String,
}

/// A group and many users.
#[derive(Debug, Args)]
struct Many {
    #[command(flatten)]
    group: Named,
    users: Vec<UserId>,
    /// A file with a user on each line; `-` is standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "users")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Member,
    Admin,
    Owner,
}

impl Group {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let Self { command, access } = self;
        let access = match &command {
            Command::Create { owner: Some(owner), .. } => access.acting_as(owner.clone()),
            _ => access,
        };
        super::connection::with(&access, async |connection| command.run(connection, output).await)
    }
}

impl Command {
    async fn run(self, connection: &Connection, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Create { group, title, members, open, hide_history, members_max, owner: _ } => {
                let settings = wire::Settings {
                    title: title.unwrap_or_else(|| group.group.trim_start_matches('#').to_owned()),
                    open,
                    history_before_join: !hide_history,
                    members_max,
                };
                change::create(connection, &group, settings, &members, output).await
            }
            Self::Show(group) => show::group(connection, &group, output).await,
            Self::List { user } => show::groups(connection, user.as_ref(), output).await,
            Self::Members { group, limit } => show::members(connection, &group, limit, output).await,
            Self::Add(many) => change::add(connection, &many.group, &many.all()?, output).await,
            Self::Remove(many) => change::remove(connection, &many.group, &many.all()?, output).await,
            Self::Role { group, user, role } => change::role(connection, &group, &user, role, output).await,
            Self::Mute { group, user, time, lift } => {
                change::mute(connection, &group, &user, time, lift, output).await
            }
            Self::Ban { group, user, lift } => change::ban(connection, &group, &user, !lift, output).await,
            Self::Rename { group, title } => change::rename(connection, &group, title, output).await,
            Self::Feature(command) => command.run(connection, output).await,
            Self::Close { group, yes } => change::close(connection, &group, yes, output).await,
        }
    }
}

impl Named {
    pub(super) fn id(&self) -> anyhow::Result<GroupId> {
        Ok(self.group.parse::<GroupId>()?)
    }
}

impl Many {
    /// Those named and those in the file, each once, in the order given.
    fn all(&self) -> anyhow::Result<Vec<UserId>> {
        let mut users = self.users.clone();
        if let Some(path) = &self.file {
            users.extend(read_users(path)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        users.retain(|user| seen.insert(user.clone()));
        anyhow::ensure!(!users.is_empty(), "no users are named");
        Ok(users)
    }
}

/// A user on each line; empty lines are passed over.
fn read_users(path: &Path) -> anyhow::Result<Vec<UserId>> {
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        Box::new(io::BufReader::new(file))
    };
    let mut users = Vec::new();
    for (line, number) in reader.lines().zip(1..) {
        let line = line.with_context(|| path.display().to_string())?;
        if !line.trim().is_empty() {
            let user = line.trim().parse::<UserId>();
            users.push(user.with_context(|| format!("{}, line {number}", path.display()))?);
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(users: &[&str], file: Option<&Path>) -> Many {
        Many {
            group: Named { group: "#g".into() },
            users: users.iter().map(|user| user.parse().unwrap()).collect(),
            file: file.map(Into::into),
        }
    }

    #[test]
    fn users_come_from_arguments_and_file_each_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "bob\n\n  carol \nann\n").unwrap();
        let users = many(&["ann", "bob"], Some(file.path())).all().unwrap();
        assert_eq!(users.iter().map(UserId::as_str).collect::<Vec<_>>(), ["ann", "bob", "carol"]);
    }

    #[test]
    fn a_line_that_is_no_user_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "bob\nno body\n").unwrap();
        let error = format!("{:#}", many(&[], Some(file.path())).all().unwrap_err());
        assert!(error.contains("line 2") && error.contains("no body"), "{error}");
        assert!(many(&[], None).all().is_err());
    }
}
