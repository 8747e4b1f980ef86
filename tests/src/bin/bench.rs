//! `cargo xtask bench` builds this and runs it.

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};
use tests::bench::{Group, Machine, Report};

/// The options, as `cargo xtask bench` passes them on.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The groups to measure; all of them without any.
    groups: Vec<Group>,
    /// A file to write the rows to, as JSON, one row a line.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The object with the programs beside the product's.
    #[arg(long, hide = true)]
    programs: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { mut groups, json, programs } = arguments;
    if groups.is_empty() {
        groups.extend(Group::value_variants());
    }
    let machine = Machine::look()?;
    println!("{machine}");
    warn(machine.warning_before());

    let mut report = Report::default();
    for group in groups {
        let started = Instant::now();
        report.extend(group.run(&programs)?);
        eprintln!("{group:?}: measured in {:.0} s", started.elapsed().as_secs_f64());
    }
    println!("\n{}", report.table());
    warn(machine.warning_after()?);
    if let Some(path) = json {
        let rows = report.json_lines()?;
        fs::write(&path, rows).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn warn(warning: Option<String>) {
    if let Some(warning) = warning {
        println!("warning: {warning}");
    }
}
