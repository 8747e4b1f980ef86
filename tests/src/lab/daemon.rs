//! The product: a real `tandem run` on the balancer of a lab.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use lb_daemon::core::{State, Status};
use nix::sys::signal::Signal;

use super::{
    Command, Lab, Namespace, Output, Process, http_get,
    program::{self, binary, other_layout},
    wait::until,
};

/// Where the metrics are, inside the balancer's namespace.
const METRICS: &str = "127.0.0.1:9200";

/// What goes into the configuration file of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the node: `lab` at the start.
    pub node: String,
    /// Interfaces with the XDP program; those of the lab at the start.
    pub interfaces: Vec<String>,
    /// Further lines of `[global]`.
    pub global: String,
    /// The rest of the file: `[defaults]`, `[[service]]`, ...
    pub services: String,
    /// Not in the file, but how the daemon is run.
    pub surroundings: Surroundings,
}

/// What a daemon finds where it is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What is in its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
    /// Whether it lives among the machine's processes. Otherwise it has a PID namespace of its own,
    /// and those that `/proc` shows are strangers to it.
    pub sees_processes: bool,
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Tandem {
    namespace: Namespace,
    binary: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    surroundings: Surroundings,
    process: Process,
}

impl Settings {
    /// Settings for a lab with these services, in TOML.
    pub fn new(lab: &Lab, services: &str) -> Self {
        let interfaces = lab.interfaces().iter().map(|one| one.name().to_owned()).collect();
        Self::on(interfaces, services)
    }

    /// Settings for a host of a [`Pair`](super::Pair): groups and services, in TOML.
    pub fn of_pair(services: &str) -> Self {
        let interfaces = ["front", "back"].map(str::to_owned).into();
        Self::on(interfaces, services)
    }

    fn on(interfaces: Vec<String>, services: &str) -> Self {
        let (node, services) = ("lab".to_owned(), services.to_owned());
        let (global, surroundings) = (String::new(), Surroundings::default());
        Self { node, interfaces, global, services, surroundings }
    }

    /// Gives the node another name.
    #[must_use]
    pub fn node(self, name: &str) -> Self {
        Self { node: name.to_owned(), ..self }
    }

    /// Adds a line to `[global]`, such as `xdp_mode = "generic"`.
    #[must_use]
    pub fn global(mut self, line: &str) -> Self {
        self.global.push_str(line);
        self.global.push('\n');
        self
    }

    /// The configuration file, with the control socket in this place, and beside it what operators say.
    fn render_at(&self, socket: &Path) -> String {
        let state_file = socket.with_extension("overrides.json");
        let (socket, state_file) = (socket.display(), state_file.display());
        self.render(&format!("socket = \"{socket}\"\nstate_file = \"{state_file}\"\n"))
    }

    /// The configuration file, with further lines of `[admin]`.
    pub(super) fn render(&self, admin: &str) -> String {
        let Self { node, interfaces, global, services, surroundings: _ } = self;
        format!(
            "\
[global]
node = \"{node}\"
interfaces = {interfaces:?}
bpffs = \"/sys/fs/bpf/tandem\"
{global}
[admin]
metrics = \"{METRICS}\"
{admin}
[log]
level = \"debug\"

{services}
"
        )
    }
}

impl Tandem {
    /// Starts a daemon with these services, in TOML, and waits until it answers.
    pub fn start(lab: &Lab, services: &str) -> Result<Self> {
        Self::start_with(lab, &Settings::new(lab, services))
    }

    /// Starts a daemon with these settings and waits until it answers.
    pub fn start_with(lab: &Lab, settings: &Settings) -> Result<Self> {
        Self::launch(lab.balancer(), settings, &lab.dir().join("tandem"))
    }

    /// Starts a daemon on a host, one of several that have one, and waits until it answers.
    pub fn start_on(host: &Namespace, settings: &Settings) -> Result<Self> {
        Self::launch(host, settings, &host.dir().join(format!("{}-tandem", host.name())))
    }

    /// `home` is its files' path but for the extension.
    fn launch(host: &Namespace, settings: &Settings, home: &Path) -> Result<Self> {
        let (config, socket) = (home.with_extension("toml"), home.with_extension("sock"));
        fs::write(&config, settings.render_at(&socket))?;
        let binary = binary()?;
        let namespace = host.clone();
        let surroundings = settings.surroundings.clone();
        let process = run(&namespace, &binary, &config, &surroundings)?;
        let mut tandem = Self { namespace, binary, config, socket, surroundings, process };
        tandem.wait_until_it_answers()?;
        Ok(tandem)
    }

    /// Runs a daemon that is expected to end by itself within 10 seconds: what it says and how
    /// it ends.
    pub fn run_to_its_end(lab: &Lab, settings: &Settings) -> Result<Output> {
        let config = lab.dir().join("tandem.toml");
        fs::write(&config, settings.render_at(&lab.dir().join("tandem.sock")))?;
        Self::command(lab)?.arg("run").arg("--config").arg(&config).output(Duration::from_secs(10))
    }

    /// The command `tandem` on the balancer, whether a daemon runs there or not.
    pub fn command(lab: &Lab) -> Result<Command> {
        Ok(lab.balancer().command(binary()?))
    }

    /// A copy of the program, one for each lab, that users who are not root can reach: they may be
    /// kept out of the directory cargo builds in, below `/root` say.
    pub fn copy_for_everybody(lab: &Lab) -> Result<PathBuf> {
        let copy = lab.dir().join("tandem");
        if copy.exists() {
            return Ok(copy);
        }
        fs::copy(binary()?, &copy).with_context(|| format!("cannot make {}", copy.display()))?;
        Ok(copy)
    }

