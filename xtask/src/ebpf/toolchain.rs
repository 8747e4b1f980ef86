//! Finds a compiler and a linker for the XDP program.
//!
//! The program needs a compiler that comes with the source of `core`, and a bpf-linker whose LLVM
//! has the compiler's major version, because what passes between them is LLVM bitcode. A rustup
//! nightly with the rust-src component is such a compiler; where none is to be had, Debian's
//! rustc-web with rust-web-src is another.

use std::{
    env, fmt, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::Command,
};

use super::linker;

/// The LLVM versions that the bpf-linker we install can be built for.
const LLVM_VERSIONS: RangeInclusive<u32> = 21..=23;

/// All that it takes to compile the XDP program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// Path of the bpf-linker.
    pub(crate) linker: PathBuf,
}

/// A compiler that can compile `core` for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Why this one was chosen, as an end to the sentence "chosen because ...".
    pub(crate) reason: String,
    /// Path of its rustc.
    pub(crate) rustc: PathBuf,
    /// Path of its cargo.
    pub(crate) cargo: PathBuf,
    /// Its release, such as `1.96.0`.
    pub(crate) release: String,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// The shared libLLVM it uses itself, which bpf-linker is linked with.
    pub(crate) libllvm: PathBuf,
}

/// Where a compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The rustup toolchain of this name.
    Rustup(String),
    /// Debian's rustc-web.
    Debian,
}

/// Why there is no toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No compiler will do; one reason for each that was looked at.
    Compiler(Vec<String>),
    /// A compiler of this origin and LLVM is there, bpf-linker is not.
    Linker(Origin, u32),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup's {name}"),
            Self::Debian => write!(f, "Debian's rustc-web"),
        }
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Compiler { origin, release, llvm, .. } = &self.compiler;
        write!(f, "rustc {release} ({origin}), LLVM {llvm}, bpf-linker {}", linker::VERSION)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler(reasons) => {
                write!(f, "no compiler here can build the XDP program ({})", reasons.join("; "))?;
            }
            Self::Linker(origin, llvm) => {
                write!(f, "no bpf-linker {} for the LLVM {llvm} of {origin}", linker::VERSION)?;
            }
        }
        write!(f, ": run `cargo xtask setup`")
    }
}

impl std::error::Error for Missing {}

impl Toolchain {
    /// The toolchain of this machine.
    pub(crate) fn find() -> Result<Self, Missing> {
        let compiler = Compiler::find().map_err(Missing::Compiler)?;
        match linker::find(&compiler) {
            Some(linker) => Ok(Self { compiler, linker }),
            None => Err(Missing::Linker(compiler.origin, compiler.llvm)),
        }
    }
}

impl Compiler {
    /// The compiler to use on this machine, or why none will do.
    pub(crate) fn find() -> Result<Self, Vec<String>> {
        let nightlies = nightlies().into_iter().map(|(name, sysroot)| {
            let found = look(&sysroot.join("bin"), &sysroot);
            (Origin::Rustup(name), found)
        });
        let debian = (Origin::Debian, look(Path::new("/usr/bin"), Path::new("/usr")));
        choose(nightlies.chain([debian]).collect())
    }
}

/// A compiler as it was found, or why it will not do.
type Found = Result<Candidate, String>;

#[derive(Clone, Debug)]
struct Candidate {
    rustc: PathBuf,
    cargo: PathBuf,
    version: Version,
    libllvm: PathBuf,
}

/// The first candidate that will do, in the order of preference.
fn choose(found: Vec<(Origin, Found)>) -> Result<Compiler, Vec<String>> {
    let mut rejected = Vec::new();
    for (origin, found) in found {
        match found {
            Err(reason) => rejected.push(format!("{origin}: {reason}")),
            Ok(candidate) => {
                let reason = match origin {
                    Origin::Rustup(_) => "it is a nightly with rust-src".to_owned(),
                    Origin::Debian if rejected.is_empty() => "rustup has no nightly".to_owned(),
                    Origin::Debian => {
                        format!("no nightly of rustup will do ({})", rejected.join("; "))
                    }
                };
                return Ok(Compiler {
                    origin,
                    reason,
                    rustc: candidate.rustc,
                    cargo: candidate.cargo,
                    release: candidate.version.release,
                    llvm: candidate.version.llvm,
                    libllvm: candidate.libllvm,
                });
            }
        }
    }
    Err(rejected)
}

