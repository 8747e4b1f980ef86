//! `cargo xtask build-ebpf`: compiles the XDP program and says with what.

use std::{fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use aya_obj::Object;

use crate::{
    ebpf::{self, toolchain::Toolchain},
    verify, workspace,
};

/// The options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Load the programs too (not attached to anything), so that the kernel verifies them. Needs
    /// root.
    #[arg(long)]
    verify: bool,
}

/// Runs the verb.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let toolchain = Toolchain::find()?;
    println!("compiler: {toolchain}");
    println!("because:  {}", toolchain.compiler.reason);

    let target = workspace::ebpf_target_directory();
    let path =
        ebpf::build(ebpf::TANDEM, &[], workspace::root(), &toolchain, &target, Stdio::inherit())?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let object = Object::parse(&bytes)
        .with_context(|| format!("{} is no object that the daemon can load", path.display()))?;
    ensure!(!object.programs.is_empty(), "{} has no program", path.display());

    println!("object:   {} ({} bytes)", path.display(), bytes.len());
    println!("programs: {}", sorted(object.programs.keys()));
    println!("maps:     {}", sorted(object.maps.keys()));
    if arguments.verify { verify::verify(&bytes) } else { Ok(()) }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names = names.map(String::as_str).collect::<Vec<_>>();
    names.sort_unstable();
    names.join(", ")
}
