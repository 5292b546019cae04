//! The command `shoal`.

mod cli;

use std::process::ExitCode;

/// Frees and allocates small buffers on many threads, which is most of what a node does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
