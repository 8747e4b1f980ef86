//! Starts that cannot succeed: one clear line each.

use std::{fs, net::TcpListener, os::unix::net::UnixListener, time::Duration};

use anyhow::{Result, ensure};
use tests::lab::{
    Ask, Attached, EveryFrame, IdentServer, Lab, Output, Settings, Tandem, bridge, wait::until,
};

#[test]
fn an_interface_without_native_xdp_is_refused_by_name_if_native_is_demanded() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    bridge(lab.balancer(), "br0")?;
    let mut settings = Settings::new(&lab, "").global(r#"xdp_mode = "native""#);
    settings.interfaces.push("br0".to_owned());
    let output = Tandem::run_to_its_end(&lab, &settings)?;
    refused(&output, &["br0", "no native XDP", r#"set xdp_mode = "auto" or "generic""#])?;
    lab.no_traces()
}

#[test]
fn an_interface_without_native_xdp_runs_generic_with_one_warning_by_default() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    bridge(lab.balancer(), "br0")?;
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    let mut settings = Settings::new(&lab, &unchecked(&lab));
    settings.interfaces.push("br0".to_owned());
    let tandem = Tandem::start_with(&lab, &settings)?;

    let status = tandem.status()?;
    let modes = status.interfaces.iter().map(|i| (i.name.as_str(), i.mode.as_str()));
    assert_eq!(
        modes.collect::<Vec<_>>(),
        [("back", "native"), ("br0", "generic"), ("front", "native")]
    );
    let log = fs::read_to_string(tandem.process().log())?;
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    let [warning] = warnings[..] else { panic!("not one warning: {warnings:#?}") };
    for word in ["br0", "no native XDP", "slower generic mode"] {
        assert!(warning.contains(word), "no {word:?} in {warning}");
    }
    // There is nothing to set: it is `auto`, and this is what that does.
    assert!(!warning.contains("xdp_mode"), "{warning}");
    answers(&lab)
}

#[test]
fn an_mtu_that_native_mode_does_not_take_is_named_with_what_is_done_instead() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let balancer = lab.balancer();
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    // One driver has no native mode. The other has, but not here: the far end has more queues. With
    // programs such as ours, none of those that the kernel has for a lab refuses the MTU itself.
    bridge(balancer, "br0")?;
    balancer.ip("link add few numrxqueues 1 type veth peer many numtxqueues 4")?;
    balancer.command("ethtool").args(["-L", "many", "tx", "4"]).run()?;
    for interface in ["br0", "few", "many"] {
        balancer.ip(&format!("link set {interface} mtu 9000 up"))?;
    }
    let with = |interface: &str| {
        let mut settings = Settings::new(&lab, &unchecked(&lab));
        settings.interfaces.push(interface.to_owned());
        settings
    };
    let few = ["few: native XDP is refused with its MTU of 9000", "ip link set few mtu 1500"];
    let br0 = ["br0: its driver has no native XDP, or none at an MTU of 9000"];
    for (interface, words) in [("few", &few[..]), ("br0", &br0)] {
        let native = with(interface).global(r#"xdp_mode = "native""#);
        refused(&Tandem::run_to_its_end(&lab, &native)?, words)?;
        lab.no_traces()?;

        let mut tandem = Tandem::start_with(&lab, &with(interface))?;
        let log = fs::read_to_string(tandem.process().log())?;
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        let Some(warning) = warnings.last() else { panic!("not a word: {log}") };
        for word in words.iter().chain(&["running in the slower generic mode there"]) {
            assert!(warning.contains(word), "no {word:?} in {warning}");
        }
        println!("{warning}");
        answers(&lab)?;
        tandem.stop()?;
    }
    Ok(())
}

#[test]
fn a_user_who_is_not_root_is_told_so_whatever_else_would_fail() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let config = lab.dir().join("tandem.toml");
    let mut tandem = Tandem::start(&lab, "")?;
    tandem.stop()?;
    let program = Tandem::copy_for_everybody(&lab)?;
    let nobody = || lab.balancer().command(&program).user("nobody");
    let run = nobody()?.arg("run").arg("--config").arg(&config);
    refused(&run.output(Duration::from_secs(10))?, &["not privileged", "run as root"])?;
    let detach = nobody()?.arg("detach");
    refused(&detach.output(Duration::from_secs(10))?, &["not privileged", "run as root"])?;
    lab.no_traces()
}

#[test]
fn an_interface_that_is_not_there_is_answered_with_those_that_are() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let mut settings = Settings::new(&lab, "");
    // The first is attached already when the second turns out to be wrong.
    settings.interfaces[1] = "bakc".to_owned();
    let output = Tandem::run_to_its_end(&lab, &settings)?;
    let words = ["interface bakc does not exist", "front", "back", "[global] interfaces"];
    refused(&output, &words)?;
    lab.no_traces()
}

