//! The balancers' part of the live view: a line for each.

use lb_daemon::{
    admin::{Rate, Rates},
    core::{Status, group::Role},
};

use crate::stage::group;

/// What is known of a balancer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What it said last.
    pub(crate) status: Option<Status>,
    /// Whether it said so just now.
    pub(crate) answers: bool,
    /// How its counters run.
    pub(crate) rates: Rates,
}

impl Seen {
    /// Whether it says that it is the master.
    pub(crate) fn is_master(&self) -> bool {
        self.answers
            && self.status.as_ref().and_then(group).is_some_and(|one| one.role == Role::Master)
    }

    /// Its line, under [`titles`].
    pub(crate) fn line(&self, name: &str) -> String {
        let (true, Some(status)) = (self.answers, &self.status) else {
            let why = "without a lease it is silent";
            return row([name, "", "-", "-", "-", "-", why], "KILLED", RED);
        };
        let Some(group) = group(status) else {
            return row([name, "", "-", "-", "-", "-", "it has no group"], "-", RED);
        };
        let colour = match group.role {
            Role::Master => GREEN,
            Role::Backup => PLAIN,
            Role::Init | Role::Fault => RED,
        };
        let traffic = Traffic::of(status, &self.rates);
        let numbers = [
            traffic.open.to_string(),
            format!("{:.0}/s", traffic.rate.connections),
            kilobits(traffic.rate.bits_in),
            kilobits(traffic.rate.bits_out),
        ];
        let [open, new, bits_in, bits_out] = &numbers;
        let role = group.role.name();
        row(
            [name, &age(group.since_seconds), open, new, bits_in, bits_out, &group.why],
            role,
            colour,
        )
    }
}

/// The line above those of the balancers.
pub(crate) fn titles() -> String {
    row(["HOST", "SINCE", "CONNS", "NEW", "IN", "OUT", "WHY"], "ROLE", PLAIN)
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "";

/// The role is apart, as it has a colour.
fn row(cells: [&str; 7], role: &str, colour: &str) -> String {
    let [name, since, open, new, bits_in, bits_out, why] = cells;
    format!(
        "{name:<4} {colour}{role:<6}\x1b[0m {since:>4} {open:>5} {new:>5} {bits_in:>7} \
         {bits_out:>7}  {why}"
    )
}

/// The traffic of all backends of a balancer.
#[derive(Debug, Default)]
struct Traffic {
    open: u64,
    rate: Rate,
}

impl Traffic {
    fn of(status: &Status, rates: &Rates) -> Self {
        let mut sum = Self::default();
        for service in &status.services {
            for backend in &service.backends {
                let rate = rates.of(&service.name, &backend.name);
                sum.open += backend.traffic.active;
                sum.rate.connections += rate.connections;
                sum.rate.bits_in += rate.bits_in;
                sum.rate.bits_out += rate.bits_out;
            }
        }
        sum
    }
}

fn kilobits(per_second: f64) -> String {
    format!("{:.0}kb/s", per_second / 1000.0)
}

fn age(seconds: u64) -> String {
    if seconds < 100 { format!("{seconds}s") } else { format!("{}m", seconds / 60) }
}

#[cfg(test)]
mod tests {
    use lb_daemon::core::GroupStatus;

    use super::*;
    use crate::config::GROUP;

    fn seen(answers: bool) -> Seen {
        let (name, why) = (GROUP.to_owned(), "no advert within 361 ms".to_owned());
        let group =
            GroupStatus { name, why, role: Role::Master, since_seconds: 7, ..Default::default() };
        let status = Status { groups: vec![group], ..Default::default() };
        Seen { status: Some(status), answers, rates: Rates::default() }
    }

    #[test]
    fn a_balancer_is_told_with_its_role_and_why() {
        assert_eq!(
            seen(true).line("lb1"),
            "lb1  \x1b[32mMASTER\x1b[0m   7s     0   0/s   0kb/s   0kb/s  no advert within 361 ms"
        );
    }

    #[test]
    fn one_that_does_not_answer_is_no_master_whatever_it_said() {
        assert!(seen(true).is_master());
        assert!(!seen(false).is_master());
        assert!(seen(false).line("lb1").contains("KILLED"));
    }
}
