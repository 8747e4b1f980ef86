//! `cargo xtask test`: every check of the project, in groups that also run alone.
//!
//! A group that fails does not keep the next ones from running. What counts is at the end: one
//! line for each group, what failed, what was skipped and why, and the totals as the last line.

mod checks;
mod harness;
mod leaks;
mod other_layout;
mod tally;
mod vm;

use std::{process::ExitCode, time::Instant};

use clap::ValueEnum;

use crate::{elapsed::Elapsed, setup};
use tally::Tally;

pub(crate) use vm::guest;

/// The options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The groups to run; without any, `setup` and then all of them.
    groups: Vec<Group>,
    /// Name the groups instead of running them.
    #[arg(long)]
    list: bool,
}

/// A group of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The source is formatted as rustfmt does it.
    Format,
    /// No warning by clippy, neither in the workspace nor in the XDP program, nor by rustdoc; and
    /// the fuzz targets compile.
    Lints,
    /// Dependencies have licences and sources that deny.toml allows.
    Licences,
    /// What can be tested within one process, without root.
    Unit,
    /// Packet tables: a packet in, a verdict and a packet out, through the real program. Root.
    Packets,
    /// The same on Debian's own kernel, in a virtual machine, and some of the scenarios.
    Vm,
    /// Scenarios with real clients and servers in network namespaces. Root.
    Netns,
}

const UNIT: &[&str] = &[
    "--package=lb-common",
    "--package=lb-daemon",
    "--package=tests",
    "--package=xtask",
    "--lib",
    "--bins",
    "--test=config_goldens",
    "--test=config_properties",
];

const PACKETS: &[&str] = &["--package=tests", "--test=packets"];

/// Netlink against the real kernel, the lab itself, and the product in it. (Cargo builds `tandem`
/// because `netlink` is a test of its package.)
const NETNS: &[&str] = &[
    "--package=lb-daemon",
    "--package=tests",
    "--test=netlink",
    "--test=lab",
    "--test=lab_cleanup",
    "--test=lab_pair",
    "--test=lab_xdp",
    "--test=netns",
];

impl Group {
    fn name(self) -> String {
        self.to_possible_value().expect("no group is hidden").get_name().to_owned()
    }

    fn purpose(self) -> String {
        let value = self.to_possible_value().expect("no group is hidden");
        value.get_help().map(ToString::to_string).unwrap_or_default()
    }

    fn run(self) -> Tally {
        match self {
            Self::Format => checks::format(),
            Self::Lints => checks::lints(),
            Self::Licences => checks::licences(),
            Self::Unit => harness::run(UNIT, &[]),
            Self::Packets => leaks::watched(|| harness::run(PACKETS, &[])),
            Self::Vm => vm::run(),
            Self::Netns => leaks::watched(scenarios),
        }
    }
}

fn scenarios() -> Tally {
    if let Err(error) = other_layout::build() {
        let mut tally = Tally::default();
        tally.fail(format!("not run: a tandem with maps of another layout: {error}"));
        return tally;
    }
    // One at a time: each has the machine's few cores to itself.
    harness::run(NETNS, &["--test-threads=1"])
}

/// Runs the verb. The exit code is a failure if anything failed, or if a group ran no test.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        for group in Group::value_variants() {
            println!("{:<9} {}", group.name(), group.purpose());
        }
        return ExitCode::SUCCESS;
    }

    let mut results = Vec::new();
    let mut groups = arguments.groups.clone();
    if groups.is_empty() {
        groups.extend(Group::value_variants());
        if let Err(error) = setup::run() {
            eprintln!("error: {error:#}");
            let mut tally = Tally::default();
            tally.fail(format!("setup: {}", error.to_string().lines().next().unwrap_or_default()));
            results.push(("setup".to_owned(), tally, String::new()));
        }
    }
    for group in groups {
        println!("\n=== {}: {}", group.name(), group.purpose());
        let started = Instant::now();
        let mut tally = group.run();
        if tally.is_empty() {
            tally.fail("no test ran".to_owned());
        }
        let elapsed = Elapsed(started.elapsed()).to_string();
        println!("=== {}: {} in {elapsed}", group.name(), tally.counts());
        results.push((group.name(), tally, elapsed));
    }
    summarise(&results)
}

fn summarise(results: &[(String, Tally, String)]) -> ExitCode {
    let mut total = Tally::default();
    println!();
    for (name, tally, elapsed) in results {
        println!("{name:<9} {:<36} {elapsed}", tally.counts());
        total.add(name, tally);
    }
    for failure in total.failures() {
        println!("FAILED    {failure}");
    }
    for skipped in total.skipped() {
        println!("skipped   {skipped}");
    }
    println!("{}", total.counts());
    if total.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
