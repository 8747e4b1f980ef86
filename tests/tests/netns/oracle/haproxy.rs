//! An HAProxy that checks the same backends from the same host.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, Process, wait::until};

use super::{Account, PATIENCE, Said};

/// It runs on the balancer, and what an operator can say to it is said by its socket.
pub(super) struct Oracle {
    process: Process,
    socket: PathBuf,
}

impl Oracle {
    /// Starts it with these sections, `listen` and `backend`.
    pub(super) fn start(lab: &Lab, sections: &str) -> Result<Self> {
        let (file, socket) = (lab.dir().join("oracle.cfg"), lab.dir().join("oracle.sock"));
        let text = format!(
            "\
global
  nbthread 1
  external-check
  insecure-fork-wanted
  stats socket {} level admin
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
{sections}",
            socket.display()
        );
        std::fs::write(&file, text)?;
        let command = lab.balancer().command("haproxy").arg("-db").arg("-f").arg(&file);
        let oracle = Self { process: command.spawn()?, socket };
        until("the start of HAProxy", PATIENCE, || oracle.account().map(drop))
            .with_context(|| oracle.process.log_tail(20))?;
        Ok(oracle)
    }

    /// Runs a command of its runtime API that answers with nothing.
    pub(super) fn order(&self, command: &str) -> Result<()> {
        let answer = self.ask(command)?;
        ensure!(answer.trim().is_empty(), "{command}: {answer}");
        Ok(())
    }

    /// What it says of its servers.
    pub(super) fn account(&self) -> Result<Account> {
        let table = self.ask("show stat")?;
        let mut lines = table.trim_start_matches("# ").lines().filter(|line| !line.is_empty());
        let titles: Vec<&str> = lines.next().context("no table")?.split(',').collect();
        let column = |title: &str| {
            let place = titles.iter().position(|found| *found == title);
            place.with_context(|| format!("no column {title} in {titles:?}"))
        };
        let [proxy, server] = [column("pxname")?, column("svname")?];
        let [status, weight] = [column("status")?, column("weight")?];
        let [reason, downs] = [column("check_status")?, column("chkdown")?];
        let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
        let servers = rows.filter(|row| !["FRONTEND", "BACKEND"].contains(&row[server]));
        let said = |row: Vec<&str>| {
            // "DOWN (agent)"; "UP 1/3", which takes fewer checks to go down; "no check".
            let state = row[status].split(' ').next().unwrap_or_default();
            let said = Said {
                state: state.to_owned(),
                weight: row[weight].parse()?,
                // A check that is under way has an asterisk.
                reason: row[reason].trim_start_matches("* ").to_owned(),
                // Without a check there is no number.
                downs: row[downs].parse().unwrap_or_default(),
            };
            Ok((format!("{}/{}", row[proxy], row[server]), said))
        };
        servers.map(said).collect()
    }

    /// How often it has asked a name server for a name and had no answer, or not yet.
    pub(super) fn asked_in_vain(&self) -> Result<u64> {
        let table = self.ask("show resolvers")?;
        let sum = |title: &str| -> Result<u64> {
            let lines = table.lines().filter_map(|line| line.trim().split_once(':'));
            let counts = lines.filter(|(found, _)| *found == title);
            counts.map(|(_, count)| Ok(count.trim().parse::<u64>()?)).sum()
        };
        Ok(sum("sent")?.saturating_sub(sum("valid")? + sum("nx")?))
    }

    fn ask(&self, command: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        writeln!(stream, "{command}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
