//! What the daemon attaches, pins and takes away again.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::{Result, ensure};
use lb_daemon::core::{State, Status};
use tests::lab::{Ask, IdentServer, Lab, Settings, Tandem, veth};

const PATIENCE: Duration = Duration::from_secs(10);
const PINS: &str = "/sys/fs/bpf/tandem";

/// One service on port 80, and its only backend.
fn web(lab: &Lab) -> String {
    let (vip, backend) = (lab.vip4(), lab.backends()[0].address(tests::lab::Family::V4));
    format!(
        "[[service]]\nname = 'web'\nbind = '{vip}:80'\n\
         [[service.backend]]\nname = 'b1'\naddress = '{backend}:80'\n"
    )
}

fn start(lab: &Lab, settings: &Settings) -> Result<Tandem> {
    let tandem = Tandem::start_with(lab, settings)?;
    tandem.wait_until("the service is up", PATIENCE, |s| s.services[0].state == State::Up)?;
    Ok(tandem)
}

fn is_served(lab: &Lab) -> Result<()> {
    Ask::at((lab.vip4(), 80).into()).times(20).at_once(5).from(lab.client()).all_answered()?;
    Ok(())
}

fn modes(status: &Status) -> BTreeMap<&str, &str> {
    status.interfaces.iter().map(|one| (one.name.as_str(), one.mode.as_str())).collect()
}

#[test]
fn the_mode_changes_by_a_reload() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    let in_mode =
        |mode: &str| Settings::new(&lab, &web(&lab)).global(&format!("xdp_mode = \"{mode}\""));
    let tandem = start(&lab, &in_mode("native"))?;
    for mode in ["generic", "native", "generic"] {
        tandem.configure(&in_mode(mode))?;
        tandem.reload()?;
        let status = tandem.status()?;
        assert!(modes(&status).values().all(|found| *found == mode), "{:?}", status.interfaces);
        is_served(&lab)?;
    }
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_gets_the_program_again() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    let balancer = lab.balancer();
    let make = || veth((balancer, "spare0"), (balancer, "spare1"));
    make()?;
    let mut settings = Settings::new(&lab, &web(&lab));
    settings.interfaces.push("spare0".to_owned());
    let tandem = start(&lab, &settings)?;
    assert!(modes(&tandem.status()?).contains_key("spare0"));

    balancer.ip("link delete spare0")?;
    tandem.wait_until("the interface is gone", PATIENCE, |s| !modes(s).contains_key("spare0"))?;
    is_served(&lab)?;

    make()?;
    tandem.wait_until("the program is back", PATIENCE, |s| modes(s).contains_key("spare0"))?;
    let link = balancer.ip("link show spare0")?;
    assert!(link.contains("prog/xdp"), "{link}");
    Ok(())
}

#[test]
fn a_restart_refuses_nobody() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    let mut tandem = start(&lab, &Settings::new(&lab, &web(&lab)))?;
    tandem.kill9();
    let tally = thread::scope(|scope| {
        let client = scope
            .spawn(|| Ask::at((lab.vip4(), 80).into()).times(20_000).at_once(8).from(lab.client()));
        tandem.start_again()?;
        anyhow::Ok(client.join().expect("the client does not panic"))
    })?;
    tally.all_answered().map_err(|error| {
        let status = tandem.status().map(|s| format!("{:?} {:?}", s.verdicts, s.services));
        error.context(format!("the status is {status:?}"))
    })
}

#[test]
fn pins_of_others_stay_and_our_own_go() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let _server = IdentServer::start(&lab.backends()[0], 80)?;
    let balancer = lab.balancer();
    balancer.command("mkdir").args(["-p", &format!("{PINS}/others/maps")]).run()?;
    let mut tandem = start(&lab, &Settings::new(&lab, &web(&lab)))?;

    // Where the pins are is settled at the start, whatever a reload says.
    let moved = fs::read_to_string(tandem.config())?.replace(PINS, "/sys/fs/bpf/moved");
    fs::write(tandem.config(), moved)?;
    for _ in 0..2 {
        let said = tandem.verb(&["reload", "--socket"]).arg(tandem.socket()).output(PATIENCE)?;
        ensure!(said.stderr.contains("[global] bpffs"), "{}", said.stderr);
    }

    tandem.stop()?;
    let left = balancer.command("find").args([PINS, "-mindepth", "1"]).run()?;
    assert_eq!(left.trim(), format!("{PINS}/others\n{PINS}/others/maps"));
    let links = balancer.ip("link show")?;
    assert!(!links.contains("prog/xdp"), "{links}");
    Ok(())
}

#[test]
fn a_first_start_that_fails_leaves_no_pins() -> Result<()> {
    let lab = Lab::two_arm(1)?;
    let mut settings = Settings::new(&lab, &web(&lab));
    settings.interfaces.push("nowhere0".to_owned());
    let output = Tandem::run_to_its_end(&lab, &settings)?;
    assert!(output.stderr.contains("interface nowhere0 does not exist"), "{}", output.stderr);
    let pins = lab.balancer().command("ls").arg("/sys/fs/bpf").run()?;
    assert!(!pins.contains("tandem"), "{pins}");
    Ok(())
}
