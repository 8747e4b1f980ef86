//! What a person can do in the live view, key by key.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use tests::lab::{Command, Namespace};

use crate::{
    config::{GROUP, PREEMPT_DELAY, WEBSERVERS, Wishes},
    stage::{BALANCERS, Stage},
    terminal::Terminal,
};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Kills the server of a backend, or starts it again.
    Toggle(&'static str),
    /// Gives a web server weight 0, or its weight again.
    Drain,
    /// Reloads a file with a mistake in it.
    InvalidReload,
    /// Kills the daemon of the master.
    KillMaster,
    /// Starts the daemons that were killed again.
    Restart,
    /// Pulls the master's cable on the client's side, or plugs in the one that is pulled.
    Cable,
    /// Has the master hand the group over.
    HandOver,
    /// A shell on the client.
    ClientShell,
    /// A shell on the master.
    BalancerShell,
    /// A MySQL session through the virtual address.
    Mysql,
    /// The end.
    Quit,
}

/// Who is drained.
const DRAINED: &str = WEBSERVERS[WEBSERVERS.len() - 1];

impl Act {
    /// What a key does, if anything.
    pub(crate) fn of(key: u8) -> Option<Self> {
        Some(match key {
            b'1'..=b'9' => Self::Toggle(Stage::backends().nth(usize::from(key - b'1'))?),
            b'd' => Self::Drain,
            b'i' => Self::InvalidReload,
            b'k' => Self::KillMaster,
            b'r' => Self::Restart,
            b'c' => Self::Cable,
            b'f' => Self::HandOver,
            b's' => Self::ClientShell,
            b'b' => Self::BalancerShell,
            b'm' => Self::Mysql,
            b'q' => Self::Quit,
            _ => return None,
        })
    }

    /// What is shown while it is done.
    pub(crate) fn announcement(self, stage: &mut Stage) -> Option<String> {
        match self {
            Self::Toggle(backend) if !stage.runs(backend) => {
                Some(format!("starting {backend} ..."))
            }
            Self::Restart => Some("starting tandem ...".into()),
            _ => None,
        }
    }

    /// Does it. The answer is what a person should know of it.
    pub(crate) fn run(self, stage: &mut Stage, terminal: &Terminal) -> Result<String> {
        let needs_daemon = matches!(self, Self::Drain | Self::InvalidReload);
        if needs_daemon && !BALANCERS.into_iter().any(|host| stage.is_alive(host)) {
            return Ok("There is no daemon that could reload: r starts both again.".into());
        }
        match self {
            Self::Toggle(backend) => toggle(stage, backend),
            Self::Drain => drain(stage),
            Self::InvalidReload => Ok(invalid_reload(stage)),
            Self::KillMaster => Ok(kill_master(stage)),
            Self::Restart => restart(stage),
            Self::Cable => cable(stage),
            Self::HandOver => hand_over(stage),
            Self::ClientShell => {
                let (web, mysql) = (stage.web(), stage.mysql());
                let hints = format!(
                    "client of http://{web}/ and MySQL at {mysql}: web asks who answers, db is a \
                     MySQL session, exit leads back"
                );
                let functions = format!(
                    "web() {{ curl -s http://{web}/; }}\ndb() {{ {} \"$@\"; }}\n",
                    mariadb(stage)
                );
                shell(stage, stage.pair.client(), terminal, &hints, &functions)
            }
            Self::BalancerShell => {
                let host = stage.master().unwrap_or_default();
                let [ours, theirs] =
                    [host, 1 - host].map(|host| stage.tandem(host).socket().display().to_string());
                let hints = "balancer: try status, peer, failover, reload, tandem check $config, \
                             ip -br addr; exit leads back";
                let functions = format!(
                    "config={}\nstatus() {{ tandem status --socket {ours} \"$@\"; }}\n\
                     peer() {{ tandem status --socket {theirs} \"$@\"; }}\n\
                     failover() {{ tandem failover {GROUP} --socket {ours}; }}\n\
                     reload() {{ tandem reload --socket {ours}; }}\n",
                    stage.tandem(host).config().display()
                );
                shell(stage, stage.twin(host), terminal, hints, &functions)
            }
            Self::Mysql => {
                let pid = stage.tandem(stage.master().unwrap_or_default()).process().pid();
                let hint = format!(
                    "SELECT @@report_host, CONNECTION_ID(); tells which server and session it is, \
                     \\! kill -9 {pid} kills the master under it, exit leads back"
                );
                // An interactive shell gives it a process group, and so a Ctrl-C, of its own.
                let script = format!("echo '{hint}'; {}; :", mariadb(stage));
                let bash = stage.pair.client().command("bash").args(["--norc", "-ic", &script]);
                interact(terminal, bash)
            }
            Self::Quit => Ok(String::new()),
        }
    }
}

