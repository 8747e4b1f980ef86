//! Debian packages: what is missing, why it is wanted, and its installation.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow, bail};

use super::{COMPILER_HINT, log, services};
use crate::{
    ebpf::toolchain::{Compiler, Origin},
    step,
};

/// A package, and what it brings.
struct Package {
    name: &'static str,
    /// The program that shows it is there.
    program: &'static str,
    /// Why it is wanted.
    purpose: &'static str,
    /// The service it would start.
    service: Option<&'static str>,
}

/// What the tests, the lab and the demo run.
const LAB: &[Package] = &[
    Package::plain("iproute2", "ip", "builds the lab's network"),
    Package::plain("ethtool", "ethtool", "switches offloads of the lab's interfaces"),
    Package::plain("iputils-ping", "ping", "the lab's simplest question"),
    Package::plain("curl", "curl", "the lab's web client"),
    Package::plain("procps", "ps", "looks at the lab's processes"),
    Package::plain("tcpdump", "tcpdump", "shows the lab's packets"),
    Package::plain("tshark", "tshark", "judges the lab's packets"),
    Package::plain("systemd", "systemctl", "runs the packaged units in the lab"),
    Package::with_service("keepalived", "keepalived", "the lab's VRRP peer", "keepalived"),
    Package::plain("ucarp", "ucarp", "the lab's CARP peer"),
    Package::plain("dnsmasq-base", "dnsmasq", "the lab's name server"),
    Package::plain("mariadb-client", "mariadb", "the lab's MySQL client"),
    Package::with_service("mariadb-server", "mariadbd", "the lab's MySQL backends", "mariadb"),
    Package::with_service("nginx-light", "nginx", "the lab's web backends", "nginx"),
    Package::plain("nftables", "nft", "a peer in the benchmarks"),
    Package::with_service("haproxy", "haproxy", "a peer in the benchmarks", "haproxy"),
];

/// What compiles the XDP program where no nightly of rustup can.
const COMPILER: &[Package] = &[
    Package::plain("rustc-web", "rustc", "compiles the XDP program"),
    Package::plain("cargo-web", "cargo", "compiles the XDP program"),
    Package::plain("rust-web-src", "rustc", "the source of core, which is compiled with it"),
    Package::plain("rust-web-clippy", "cargo-clippy", "lints the XDP program"),
];

impl Package {
    const fn plain(name: &'static str, program: &'static str, purpose: &'static str) -> Self {
        Self { name, program, purpose, service: None }
    }

    const fn with_service(
        name: &'static str,
        program: &'static str,
        purpose: &'static str,
        service: &'static str,
    ) -> Self {
        Self { name, program, purpose, service: Some(service) }
    }
}

/// Installs the packages that are missing. Whether there were any.
pub(super) fn install_missing() -> Result<bool> {
    let compiler = Compiler::find();
    let wanted = LAB.iter().filter(|package| find(package.program).is_none());
    let missing: Vec<_> = wanted.chain(missing_of_compiler(&compiler)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    println!("setup: these Debian packages are missing:");
    for package in &missing {
        println!("  {:<16} {}", package.name, package.purpose);
    }
    if let Err(reasons) = &compiler {
        println!("  (no compiler for the XDP program yet: {})", reasons.join("; "));
    }
    require_apt(&missing)?;
    install(&missing)?;
    Ok(true)
}

fn missing_of_compiler(
    compiler: &Result<Compiler, Vec<String>>,
) -> impl Iterator<Item = &'static Package> {
    COMPILER.iter().filter(move |package| match compiler {
        Err(_) => true,
        Ok(Compiler { origin: Origin::Debian, cargo, .. }) => {
            !cargo.with_file_name(package.program).exists()
        }
        Ok(Compiler { origin: Origin::Rustup(_), .. }) => false,
    })
}

/// Fails unless we may install packages here, with what to install by hand.
fn require_apt(missing: &[&Package]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!(
            "this is not Debian: install by hand what gives the programs {}; for the XDP program \
             `rustup toolchain install nightly --component rust-src` does as well",
            names(missing, |package| package.program, ", ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "only root can install packages: run `apt-get install {}` as root",
            names(missing, |package| package.name, " ")
        );
    }
    Ok(())
}

fn install(missing: &[&Package]) -> Result<()> {
    let services: Vec<_> = missing.iter().filter_map(|package| package.service).collect();
    let quiet = services::Quiet::begin(&services)?;
    step::run("apt-get update", &log("apt-update")?, apt_get().arg("update"))?;
    step::run(
        "apt-get install",
        &log("apt-install")?,
        // What the user has installed is not to be removed for our sake.
        apt_get()
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(missing.iter().map(|package| package.name)),
    )
    .map_err(|error| {
        let hint = format!("\nif apt-get lacks the compiler: {COMPILER_HINT}");
        let helps = missing.iter().any(|package| is_of_compiler(package));
        anyhow!("{error:#}{}", if helps { &hint } else { "" })
    })?;
    quiet.end()
}

fn is_of_compiler(package: &Package) -> bool {
    COMPILER.iter().any(|other| other.name == package.name)
}

pub(super) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

fn names(
    packages: &[&Package],
    name: impl Fn(&Package) -> &'static str,
    separator: &str,
) -> String {
    packages.iter().map(|package| name(package)).collect::<Vec<_>>().join(separator)
}

/// Looks for a program where root finds it, too.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path: &PathBuf| Path::is_file(path))
}