#[test]
fn a_metrics_port_that_is_taken_is_named_with_the_key_to_change() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let _other = lab.balancer().enter(|| TcpListener::bind("127.0.0.1:9200"))?;
    let output = Tandem::run_to_its_end(&lab, &Settings::new(&lab, ""))?;
    let words = ["127.0.0.1:9200", "already taken", "set [admin] metrics"];
    refused(&output, &words)?;
    lab.no_traces()
}

#[test]
fn a_control_socket_of_another_program_is_not_taken_over() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let path = lab.dir().join("tandem.sock");
    let other = UnixListener::bind(&path)?;
    let output = Tandem::run_to_its_end(&lab, &Settings::new(&lab, ""))?;
    refused(&output, &["a program other than tandem answers on", "set [admin] socket"])?;
    lab.no_traces()?;
    // It is still the other program's.
    other.set_nonblocking(true)?;
    while other.accept().is_ok() {}
    let _client = std::os::unix::net::UnixStream::connect(&path)?;
    other.accept()?;
    Ok(())
}

#[test]
fn without_a_bpffs_it_says_how_to_mount_one() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    lab.balancer().command("umount").arg("/sys/fs/bpf").run()?;
    let output = Tandem::run_to_its_end(&lab, &Settings::new(&lab, ""))?;
    let words = ["/sys/fs/bpf/tandem", "mount -t bpf bpf /sys/fs/bpf", "[global] bpffs"];
    refused(&output, &words)?;
    lab.no_traces()
}

#[test]
fn another_xdp_program_on_the_interface_is_left_alone() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let other = Attached::new(&lab.interfaces()[1], EveryFrame::Passes)?;
    let output = Tandem::run_to_its_end(&lab, &Settings::new(&lab, ""))?;
    refused(&output, &["back already runs an XDP program", "ip link set back xdp off"])?;
    assert_eq!(lab.traces()?, [r#"XDP on "back""#]);
    drop(other);
    lab.no_traces()
}

#[test]
fn a_missing_file_is_named() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let run = Tandem::command(&lab)?.args(["run", "--config", "/nowhere/tandem.toml"]);
    let output = run.output(Duration::from_secs(10))?;
    assert_eq!(output.status.code(), Some(1));
    let said = &output.stderr;
    for words in ["/nowhere/tandem.toml", "can't be read", "check that the file exists"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    lab.no_traces()
}

#[test]
fn all_errors_of_a_file_are_told_at_once_each_with_its_place() -> Result<()> {
    let lab = Lab::two_arm(0)?;
    let services = r#"
[[service]]
name = "web"
bind = "10.1.0.100:80"
balance = "roundrobbin"

[[service.backend]]
name = "b1"
address = "10.2.0.11"
wieght = 3
"#;
    let settings = Settings::new(&lab, services).global("maxconn = 7");
    let output = Tandem::run_to_its_end(&lab, &settings)?;
    assert_eq!(output.status.code(), Some(1));
    let said = &output.stderr;
    for words in ["maxconn", "roundrobbin", "10.2.0.11", "wieght", "weight", "4 errors"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(said.matches("tandem.toml:").count() - 1, 4, "four places and the sum: {said}");
    lab.no_traces()
}

/// That the daemon gave up with one line that has all these words in it.
fn refused(output: &Output, words: &[&str]) -> Result<()> {
    let Output { status, stdout, stderr } = output;
    ensure!(status.code() == Some(1), "it ended with {status}: {stderr}");
    ensure!(stdout.is_empty(), "on the standard output: {stdout}");
    // What was logged on the way there has a time and a level in front.
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("tandem: ")).collect();
    let [line] = lines[..] else { anyhow::bail!("not one line of its own: {stderr}") };
    ensure!(stderr.ends_with(&format!("{line}\n")), "it is not the last: {stderr}");
    let logged = stderr.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    ensure!(logged.count() == 0, "there is more: {stderr}");
    for word in words {
        ensure!(line.contains(word), "no {word:?} in: {line}");
    }
    Ok(())
}

/// A service with all backends, unchecked.
fn unchecked(lab: &Lab) -> String {
    let address = lab.backends()[0].at(tests::lab::Family::V4, 80);
    format!(
        "[[service]]\nname = \"web\"\nbind = \"{}:80\"\nserver.check.enabled = false\n\
         [[service.backend]]\nname = \"b1\"\naddress = \"{address}\"\n",
        lab.vip4()
    )
}

/// Soon, and then always: the way to the backend is found out only after the start.
fn answers(lab: &Lab) -> Result<()> {
    let ask = |times| {
        let tally = Ask::at((lab.vip4(), 80).into()).times(times).from(lab.client());
        tally.all_answered()
    };
    until("the service answers", Duration::from_secs(5), || ask(1))?;
    ask(20)
}
