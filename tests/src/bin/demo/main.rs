//! `cargo xtask demo`: Tandem at work, in a lab of its own.
//!
//! Without arguments, a live view for a person at a terminal; with `--once`, a story that plays
//! by itself. Everything here may die at any moment: the kernel takes namespaces and processes
//! away, and `cargo xtask demo`, which starts this program, the rest.

mod acts;
mod config;
mod cut;
mod hosts;
mod lasting;
mod relay;
mod stage;
mod story;
mod takeover;
mod terminal;
mod traffic;
mod view;

use std::{env, process::ExitCode};

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => view::show(),
        ["--once"] => story::play(),
        _ => {
            eprintln!("usage: demo [--once]");
            return ExitCode::from(2);
        }
    };
    exit_code(&result)
}

fn exit_code(result: &Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("demo: {error:#}");
    ExitCode::FAILURE
}
