//! Has the kernel verify the XDP programs, and says what they took: instructions that the
//! verifier looked at, and stack.

mod stack;

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{ProgramError, Xdp},
};
use aya_obj::Object;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};

use crate::step::tail;
use stack::Stack;

/// Loads the programs of an object, attached to nothing, and prints a report on each. Needs root.
pub(crate) fn verify(bytes: &[u8]) -> Result<()> {
    ensure!(geteuid().is_root(), "verifying loads the programs into the kernel: run it as root");
    for name in names(bytes)? {
        load(bytes, &name)?;
        let log = statistics(bytes, &name)?;
        let stack = Stack::new(bytes, &name, &log)
            .with_context(|| format!("the verifier's statistics of {name} are odd:\n{log}"))?;
        println!("          {stack}");
    }
    Ok(())
}

fn names(bytes: &[u8]) -> Result<Vec<String>> {
    let object = Object::parse(bytes).context("this is no object that the daemon can load")?;
    let mut names: Vec<_> = object.programs.into_keys().collect();
    names.sort_unstable();
    Ok(names)
}

fn load(bytes: &[u8], name: &str) -> Result<()> {
    let mut ebpf = Ebpf::load(bytes).context("the kernel refuses the maps")?;
    let program = program(&mut ebpf, name)?;
    program.load().map_err(|error| refusal(name, &error))?;
    let info = program.info()?;
    let seen = info.verified_instruction_count().map_or_else(String::new, |count| {
        format!(", {count} instructions looked at by the verifier")
    });
    println!("verified: {name}, {} bytes of BPF{seen}", info.size_translated().unwrap_or_default());
    Ok(())
}

/// What the verifier says at the end of its log.
///
/// aya hands out the log of a program only if it was refused. So this one is: it is verified,
/// and then there is no file descriptor left for it.
fn statistics(bytes: &[u8], name: &str) -> Result<String> {
    let mut loader = EbpfLoader::new();
    let mut ebpf = loader.verifier_log_level(VerifierLogLevel::STATS).load(bytes)?;
    let program = program(&mut ebpf, name)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard)?;
    let outcome = program.load();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    match outcome {
        Err(ProgramError::LoadError { verifier_log, .. }) => Ok(verifier_log.to_string()),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("{name} was given a file descriptor beyond the limit"),
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no XDP program"))
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
