//! Every chore of the project, as `cargo xtask` verbs.

mod bench;
mod build_ebpf;
mod demo;
mod ebpf;
mod elapsed;
mod processes;
mod setup;
mod step;
mod test;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every chore of Tandem.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what building and testing need, if it is missing.
    Setup,
    /// Compile the XDP program and say with what.
    BuildEbpf(build_ebpf::Arguments),
    /// Show Tandem at work, in a lab of its own.
    Demo(demo::Arguments),
    /// Format, lints, licences and tests; all of them, or the groups named.
    Test(test::Arguments),
    /// Measure, and say what it was measured on; all groups of figures, or those named.
    Bench(bench::Arguments),
    /// Be the first process of the machine of `test vm`.
    #[command(hide = true)]
    Guest,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Verb::BuildEbpf(arguments) => build_ebpf::run(&arguments).map(|()| ExitCode::SUCCESS),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Test(arguments) => Ok(test::run(&arguments)),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Guest => test::guest().map(|never| match never {}),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_verbs_that_exist() {
        let readme = include_str!("../../README.md");
        let shown: Vec<_> = readme
            .lines()
            .filter_map(|line| line.strip_prefix("cargo xtask "))
            .filter_map(|line| line.split('#').next())
            .collect();
        assert!(shown.len() >= 2, "{shown:?}");
        for verb in shown {
            let words = ["cargo xtask"].into_iter().chain(verb.split_whitespace());
            if let Err(error) = Arguments::try_parse_from(words) {
                panic!("cargo xtask {verb}: {error}");
            }
        }
    }
}