fn toggle(stage: &mut Stage, backend: &str) -> Result<String> {
    if stage.runs(backend) {
        stage.kill(backend);
        return Ok(format!(
            "Killed the server on {backend}. Two failed checks, a second, and no connection goes \
             there any more; those in between fail. The same key starts it again."
        ));
    }
    stage.start(backend)?;
    Ok(format!("Started {backend} again. It gets connections after two good checks."))
}

fn drain(stage: &mut Stage) -> Result<String> {
    let wishes = match stage.wishes.drained {
        Some(_) => Wishes::default(),
        None => Wishes { drained: Some(DRAINED), ..Wishes::default() },
    };
    let drains = wishes.drained.is_some();
    stage.configure(wishes)?;
    Ok(if drains {
        format!(
            "Reloaded with weight 0 for {DRAINED}: it keeps its connections and gets no new ones. \
             d undoes it."
        )
    } else {
        format!("Reloaded: {DRAINED} has its weight again.")
    })
}

fn invalid_reload(stage: &mut Stage) -> String {
    let wishes = Wishes { mistaken: true, ..stage.wishes.clone() };
    match stage.configure(wishes) {
        Ok(()) => "A file with a mistake in it was taken: that is a bug, please report it.".into(),
        Err(_) => {
            "Wrote a mistake into the file and ran `tandem reload`: refused, see above; what \
                   was in force stays. d reloads a valid file."
                .into()
        }
    }
}

const NO_MASTER: &str = "There is no master now: look at why, above.";

fn kill_master(stage: &mut Stage) -> String {
    let Ok(master) = stage.master() else { return NO_MASTER.into() };
    stage.kill_tandem(master);
    let succeeded = stage.is_alive(1 - master);
    let name = stage.twin(master).name();
    if !succeeded {
        return format!("Killed tandem on {name}, too: nobody serves now. r starts both again.");
    }
    format!(
        "Killed tandem on {name} by kill -9. The other host takes over, and knows the connections \
         that were open: they go on. r starts {name} again."
    )
}

fn restart(stage: &mut Stage) -> Result<String> {
    let mut started = Vec::new();
    for host in BALANCERS {
        if !stage.is_alive(host) {
            stage.start_tandem(host)?;
            started.push(stage.twin(host).name().to_owned());
        }
    }
    Ok(match &started[..] {
        [] => "Both daemons run: k kills the master's.".into(),
        names => format!(
            "Started tandem on {} again. lb1 has the higher priority: it takes the group back \
             after {} s, its preempt_delay.",
            names.join(" and "),
            PREEMPT_DELAY.as_secs()
        ),
    })
}

fn cable(stage: &mut Stage) -> Result<String> {
    if let Some(host) = stage.plug()? {
        let name = stage.twin(host).name();
        return Ok(format!("Plugged {name}'s cable in again. lb1 takes back what it held."));
    }
    let Ok(master) = stage.master() else { return Ok(NO_MASTER.into()) };
    stage.pull(master)?;
    let name = stage.twin(master).name();
    Ok(format!(
        "Pulled {name}'s cable on the clients' side. Its interface is down, so the whole group \
         moves, the address towards the backends as well. c plugs it in again."
    ))
}

fn hand_over(stage: &mut Stage) -> Result<String> {
    let Ok(master) = stage.master() else { return Ok(NO_MASTER.into()) };
    if !stage.is_alive(1 - master) {
        return Ok("There is nobody to hand over to: r starts the other daemon again.".into());
    }
    stage.hand_over(master)?;
    let name = stage.twin(master).name();
    Ok(format!(
        "Ran `tandem failover {GROUP}` on {name}: the other host takes over at once, and connections \
         that were open go on. f hands it back."
    ))
}

/// The command line of the client, for people.
fn mariadb(stage: &Stage) -> String {
    let vip = stage.mysql();
    let (ip, port) = (vip.ip(), vip.port());
    format!("mariadb --no-defaults --user=lab --password=lab --host={ip} --port={port} lab")
}

/// A shell for a person, with these functions.
fn shell(
    stage: &Stage,
    host: &Namespace,
    terminal: &Terminal,
    hints: &str,
    functions: &str,
) -> Result<String> {
    let name = host.name();
    let file: PathBuf = stage.pair.dir().join(format!("{name}.bashrc"));
    let tools = std::env::current_exe()?;
    let tools = tools.parent().context("programs are in directories")?.display();
    let greeting = format!("PS1='{name}# '\nHISTFILE=\necho '{hints}'\n");
    fs::write(&file, format!("PATH={tools}:$PATH\n{functions}{greeting}"))?;
    interact(terminal, host.command("bash").arg("--rcfile").arg(&file).arg("-i"))
}

fn interact(terminal: &Terminal, command: Command) -> Result<String> {
    terminal.lend(|| command.interact())??;
    Ok(String::new())
}
