//! `cargo xtask build-ebpf`: compiles the XDP program and says with what.

use std::{fs, process::Stdio};

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use aya::{
    Ebpf,
    programs::{ProgramError, Xdp},
};
use aya_obj::Object;

use crate::{
    ebpf::{self, toolchain::Toolchain},
    step::tail,
    workspace,
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
    let path = ebpf::build(ebpf::TANDEM, workspace::root(), &toolchain, &target, Stdio::inherit())?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let object = Object::parse(&bytes)
        .with_context(|| format!("{} is no object that the daemon can load", path.display()))?;
    ensure!(!object.programs.is_empty(), "{} has no program", path.display());

    println!("object:   {} ({} bytes)", path.display(), bytes.len());
    println!("programs: {}", sorted(object.programs.keys()));
    println!("maps:     {}", sorted(object.maps.keys()));
    if arguments.verify { verify(&bytes) } else { Ok(()) }
}

fn verify(bytes: &[u8]) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "--verify loads the program into the kernel: run it as root"
    );
    let mut ebpf = Ebpf::load(bytes).context("the kernel refuses the maps")?;
    for (name, program) in ebpf.programs_mut() {
        let program: &mut Xdp =
            program.try_into().with_context(|| format!("{name} is no XDP program"))?;
        program.load().map_err(|error| refusal(name, &error))?;
        let info = program.info()?;
        let seen = info.verified_instruction_count().map_or_else(String::new, |count| {
            format!(", {count} instructions looked at by the verifier")
        });
        println!(
            "verified: {name}, {} bytes of BPF{seen}",
            info.size_translated().unwrap_or_default()
        );
    }
    Ok(())
}

/// The verifier's reason is at the end of a log that can have a million lines.
fn refusal(name: &str, error: &ProgramError) -> Error {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!("the kernel refuses the program {name}: {error}");
    };
    let log = verifier_log.to_string();
    anyhow!(
        "the kernel refuses the program {name} ({io_error}); the end of the verifier's log:\n{}",
        tail(&log, 25)
    )
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names = names.map(String::as_str).collect::<Vec<_>>();
    names.sort_unstable();
    names.join(", ")
}
