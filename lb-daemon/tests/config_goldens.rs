//! The corpus of configuration files: what each bad one is answered with, and what each good one
//! comes to. `UPDATE_GOLDENS=1` writes the answers anew; read them before you commit them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lb_daemon::config;

/// The files under tests/config/`folder` with this extension, in order.
fn corpus(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let entries = fs::read_dir(folder).expect("the corpus is there");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn parse(path: &Path) -> Result<config::Parsed, config::Diagnostics> {
    let name = path.file_name().expect("a file").to_string_lossy();
    config::parse(&fs::read_to_string(path).expect("a readable file"), &name)
}

/// Compares byte for byte, or writes the golden file if told to.
fn assert_golden(path: &Path, found: &str) {
    if env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(path, found).expect("a writable folder");
    }
    let golden = fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; run with UPDATE_GOLDENS=1", path.display()));
    assert!(
        golden == found,
        "{} says\n\n{golden}\n\nbut this was found:\n\n{found}",
        path.display()
    );
}

#[test]
fn bad_files_are_answered_as_their_goldens_say() {
    let files = corpus("bad", "toml");
    assert!(files.len() >= 40, "only {} bad files", files.len());
    for path in files {
        let Err(diagnostics) = parse(&path) else { panic!("{} is accepted", path.display()) };
        assert_golden(&path.with_extension("err"), &format!("{diagnostics}\n"));
    }
}

#[test]
fn good_files_come_to_what_their_goldens_say() {
    let files = corpus("good", "toml");
    assert!(files.len() >= 5, "only {} good files", files.len());
    for path in files {
        let parsed = parse(&path).unwrap_or_else(|error| panic!("{error}"));
        let warnings: String =
            parsed.warnings.iter().map(|warning| format!("{warning}\n\n")).collect();
        let found = format!("{warnings}{}", parsed.config.to_toml());
        assert_golden(&path.with_extension("effective"), &found);
    }
}

#[test]
fn no_golden_has_lost_its_file() {
    let goldens = corpus("bad", "err").into_iter().chain(corpus("good", "effective"));
    for golden in goldens {
        assert!(golden.with_extension("toml").exists(), "{} answers nothing", golden.display());
    }
}

#[test]
fn the_effective_configuration_means_the_same() {
    for path in corpus("good", "toml") {
        let config = parse(&path).unwrap_or_else(|error| panic!("{error}")).config;
        let effective = config.to_toml();
        let again = config::parse(&effective, "effective").unwrap_or_else(|e| panic!("{e}")).config;
        assert_eq!(again, config, "{}", path.display());
        assert_eq!(again.to_toml(), effective, "{}", path.display());
    }
}

#[test]
fn the_example_is_valid_without_a_warning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tandem.example.toml");
    let parsed = config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed.warnings, []);
    assert!(!parsed.config.services.is_empty());
}

#[test]
fn files_that_cannot_be_read_are_diagnosed() {
    let missing = config::load(Path::new("no/such/file.toml")).expect_err("there is no such file");
    assert!(missing.to_string().starts_with("no/such/file.toml: error: the file can't be read:"));

    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("binary.toml");
    fs::write(&path, b"[global]\nnode = \"\xff\"\n").expect("a writable folder");
    let binary = config::load(&path).expect_err("it is not UTF-8").to_string();
    assert!(binary.contains("not UTF-8: line 2"), "{binary}");
}
