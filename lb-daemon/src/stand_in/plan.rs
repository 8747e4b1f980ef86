//! What a daemon hands over to whoever stands in for it.

use std::{
    io::{BufRead as _, stdin},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    config::{self, Config, Group, Protocol, Track},
    election::Mastery,
};

/// What is to be gone on with, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The configuration in force as far as the groups need it, passwords included: the file, and
    /// those that it names, may say something else by now.
    pub config: Config,
    /// The groups that this host is master of.
    pub masteries: Vec<Mastery>,
}

/// The same on its way: one line of JSON.
#[derive(Serialize, Deserialize)]
struct Line {
    /// In TOML.
    config: String,
    masteries: Vec<Mastery>,
}

impl Plan {
    /// The plan for these groups of a daemon with this configuration, whose data plane is there.
    pub(super) fn new(config: &Config, bpffs: &Path, masteries: Vec<Mastery>) -> Self {
        let is_ours = |group: &&Arc<Group>| masteries.iter().any(|one| one.name == group.name);
        let mut config = Config {
            groups: config.groups.iter().filter(is_ours).map(|group| bare(group)).collect(),
            // What is tracked is the daemon's work, and summed up in the standings.
            scripts: Vec::new(),
            processes: Vec::new(),
            services: Vec::new(),
            sync: None,
            ..config.clone()
        };
        bpffs.clone_into(&mut config.global.bpffs);
        Self { config, masteries }
    }

    /// One line, its end included.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let line = Line { config: self.config.to_toml(), masteries: self.masteries.clone() };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        Ok(line)
    }

    fn decode(line: &str) -> Result<Self> {
        let Line { config, masteries } = serde_json::from_str(line)?;
        let config = config::parse(&config, "the daemon's configuration")?.config;
        Ok(Self { config, masteries })
    }
}

/// The plan that the daemon which started this process tells its standard input.
pub fn receive() -> Result<Plan> {
    let mut line = String::new();
    // No more than the line: what comes next is read by somebody else.
    let read = stdin().lock().read_line(&mut line).context("cannot read the daemon's plan")?;
    ensure!(read > 0, "only a daemon that is told to end starts this");
    Plan::decode(&line).context("cannot understand the daemon's plan")
}

/// A group without what it tracks but interfaces, and with its password instead of the name of a file.
fn bare(group: &Group) -> Arc<Group> {
    let mut group = group.clone();
    let interfaces = std::mem::take(&mut group.track.interfaces);
    group.track = Track { interfaces, ..Track::default() };
    match &mut group.protocol {
        Protocol::Vrrp(vrrp) => vrrp.auth_pass_file = None,
        Protocol::Carp(carp) => carp.pass_file = None,
    }
    Arc::new(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::group::Standing;

    const FILE: &str = r#"
        [global]
        node = "lb1"
        interfaces = ["eth0"]

        [[script]]
        name = "check"
        script = "/usr/bin/check"

        [[group]]
        name = "a"
        interface = "eth0"
        protocol = "vrrp"
        version = 2
        virtual_router_id = 51
        priority = 120
        advert_int = "3s"
        auth_type = "PASS"
        auth_pass = "se\"cret"
        virtual_ipaddress = ["192.0.2.1/32"]
        track_script = ["check"]
        notify_master = ["/bin/true", "a b"]

        [[group]]
        name = "b"
        interface = "eth0"
        protocol = "carp"
        vhid = 7
        pass = "secret"
        virtual_ipaddress = ["192.0.2.2/32"]
    "#;

    #[test]
    fn a_plan_survives_the_way() {
        let config = config::parse(FILE, "test").expect("a configuration").config;
        let mastery = |name: &str, number| Mastery {
            name: name.to_owned(),
            number,
            standing: Standing { adjustment: -7, faults: Vec::new(), ready: true },
            counter: u64::MAX,
        };
        for names in [&[][..], &["a"], &["b"], &["a", "b"]] {
            let masteries: Vec<_> = names.iter().zip(1..).map(|(n, at)| mastery(n, at)).collect();
            let sent = Plan::new(&config, Path::new("/sys/fs/bpf/elsewhere"), masteries);
            let line = String::from_utf8(sent.encode().expect("JSON")).expect("UTF-8");
            assert_eq!(line.find('\n'), Some(line.len() - 1));
            let plan = Plan::decode(&line).expect("the same");
            assert_eq!(plan, sent);
            assert_eq!(plan.config.groups.len(), names.len());
            assert_eq!(plan.config.global.bpffs, Path::new("/sys/fs/bpf/elsewhere"));
            if let Some(group) = plan.config.groups.iter().find(|group| group.name == "a") {
                let before = &config.groups[0];
                assert_eq!((&group.protocol, &group.hooks), (&before.protocol, &before.hooks));
                assert!(group.track.scripts.is_empty());
            }
        }
    }

    #[test]
    fn a_password_of_a_file_is_handed_over_itself() {
        let mut config = config::parse(FILE, "test").expect("a configuration").config;
        let mut group = (*config.groups[0]).clone();
        if let Protocol::Vrrp(vrrp) = &mut group.protocol {
            vrrp.auth_pass_file = Some("/nowhere".into());
        }
        config.groups[0] = Arc::new(group);
        let mastery =
            Mastery { name: "a".to_owned(), number: 1, standing: Standing::default(), counter: 0 };
        let plan = Plan::new(&config, Path::new("/sys/fs/bpf/tandem"), vec![mastery]);
        let line = String::from_utf8(plan.encode().expect("JSON")).expect("UTF-8");
        let received = Plan::decode(&line).expect("no file is read");
        let Protocol::Vrrp(vrrp) = &received.config.groups[0].protocol else { panic!("not VRRP") };
        assert_eq!(vrrp.auth_pass.as_deref(), Some("se\"cret"));
    }
}
