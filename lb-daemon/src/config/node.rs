//! `[global]`, `[admin]` and `[log]`: what concerns the node as a whole.

use std::{
    collections::HashSet, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use toml::Spanned;

use super::{
    address, duration,
    model::{Admin, Global, Log, LogFormat, XdpMode},
    reader::{Field, Table},
    report::Read,
};

/// Longest name of a node, service or backend.
const LONGEST_NAME: usize = 64;
/// `IFNAMSIZ` of the kernel, less the terminating zero.
const LONGEST_INTERFACE: usize = 15;
/// `sun_path` of a Unix socket's address, less the terminating zero.
const LONGEST_SOCKET: usize = 107;
const MAX_HALF_OPEN: RangeInclusive<u32> = 256..=1_048_576;

/// `[global]`
pub(super) fn global(root: &mut Table<'_>) -> Read<Global> {
    root.table("global", "[global]").read(|table| {
        let node = match table.optional("node", name) {
            Some(node) => Ok(node),
            None => host_name(table),
        };
        let hint = "name the interfaces clients and backends are on: interfaces = [\"eth1\"]";
        let interfaces = table.required("interfaces", hint, interfaces);
        let xdp_mode = table.optional("xdp_mode", |field| {
            field.choice(&[
                ("auto", XdpMode::Auto),
                ("native", XdpMode::Native),
                ("generic", XdpMode::Generic),
            ])
        });
        let maxconn = table.optional("maxconn", |field| {
            let hint = "it is the room for connections in the table of each address family";
            field.integer(&(1024..=8_388_608), hint)
        });
        let maxconn = maxconn.unwrap_or(131_072);
        let max_half_open = table.optional("max_half_open", |field| max_half_open(field, maxconn));
        let source_ports = table.optional("source_ports", source_ports);
        let bpffs = table.optional("bpffs", path);
        let resolve_interval =
            table.optional("resolve_interval", |field| duration::read(field, &duration::CHECK));
        Ok(Global {
            node: node?,
            interfaces: interfaces?,
            xdp_mode: xdp_mode.unwrap_or(XdpMode::Auto),
            maxconn,
            max_half_open: max_half_open.unwrap_or_else(|| default_half_open(maxconn)),
            source_ports: source_ports.unwrap_or(1024..=32_767),
            bpffs: bpffs.unwrap_or_else(|| "/sys/fs/bpf/tandem".into()),
            resolve_interval: resolve_interval.unwrap_or(Duration::from_secs(10)),
        })
    })
}

/// `[admin]`; the place of the metrics' address is kept to compare it with the services'.
pub(super) fn admin(root: &mut Table<'_>) -> (Admin, Option<Spanned<SocketAddr>>) {
    root.table("admin", "[admin]").read(|table| {
        let socket = table.optional("socket", |field| {
            let socket = path(field)?;
            if socket.as_os_str().len() <= LONGEST_SOCKET {
                return Ok(socket);
            }
            let message = format!("`{}` is too long a path for a Unix socket", field.key());
            Err(field.error(message, format!("it can have {LONGEST_SOCKET} bytes")))
        });
        let metrics = table.optional("metrics", |field| Ok(field.spanned(address::socket(field)?)));
        let state_file = table.optional("state_file", path);
        let admin = Admin {
            socket: socket.unwrap_or_else(|| "/run/tandem/tandem.sock".into()),
            metrics: metrics.as_ref().map(|address| *address.get_ref()),
            state_file: state_file.unwrap_or_else(|| "/var/lib/tandem/overrides.json".into()),
        };
        (admin, metrics)
    })
}

/// `[log]`
pub(super) fn log(root: &mut Table<'_>) -> Log {
    root.table("log", "[log]").read(|table| {
        let level = table.optional("level", |field| {
            field.choice(&["error", "warn", "info", "debug", "trace"].map(|level| (level, level)))
        });
        let format = table.optional("format", |field| {
            field.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
        Log { level: level.unwrap_or("info").to_owned(), format: format.unwrap_or(LogFormat::Text) }
    })
}

/// A name that fits into metrics, commands and a line of the status.
pub(super) fn name(field: &Field<'_>) -> Read<String> {
    let name = field.string()?;
    if is_name(name) {
        return Ok(name.to_owned());
    }
    let message = format!("`{}` is not a usable name: {name:?}", field.key());
    let hint =
        format!("names are 1 to {LONGEST_NAME} letters, digits, dots, underscores and hyphens");
    Err(field.error(message, hint))
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn host_name(global: &Table<'_>) -> Read<String> {
    match nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()) {
        Ok(name) if is_name(&name) => Ok(name),
        _ => Err(global.missing(
            "`node` is missing in [global], and the host's own name can't stand in for it",
            "write node = \"lb1\"",
        )),
    }
}

fn interfaces(field: &Field<'_>) -> Read<Vec<String>> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for item in field.items() {
        names.push(interface(&item).and_then(|name| {
            if seen.insert(name.clone()) {
                return Ok(name);
            }
            Err(item.error(format!("the interface {name:?} is there twice"), "name it once"))
        }));
    }
    if names.is_empty() {
        let hint = "name the interfaces clients and backends are on: interfaces = [\"eth1\"]";
        return Err(field.error("`interfaces` is empty: no packet would be seen", hint));
    }
    names.into_iter().collect()
}

/// A name that an interface can have.
pub(super) fn interface(field: &Field<'_>) -> Read<String> {
    let name = field.string()?;
    // What the kernel's dev_valid_name() asks for.
    let usable = (1..=LONGEST_INTERFACE).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if usable {
        return Ok(name.to_owned());
    }
    let hint = format!(
        "names of interfaces have 1 to {LONGEST_INTERFACE} characters without `/`, `:` and \
         spaces; `ip link` lists them"
    );
    Err(field.error(format!("no interface can be called {name:?}"), hint))
}

fn max_half_open(field: &Field<'_>, maxconn: u32) -> Read<u32> {
    let value = field.integer(&MAX_HALF_OPEN, "use a power of two, such as 32768")?;
    if !value.is_power_of_two() {
        let (below, above) = (value.next_power_of_two() / 2, value.next_power_of_two());
        let message = format!("`{}` is {value}, which is not a power of two", field.key());
        return Err(field.error(message, format!("the nearest are {below} and {above}")));
    }
    if value > maxconn {
        let message = format!("`{}` is {value}, but `maxconn` is only {maxconn}", field.key());
        let hint =
            format!("leave it out to have {}, or raise `maxconn`", default_half_open(maxconn));
        return Err(field.error(message, hint));
    }
    Ok(value)
}

/// A quarter of the connections, rounded down to a power of two, 32768 at most.
fn default_half_open(maxconn: u32) -> u32 {
    (1 << (maxconn / 4).ilog2()).min(32_768)
}

fn source_ports(field: &Field<'_>) -> Read<RangeInclusive<u16>> {
    let text = field.string()?;
    let bounds = text.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
    });
    let Some((first, last)) = bounds else {
        let message = format!("`{}` is not a range of ports: {text:?}", field.key());
        return Err(field.error(message, "write the first and the last: \"1024-32767\""));
    };
    if first < 1024 {
        let message = format!("`{}` begins at {first}, among the well-known ports", field.key());
        return Err(field.error(message, "begin at 1024 or above"));
    }
    if first > last {
        let message = format!("`{}` ends before it begins: {text:?}", field.key());
        return Err(field.error(message, format!("did you mean \"{last}-{first}\"?")));
    }
    Ok(first..=last)
}

/// An absolute path.
pub(super) fn path(field: &Field<'_>) -> Read<PathBuf> {
    let text = field.string()?;
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(text.into());
    }
    let message = format!("`{}` is not an absolute path: {}", field.key(), field.source());
    let hint = "begin it with `/`: it must not depend on where the daemon was started";
    Err(field.error(message, hint))
}