/// The nightlies of rustup, by name, with their directories. The newest dated one comes first,
/// an undated one before all dated ones.
fn nightlies() -> Vec<(String, PathBuf)> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut nightlies: Vec<_> = entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| name.starts_with("nightly-"))
        .collect();
    nightlies.sort_by(|left, right| right.0.cmp(&left.0));
    nightlies
}

/// Looks at the compiler in `bin`, whose library directory is below `prefix`.
fn look(bin: &Path, prefix: &Path) -> Found {
    let (rustc, cargo) = (bin.join("rustc"), bin.join("cargo"));
    for (program, name) in [(&rustc, "rustc"), (&cargo, "cargo")] {
        if !program.is_file() {
            return Err(format!("no {name} in {}", bin.display()));
        }
    }
    let output = Command::new(&rustc)
        .arg("-vV")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .map_err(|error| format!("{} does not run: {error}", rustc.display()))?;
    let version = Version::parse(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("{} -vV names no LLVM", rustc.display()))?;
    if !LLVM_VERSIONS.contains(&version.llvm) {
        return Err(format!(
            "its LLVM is {}, bpf-linker {} knows {} to {}",
            version.llvm,
            linker::VERSION,
            LLVM_VERSIONS.start(),
            LLVM_VERSIONS.end()
        ));
    }
    if !prefix.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("no rust-src".to_owned());
    }
    let libllvm = shared_libllvm(prefix, version.llvm)
        .ok_or_else(|| format!("no shared libLLVM {}", version.llvm))?;
    Ok(Candidate { rustc, cargo, version, libllvm })
}

/// The libLLVM that comes with a toolchain of rustup, else the distribution's.
fn shared_libllvm(prefix: &Path, major: u32) -> Option<PathBuf> {
    let directories = [
        prefix.join("lib"),
        format!("/usr/lib/llvm-{major}/lib").into(),
        format!("/usr/lib/{}-linux-gnu", env::consts::ARCH).into(),
    ];
    let start = format!("libLLVM.so.{major}.");
    directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(Iterator::flatten)
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    release: String,
    llvm: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        Some(Self {
            release: field("release: ")?.to_owned(),
            llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(release: &str) -> Candidate {
        Candidate {
            rustc: "/x/rustc".into(),
            cargo: "/x/cargo".into(),
            version: Version { release: release.to_owned(), llvm: 22 },
            libllvm: "/x/libLLVM.so.22.1".into(),
        }
    }

    fn nightly(name: &str, found: Found) -> (Origin, Found) {
        (Origin::Rustup(name.to_owned()), found)
    }

    #[test]
    fn the_version_is_read_from_rustc() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\n\
                    LLVM version: 22.1.8\n";
        let expected = Version { release: "1.96.0".to_owned(), llvm: 22 };
        assert_eq!(Version::parse(text), Some(expected));
        assert_eq!(Version::parse("rustc 1.96.0"), None);
    }

    #[test]
    fn a_nightly_with_the_source_is_preferred() {
        let compiler = choose(vec![
            nightly("nightly-a", Err("no rust-src".to_owned())),
            nightly("nightly-b", Ok(good("1.97.0-nightly"))),
            (Origin::Debian, Ok(good("1.96.0"))),
        ])
        .unwrap();
        assert_eq!(compiler.origin, Origin::Rustup("nightly-b".to_owned()));
    }

    #[test]
    fn debians_compiler_is_chosen_with_the_reason() {
        let found = vec![
            nightly("nightly-a", Err("no rust-src".to_owned())),
            (Origin::Debian, Ok(good("1"))),
        ];
        let compiler = choose(found).unwrap();
        assert_eq!(compiler.origin, Origin::Debian);
        assert!(compiler.reason.contains("nightly-a: no rust-src"), "{}", compiler.reason);

        let compiler = choose(vec![(Origin::Debian, Ok(good("1")))]).unwrap();
        assert_eq!(compiler.reason, "rustup has no nightly");
    }

    #[test]
    fn without_a_compiler_every_reason_is_named_with_what_to_run() {
        let missing = choose(vec![
            nightly("nightly-a", Err("no rust-src".to_owned())),
            (Origin::Debian, Err("no rustc in /usr/bin".to_owned())),
        ])
        .map_err(Missing::Compiler)
        .unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no compiler here can build the XDP program (rustup's nightly-a: no rust-src; \
             Debian's rustc-web: no rustc in /usr/bin): run `cargo xtask setup`"
        );
    }
}
