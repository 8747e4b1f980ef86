//! What systemd is about to do with a unit.

use std::process::{Command, Stdio};

/// Whether systemd has a job to restart the unit (`tandem.service`) at this moment.
///
/// `systemctl restart` is one job of the type `restart`: while its first half stops the unit,
/// `systemctl list-jobs` shows `<number> <unit> restart running`. A `systemctl stop`, or the machine's
/// shutdown, is shown as a job of the type `stop`. Where systemd cannot be asked, the answer is no.
pub fn is_restarting(unit: &str) -> bool {
    let mut ask = Command::new("systemctl");
    ask.args(["list-jobs", "--no-legend", "--plain", "--full"]).stdin(Stdio::null());
    let Ok(output) = ask.output() else { return false };
    has_restart(&String::from_utf8_lossy(&output.stdout), unit)
}

/// Whether a list of jobs has the unit's restart.
fn has_restart(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, name, "restart" | "try-restart", ..] if name == unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_of_the_unit_itself_counts() {
        let jobs = "\
 871 ssh.service      restart running
1024 tandem.service   restart running
1025 multi-user.target start  waiting
";
        assert!(has_restart(jobs, "tandem.service"));
        assert!(!has_restart(jobs, "tandem@2.service"));
        assert!(!has_restart("1024 tandem.service stop running\n", "tandem.service"));
        assert!(!has_restart("1024 tandem.service start waiting\n", "tandem.service"));
        assert!(!has_restart("No jobs running.\n", "tandem.service"));
        assert!(!has_restart("", "tandem.service"));
    }
}