    /// Another verb of the command, such as `["check", "/some/file"]`, inside the namespace.
    pub fn verb(&self, arguments: &[&str]) -> Command {
        self.namespace.command(&self.binary).args(arguments)
    }

    /// The file it was started with.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to be frozen by `SIGSTOP`, say.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What `tandem status --json` says.
    pub fn status(&self) -> Result<Status> {
        let answer = self.verb(&["status", "--json", "--socket"]).arg(&self.socket).run()?;
        serde_json::from_str(&answer)
            .with_context(|| format!("the status is not what it should be: {answer}"))
    }

    /// The same as it stands there, for parts that only some daemons have.
    pub fn status_json(&self) -> Result<serde_json::Value> {
        let answer = self.verb(&["status", "--json", "--socket"]).arg(&self.socket).run()?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Waits until both hosts have the same connections, by its own account.
    pub fn wait_until_in_sync(&self, timeout: Duration) -> Result<()> {
        until("both hosts in sync", timeout, || {
            let sync = &self.status_json()?["sync"]["conversation"];
            ensure!(sync["state"] == "in_sync", "the conversation is at {sync}");
            Ok(())
        })
        .map_err(|error| self.process.explain(&error))
    }

    /// Waits until the status is as wanted and hands it back; fails with the last status and the
    /// end of the log.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let ask = || {
            let status = self.status()?;
            ensure!(wanted(&status), "the last status was {}", serde_json::to_string(&status)?);
            Ok(status)
        };
        until(what, timeout, ask).map_err(|error| self.process.explain(&error))
    }

    /// Waits until every service and all their active backends that have a weight get connections.
    pub fn wait_until_all_serve(&self) -> Result<Status> {
        self.wait_until("all backends serve", Duration::from_secs(10), |status| {
            let backends = status.services.iter().flat_map(|service| &service.backends);
            let mut active = backends.filter(|one| one.role == "active" && one.weight > 0);
            status.services.iter().all(|service| service.state == State::Up)
                && active.all(|backend| backend.eligible)
        })
    }

    /// Puts new settings into the file. They are in force after a [`reload`](Tandem::reload).
    pub fn configure(&self, settings: &Settings) -> Result<()> {
        fs::write(&self.config, settings.render_at(&self.socket))
            .context("cannot write the settings")
    }

    /// Runs `tandem reload`; fails, with what it said, if the file is refused.
    pub fn reload(&self) -> Result<String> {
        self.verb(&["reload", "--socket"]).arg(&self.socket).run()
    }

    /// What its Prometheus endpoint says.
    pub fn scrape_metrics(&self) -> Result<String> {
        let server: SocketAddr = METRICS.parse().expect("it is an address");
        let answer = http_get(&self.namespace, server, "/metrics")?;
        ensure!(answer.status == 200, "GET /metrics was answered with {}", answer.status);
        Ok(answer.body)
    }

    /// Kills the daemon by `SIGKILL`: nothing it could do about it.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Stops the daemon for good, by `tandem stop`, and waits up to 10 seconds for its end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.verb(&["stop", "--socket"]).arg(&self.socket).run()?;
        self.wait_for_its_end()
    }

    /// Has the daemon end by `SIGTERM`, to be started again, and waits up to 10 seconds for its end.
    /// Then somebody stands in for it; not if it was the first process of a PID namespace
    /// ([`Surroundings::sees_processes`]).
    pub fn suspend(&mut self) -> Result<ExitStatus> {
        ensure!(self.surroundings.sees_processes, "whoever stands in for it would die with it");
        self.process.signal(Signal::SIGTERM)?;
        self.wait_for_its_end()
    }

    /// Ends and starts the daemon as `systemctl restart` does, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        let status = self.suspend()?;
        ensure!(status.success(), "the daemon ended with {status}");
        self.start_again()
    }

    /// From its next start on, this is a program with maps of another layout than now: one of two.
    pub fn change_layout(&mut self) -> Result<()> {
        let (one, other) = (binary()?, other_layout()?);
        self.binary = if self.binary == one { other } else { one };
        Ok(())
    }

    /// From its next start on, this is a program that was built anew, with maps of the same layout. Each
    /// time, it takes the place of the one before, which may be running.
    pub fn build_anew(&mut self) -> Result<()> {
        self.binary = program::anew(&self.config.with_extension("program"))?;
        Ok(())
    }

    /// Names of the layouts that there are maps of.
    pub fn layouts(&self) -> Result<Vec<String>> {
        let names = self.namespace.command("ls").arg("/sys/fs/bpf/tandem").run()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn wait_for_its_end(&mut self) -> Result<ExitStatus> {
        self.process.wait(Duration::from_secs(10)).map_err(|error| self.process.explain(&error))
    }

    /// Starts the daemon again, after it was stopped or killed, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(!self.process.is_running(), "the daemon is still running");
        self.process = run(&self.namespace, &self.binary, &self.config, &self.surroundings)?;
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let mut ended = false;
        let answered = until("an answer of the daemon", Duration::from_secs(10), || {
            ended = !self.process.is_running();
            if ended { Ok(None) } else { self.status().map(Some) }
        });
        match answered {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.process.explain(&anyhow!("the daemon has ended"))),
            Err(error) => Err(self.process.explain(&error)),
        }
    }
}

fn run(
    namespace: &Namespace,
    binary: &Path,
    config: &Path,
    surroundings: &Surroundings,
) -> Result<Process> {
    let Surroundings { environment, sees_processes } = surroundings;
    let mut command = namespace.command(binary).arg("run").arg("--config").arg(config);
    for (name, value) in environment {
        command = command.env(name, value);
    }
    if *sees_processes { command.plain().spawn() } else { command.spawn() }
}
