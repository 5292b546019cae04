//! Runs a command with an etcd and a PostgreSQL of its own: `shoal-engines COMMAND [ARGUMENTS]`.

use std::process::{Command, ExitCode};

use shoal_engines::{ETCD_VARIABLE, Etcd, POSTGRES_VARIABLE, Postgres};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: shoal-engines COMMAND [ARGUMENTS]");
        return ExitCode::from(2);
    };
    let (etcd, postgres) = (Etcd::start(), Postgres::start());
    let mut command = Command::new(&program);
    command.args(arguments).env(ETCD_VARIABLE, etcd.endpoint()).env(POSTGRES_VARIABLE, postgres.url());
    match command.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("{}: {error}", program.display());
            ExitCode::from(127)
        }
    }
}
