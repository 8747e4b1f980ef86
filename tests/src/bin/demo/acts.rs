//! What a person can do in the live view, key by key.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use tests::lab::{Command, Namespace};

use crate::{
    config::{WEBSERVERS, Wishes},
    stage::Stage,
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
    /// Kills the daemon, or starts it again.
    KillDaemon,
    /// A shell on the client.
    ClientShell,
    /// A shell on the balancer.
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
            b'k' => Self::KillDaemon,
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
            Self::KillDaemon if !stage.tandem.process_mut().is_running() => {
                Some("starting tandem ...".into())
            }
            _ => None,
        }
    }

    /// Does it. The answer is what a person should know of it.
    pub(crate) fn run(self, stage: &mut Stage, terminal: &Terminal) -> Result<String> {
        let needs_daemon = matches!(self, Self::Drain | Self::InvalidReload);
        if needs_daemon && !stage.tandem.process_mut().is_running() {
            return Ok("There is no daemon that could reload: k starts it again.".into());
        }
        match self {
            Self::Toggle(backend) => toggle(stage, backend),
            Self::Drain => drain(stage),
            Self::InvalidReload => Ok(invalid_reload(stage)),
            Self::KillDaemon => kill_daemon(stage),
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
                shell(stage, stage.lab.client(), terminal, &hints, &functions)
            }
            Self::BalancerShell => {
                let socket = stage.tandem.socket().display();
                let hints = "balancer: try status, reload, tandem check $config, ip -br addr; exit \
                             leads back";
                let functions = format!(
                    "config={}\nstatus() {{ tandem status --socket {socket} \"$@\"; }}\n\
                     reload() {{ tandem reload --socket {socket}; }}\n",
                    stage.tandem.config().display()
                );
                shell(stage, stage.lab.balancer(), terminal, hints, &functions)
            }
            Self::Mysql => {
                let hint = "SELECT @@report_host; tells which server it is, exit leads back";
                // An interactive shell gives it a process group, and so a Ctrl-C, of its own.
                let script = format!("echo '{hint}'; {}; :", mariadb(stage));
                let bash = stage.lab.client().command("bash").args(["--norc", "-ic", &script]);
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
        Ok(_) => "A file with a mistake in it was taken: that is a bug, please report it.".into(),
        Err(_) => {
            "Wrote a mistake into the file and ran `tandem reload`: refused, see above; what \
                   was in force stays. d reloads a valid file."
                .into()
        }
    }
}

fn kill_daemon(stage: &mut Stage) -> Result<String> {
    if stage.tandem.process_mut().is_running() {
        stage.tandem.kill9();
        return Ok(
            "Killed tandem by kill -9. The table stands still, but the packets go on: see who \
                   answers. Nobody checks the backends now. k starts it again."
                .into(),
        );
    }
    stage.tandem.start_again()?;
    Ok("Started tandem again: it carries on with the connections that it found.".into())
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
    let file: PathBuf = stage.lab.dir().join(format!("{name}.bashrc"));
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
