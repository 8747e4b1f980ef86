//! The `tandem` command: its verbs, and nothing that they do.

mod orders;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use lb_daemon::{
    admin::{
        client::{self, ClientError},
        systemd,
        table::{self, flows},
    },
    config::{self, Log, LogFormat},
    core::{BackendName, ConnectionFilter, ConnectionState, Order, Prefix},
    dataplane, responder, runtime, stand_in,
};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use self::orders::{BackendOrder, SetOrder};

/// A redundant TCP load balancer in XDP.
#[derive(Debug, Parser)]
#[command(name = "tandem", version = VERSION)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// The version, and what compiled the XDP program that is built in.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (XDP program by ", env!("TANDEM_EBPF_TOOLCHAIN"), ")");

const CONFIG: &str = "/etc/tandem/tandem.toml";
const SOCKET: &str = "/run/tandem/tandem.sock";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground.
    Run {
        /// Configuration file.
        #[arg(short, long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Validate a configuration file, without touching anything.
    ///
    /// Exit code: 0 valid, 1 invalid, 2 wrong usage.
    Check {
        /// Configuration file.
        file: PathBuf,
        /// Print the effective configuration, with all defaults filled in.
        #[arg(short, long)]
        print: bool,
    },
    /// Show groups, services, backends, connections and what was dropped.
    Status {
        /// The whole status as JSON.
        #[arg(long)]
        json: bool,
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// List or count connections.
    ///
    /// A connection is shown if all of the filters hold for it.
    Flows {
        /// Only those of this service.
        #[arg(long)]
        service: Option<String>,
        /// Only those of this backend: BACKEND, or SERVICE/BACKEND.
        #[arg(long)]
        backend: Option<String>,
        /// Only those of this client, or of all with this prefix: 10.2.0.0/16.
        #[arg(long, value_name = "ADDRESS")]
        client: Option<Prefix>,
        /// Only those in this state.
        #[arg(long)]
        state: Option<ConnectionState>,
        /// No more than so many.
        #[arg(long, conflicts_with = "count")]
        limit: Option<u64>,
        /// Only how many each backend has.
        #[arg(long)]
        count: bool,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Have the running daemon read its configuration again.
    ///
    /// An invalid file is refused, and the old configuration stays in force.
    Reload {
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Hand a group of addresses over to the other host.
    ///
    /// This host gives the group up at once, and takes it back only if the other one is gone. To be
    /// run on the host that is its master. Established connections go on with the other host if it has
    /// them, by `[sync]`: `tandem status` says there whether the two are in sync.
    Failover {
        /// Name of the group.
        group: String,
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Drain a backend, take it into maintenance and back, or change its weight or its limit.
    ///
    /// This is in force at once, on this host only. It stays so over reloads and restarts, until it is
    /// undone by `ready`, `weight configured` and `maxconn configured`; `tandem status` shows it.
    /// Connections stay.
    #[command(subcommand_value_name = "ORDER", subcommand_help_heading = "Orders")]
    Backend {
        /// Name of the service and of the backend.
        #[arg(value_name = "SERVICE/BACKEND")]
        backend: BackendName,
        #[command(subcommand)]
        order: BackendOrder,
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET, global = true)]
        socket: PathBuf,
    },
    /// The same in HAProxy's words: set server SERVICE/BACKEND state drain.
    #[command(subcommand)]
    Set(SetOrder),
    /// Stop the running daemon for good: hand its groups over, and forward nothing any more.
    ///
    /// Connections of groups go on with the other host if it has them, by `[sync]`; all others end.
    ///
    /// SIGTERM does not do that: it has the daemon end to be started again, and somebody stands in
    /// for it for half a minute.
    Stop {
        /// Do nothing if systemd is just restarting this unit.
        #[arg(
            long,
            value_name = "UNIT",
            num_args = 0..=1,
            default_missing_value = "tandem.service",
            require_equals = true
        )]
        unless_restarting: Option<String>,
        /// Control socket of the daemon.
        #[arg(long, default_value = SOCKET)]
        socket: PathBuf,
    },
    /// Tell balancers whether something on this host can serve; no daemon is needed.
    Probe {
        #[command(subcommand)]
        what: Probe,
    },
    /// Stand in for a daemon that is being restarted; started by that daemon only.
    #[command(hide = true)]
    StandIn,
    /// Take the XDP program off all interfaces and forget all connections.
    ///
    /// For a host whose daemon is gone for good: a daemon that was killed leaves its packets
    /// flowing. One that runs is to be stopped instead.
    Detach {
        /// Directory of the data plane's pins, as `bpffs` in `[global]`.
        #[arg(long, default_value = "/sys/fs/bpf/tandem")]
        bpffs: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Probe {
    Mysql(responder::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Run { config } => run(config),
        Verb::Check { file, print } => check(&file, print),
        Verb::Status { json, socket } => status(&socket, json),
        Verb::Flows { service, backend, client, state, limit, count, json, socket } => {
            let filter = ConnectionFilter { service, backend, client, state };
            if count {
                count_flows(&socket, filter, json)
            } else {
                list_flows(&socket, filter, limit, json)
            }
        }
        Verb::Reload { socket } => reload(&socket),
        Verb::Failover { group, socket } => failover(&socket, &group),
        Verb::Backend { backend, order, socket } => administer(&socket, backend, order.into()),
        Verb::Set(order) => {
            let (backend, order, socket) = order.into_parts();
            administer(&socket, backend, order)
        }
        Verb::Stop { unless_restarting, socket } => stop(&socket, unless_restarting.as_deref()),
        Verb::Probe { what: Probe::Mysql(arguments) } => probe_mysql(arguments),
        Verb::StandIn => stand_in(),
        Verb::Detach { bpffs } => detach(&bpffs),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, as `head` has.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: PathBuf) -> Result<()> {
    let parsed = config::load(&path)?;
    start_log(&parsed.config.log)?;
    tokio::runtime::Runtime::new()
        .context("cannot start the tokio runtime")?
        .block_on(runtime::run(path, parsed))
}

fn check(file: &Path, print: bool) -> Result<()> {
    let parsed = config::load(file)?;
    for warning in &parsed.warnings {
        eprintln!("{warning}");
    }
    let mut out = io::stdout().lock();
    if print {
        write!(out, "{}", parsed.config.to_toml())?;
    } else {
        let services = parsed.config.services.len();
        let backends: usize = parsed.config.services.iter().map(|s| s.backends.len()).sum();
        let groups = match parsed.config.groups.len() {
            0 => String::new(),
            groups => format!("{groups} groups, "),
        };
        let what = format!("{groups}{services} services, {backends} backends");
        writeln!(out, "{}: valid ({what})", file.display())?;
    }
    Ok(())
}

fn status(socket: &Path, json: bool) -> Result<()> {
    let status = client::status(socket)?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        let coloured = out.is_terminal();
        write!(out, "{}", table::render(&status, coloured, None))?;
    }
    Ok(())
}

fn list_flows(
    socket: &Path,
    filter: ConnectionFilter,
    limit: Option<u64>,
    json: bool,
) -> Result<()> {
    let mut out = io::stdout().lock();
    let mut listing = flows::Listing::default();
    let more = client::flows(socket, filter, limit, |connections| -> Result<()> {
        let text = if json { json_lines(&connections)? } else { listing.lines(&connections) };
        Ok(out.write_all(text.as_bytes())?)
    })?;
    if more {
        eprintln!("there are more: --limit ended the list");
    } else if listing.is_empty() && !json {
        eprintln!("no connections");
    }
    Ok(())
}

fn count_flows(socket: &Path, filter: ConnectionFilter, json: bool) -> Result<()> {
    let counts = client::flow_counts(socket, filter)?;
    let mut out = io::stdout().lock();
    let coloured = out.is_terminal();
    let text = if json { json_lines(&counts)? } else { flows::counts(&counts, coloured) };
    Ok(out.write_all(text.as_bytes())?)
}

/// Each on a line of its own.
fn json_lines<T: Serialize>(things: &[T]) -> Result<String> {
    let mut lines = String::new();
    for thing in things {
        lines += &serde_json::to_string(thing)?;
        lines.push('\n');
    }
    Ok(lines)
}

fn reload(socket: &Path) -> Result<()> {
    let reloaded = client::reload(socket)?;
    for warning in &reloaded.warnings {
        eprintln!("{warning}");
    }
    println!("configuration {} is in force", reloaded.generation);
    Ok(())
}

fn failover(socket: &Path, group: &str) -> Result<()> {
    client::failover(socket, group)?;
    println!(
        "group {group} is being handed over: `tandem status` on the other host shows it there"
    );
    Ok(())
}

fn administer(socket: &Path, backend: BackendName, order: Order) -> Result<()> {
    let said = format!("backend {backend}: {order}");
    if let Some(why) = client::administer(socket, backend, order)? {
        eprintln!("this will not outlive the daemon: {why}");
    }
    println!("{said}");
    Ok(())
}

fn stop(socket: &Path, unless_restarting: Option<&str>) -> Result<()> {
    let Some(unit) = unless_restarting else { return Ok(client::stop(socket)?) };
    if systemd::is_restarting(unit) {
        return Ok(());
    }
    match client::stop(socket) {
        // systemd asks for this after a crash too.
        Ok(()) | Err(ClientError::NotRunning(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn probe_mysql(arguments: responder::Arguments) -> Result<()> {
    start_log(&Log { level: "info".to_owned(), format: LogFormat::Text })?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?
        .block_on(responder::run(arguments))
}

fn stand_in() -> Result<()> {
    let plan = stand_in::receive()?;
    start_log(&plan.config.log)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?
        .block_on(stand_in::run(plan))
}

fn detach(bpffs: &Path) -> Result<()> {
    match dataplane::detach_orphan(bpffs)? {
        0 => println!("nothing was attached"),
        n => println!("detached from {n} interface{}", if n == 1 { "" } else { "s" }),
    }
    Ok(())
}

/// Logs to the standard error output: the journal's, under systemd.
fn start_log(log: &Log) -> Result<()> {
    let level = &log.level;
    // What the libraries do is not what the operator wants to know: loading the program alone is
    // a thousand lines of debug.
    let libraries = if level == "error" { "error" } else { "warn" };
    let filter = EnvFilter::try_new(format!("{libraries},lb_daemon={level},tandem={level}"))
        .with_context(|| format!("[log] level: {level} is no level"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    match log.format {
        LogFormat::Json => builder.json().init(),
        // The journal has its own times.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().init();
        }
        LogFormat::Text => builder.init(),
    }
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The `tandem ...` in a line, up to what ends the command.
    fn commands(line: &str) -> Option<Vec<&str>> {
        let line = line.split(['#', '|', '&', '>']).next()?;
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| word.ends_with("tandem"))?;
        Some(words[at..].to_vec())
    }

    fn assert_understood(command: &[&str]) {
        if let Err(error) = Arguments::try_parse_from(command) {
            panic!("{}: {error}", command.join(" "));
        }
    }

    #[test]
    fn the_unit_of_systemd_runs_commands_that_exist() {
        let unit = include_str!("../../packaging/tandem.service");
        let lines: Vec<_> = unit.lines().filter(|line| line.starts_with("ExecSt")).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        for line in lines {
            assert_understood(&commands(&line.replacen('=', " ", 1)).expect("it runs tandem"));
        }
    }

    #[test]
    fn the_unit_of_the_probe_runs_a_command_that_exists() {
        let unit = include_str!("../../packaging/tandem-probe-mysql.service");
        let line = unit.lines().find(|line| line.starts_with("ExecStart=")).expect("it runs it");
        assert_understood(&commands(&line.replacen('=', " ", 1)).expect("it runs tandem"));
    }

    #[test]
    fn the_manual_of_the_probe_has_every_option() {
        let manual = include_str!("../../docs/probe.md");
        let command = <Arguments as clap::CommandFactory>::command();
        let probe = command.find_subcommand("probe").and_then(|verb| verb.find_subcommand("mysql"));
        for option in probe.expect("the verb").get_opts() {
            let row = format!("| `--{}` |", option.get_long().expect("a long name"));
            assert!(manual.contains(&row), "no row {row}");
        }
    }

    #[test]
    fn the_readme_shows_commands_that_exist() {
        let readme = include_str!("../../README.md");
        let shown = readme.lines().filter(|line| line.starts_with("tandem ")).filter_map(commands);
        let shown: Vec<_> = shown.collect();
        for verb in ["check", "run", "status", "reload", "detach"] {
            assert!(shown.iter().any(|command| command[1] == verb), "no tandem {verb}: {shown:?}");
        }
        for command in shown {
            assert_understood(&command);
        }
    }

    #[test]
    fn the_readme_shows_valid_configurations() {
        let readme = include_str!("../../README.md");
        let blocks: Vec<_> = readme.split("```toml\n").skip(1).collect();
        assert!(blocks.len() >= 2, "one for each host");
        for block in blocks {
            let (toml, _) = block.split_once("```\n").expect("the block ends");
            // The reader is yet to make that file.
            let toml = toml.replace(
                "key_file = \"/etc/tandem/sync.key\"",
                "key = \"0123456789abcdef0123456789abcdef\"",
            );
            let parsed = config::parse(&toml, "README.md").expect("it is valid");
            assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        }
    }
}
