//! The corpus of configuration files: what each bad one is answered with, and what each good one
//! comes to. `UPDATE_GOLDENS=1` writes the answers anew; read them before you commit them.

use std::{
    env,
    fmt::Write,
    fs::{self, Permissions},
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use lb_daemon::config::{self, Protocol, Severity};

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
        let mut found = String::new();
        for warning in parsed.warnings {
            writeln!(
                found,
                "{warning}
"
            )
            .expect("strings take everything");
        }
        found.push_str(&parsed.config.to_toml());
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

/// More than the maps have room for, in files too long to be in the corpus.
#[test]
fn what_the_maps_have_no_room_for_is_refused() {
    const GLOBAL: &str = "[global]\nnode = \"lb1\"\ninterfaces = [\"eth1\"]\n";
    let service = |name: usize, binds: Range<usize>, backends: usize, more: &str| {
        let binds: Vec<_> = binds.map(|port| format!("10.2.2.4:{}", port + 1)).collect();
        let mut text = format!("[[service]]\nname = \"s{name}\"\nbind = {binds:?}\n{more}\n");
        for backend in 0..backends {
            let address = format!("10.{}.{}.{backend}:80", name / 256, name % 256);
            writeln!(
                text,
                "[[service.backend]]
name = \"b{backend}\"
address = \"{address}\""
            )
            .expect("strings take everything");
        }
        text
    };
    let services = |count: usize, backends: usize| -> String {
        (0..count).map(|n| service(n, n..n + 1, backends, "")).collect()
    };
    let leastconn = "balance = \"leastconn\"";

    for (within, beyond, error) in [
        (services(256, 1), services(257, 1), "there are more than 256 services"),
        (
            services(16, 256),
            services(17, 241),
            "the services have more than 4096 backends together",
        ),
        (
            service(1, 0..1024, 1, ""),
            service(1, 0..1025, 1, ""),
            "the services have more than 1024 binds together",
        ),
        (
            service(1, 0..1, 128, leastconn),
            service(1, 0..1, 129, leastconn),
            "a leastconn service can have 128 backends, but this one has 129",
        ),
    ] {
        if let Err(error) = config::parse(&format!("{GLOBAL}{within}"), "within") {
            panic!("{error}");
        }
        let found = config::parse(&format!("{GLOBAL}{beyond}"), "beyond").expect_err(error);
        let messages: Vec<_> = found.iter().map(|found| found.message.as_str()).collect();
        assert_eq!(messages, [error]);
    }
}

#[test]
fn more_groups_or_advertised_addresses_than_there_is_room_for_are_refused() {
    const GLOBAL: &str = "[global]\nnode = \"lb1\"\ninterfaces = [\"eth1\"]\n";
    let group = |id: usize, addresses: Vec<String>| {
        format!(
            "[[group]]\nname = \"g{id}\"\ninterface = \"eth1\"\nvirtual_router_id = {id}\n\
             virtual_ipaddress = {addresses:?}\n"
        )
    };
    let groups = |count: usize| -> String {
        (1..=count).map(|id| group(id, vec![format!("10.2.2.{id}")])).collect()
    };
    let v4 = |count: usize| group(1, (1..=count).map(|n| format!("10.2.{}.1", n - 1)).collect());
    let v6 = |count: usize| group(1, (1..=count).map(|n| format!("fd00::{n}")).collect());

    for (within, beyond, error) in [
        (groups(63), groups(64), "there are more than 63 groups"),
        (v4(255), v4(256), "an advert has room for 255 addresses, not 256"),
        (v6(90), v6(91), "an advert has room for 90 addresses, not 91"),
    ] {
        if let Err(error) = config::parse(&format!("{GLOBAL}{within}"), "within") {
            panic!("{error}");
        }
        let found = config::parse(&format!("{GLOBAL}{beyond}"), "beyond").expect_err(error);
        let errors = found.iter().filter(|found| found.severity == Severity::Error);
        let messages: Vec<_> = errors.map(|found| found.message.as_str()).collect();
        assert_eq!(messages, [error]);
    }
}

#[test]
fn passwords_are_read_from_files_of_their_own_and_not_printed() {
    let file = |name: &str, content: &str, mode: u32| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, content).expect("a writable folder");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
        path.display().to_string()
    };
    let sync = file("sync-key", &format!("{}\n", "k3y".repeat(11)), 0o600);
    let parse = |vrrp: &str, carp: &str| {
        let text = format!(
            "[global]\nnode = \"lb1\"\ninterfaces = [\"eth1\"]\n\
             [[group]]\nname = \"vrrp\"\ninterface = \"eth1\"\nversion = 2\nvirtual_router_id = 1\n\
             virtual_ipaddress = \"10.2.2.4\"\nauth_pass_file = {vrrp:?}\n\
             [[group]]\nname = \"carp\"\ninterface = \"eth1\"\nprotocol = \"carp\"\nvhid = 1\n\
             virtual_ipaddress = \"10.2.2.5\"\npass_file = {carp:?}\n\
             [sync]\nlisten = \"10.0.0.1:7000\"\npeer = \"10.0.0.2:7000\"\nkey_file = {sync:?}\n"
        );
        config::parse(&text, "passwords")
    };

    let vrrp = file("vrrp-password", "s3cr3t\n", 0o600);
    let carp = file("carp-password", "passwd4", 0o640);
    let parsed = parse(&vrrp, &carp).unwrap_or_else(|error| panic!("{error}"));
    let [first, second] = &parsed.config.groups[..] else { panic!("two groups were read") };
    let Protocol::Vrrp(speaks) = &first.protocol else { panic!("{first:?}") };
    assert_eq!(speaks.auth_pass.as_deref(), Some("s3cr3t"));
    let Protocol::Carp(speaks) = &second.protocol else { panic!("{second:?}") };
    assert_eq!(speaks.pass, "passwd4");
    let peer = parsed.config.sync.as_ref().expect("there is another host");
    assert_eq!(peer.key, "k3y".repeat(11));
    let printed = parsed.config.to_toml();
    for printed in [&printed, &format!("{:?}", parsed.config)] {
        let secrets = ["s3cr3t", "passwd4", "k3y"];
        assert!(!secrets.iter().any(|secret| printed.contains(secret)), "{printed}");
    }
    let again = config::parse(&printed, "effective").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.config, parsed.config);

    let open = file("open-password", "s3cr3t\r\n", 0o644);
    let parsed = parse(&open, &carp).unwrap_or_else(|error| panic!("{error}"));
    let messages: Vec<_> = parsed.warnings.iter().map(|found| found.message.as_str()).collect();
    assert!(messages.contains(&"everybody can read the file of `auth_pass_file`"), "{messages:?}");

    let lines = file("password-of-two-lines", "s3cr3t\nmore\n", 0o600);
    let long = file("long-password", &"x".repeat(21), 0o600);
    let found = parse(&lines, &long).expect_err("neither is usable");
    let errors = found.iter().filter(|found| found.severity == Severity::Error);
    let messages: Vec<_> = errors.map(|found| found.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "the file of `auth_pass_file` has more than one line",
            "the password of `pass_file` has 21 bytes",
        ]
    );
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

#[test]
fn the_reference_knows_every_key_and_its_examples_are_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let reference = fs::read_to_string(path).expect("the reference is there");

    let effective = corpus("good", "effective");
    let texts = effective.iter().map(|path| fs::read_to_string(path).expect("a readable file"));
    for text in texts {
        for line in text.lines() {
            let Some((key, _)) = line.split_once(" = ") else {
                continue;
            };
            let row = format!("\n| `{key}` |");
            assert!(reference.contains(&row) || key.contains(' '), "no row for `{key}`");
        }
    }

    let examples: Vec<_> = reference.split("```toml\n").skip(1).collect();
    assert_eq!(examples.len(), 3, "the last ones are a whole service and a whole group");
    let whole = examples[1..].iter().map(|text| text.split_once("```").expect("it ends").0);
    let text = format!(
        "[global]\nnode = \"lb1\"\ninterfaces = [\"eth1\", \"eth2\"]\n{}",
        whole.collect::<String>()
    );
    let parsed = config::parse(&text, "reference").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed.warnings, []);
}
