//! Services for the configuration file.

use std::{
    fmt::{self, Display, Formatter},
    net::SocketAddr,
};

use super::{Family, Host};

/// A `[[service]]`, which its `Display` writes as TOML. Its backends are taken for healthy unless
/// it is [checked](Service::checked), so that what a test counts is its own doing.
///
/// ```no_run
/// # fn story() -> anyhow::Result<()> {
/// use tests::lab::{Family, Lab, Service, Tandem};
/// let lab = Lab::two_arm(3)?;
/// let service = Service::new("web", (lab.vip4(), 80))
///     .set("balance = \"leastconn\"")
///     .backends(lab.backends(), Family::V4, 80);
/// let tandem = Tandem::start(&lab, &service.to_string())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    bind: SocketAddr,
    check: &'static str,
    settings: String,
    backends: String,
}

impl Service {
    /// A service on an address, without backends.
    pub fn new(name: impl Display, bind: impl Into<SocketAddr>) -> Self {
        Self {
            name: name.to_string(),
            bind: bind.into(),
            check: "enabled = false",
            settings: String::new(),
            backends: String::new(),
        }
    }

    /// Has its backends checked by connects in quick succession. The patience with each is long:
    /// a machine that is short of breath is no reason to take a backend for dead.
    #[must_use]
    pub fn checked(self) -> Self {
        Self { check: r#"inter = "100ms", timeout = "3s", rise = 2, fall = 2"#, ..self }
    }

    /// Adds a setting, such as `balance = "leastconn"`.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.settings += line;
        self.settings.push('\n');
        self
    }

    /// Adds a backend that is named after its host.
    #[must_use]
    pub fn backend(self, host: &Host, family: Family, port: u16) -> Self {
        self.backend_with(host, family, port, "")
    }

    /// Adds a backend with settings of its own, such as `weight = 2`.
    #[must_use]
    pub fn backend_with(self, host: &Host, family: Family, port: u16, settings: &str) -> Self {
        self.backend_at(host, host.at(family, port), settings)
    }

    /// Adds a backend at another address of its host than the lab gave it.
    #[must_use]
    pub fn backend_at(mut self, host: &Host, address: SocketAddr, settings: &str) -> Self {
        let name = host.name();
        let lines = [
            "",
            "[[service.backend]]",
            &format!("name = \"{name}\""),
            &format!("address = \"{address}\""),
            settings,
            "",
        ];
        self.backends += &lines.join("\n");
        self
    }

    /// Adds backends, all on the same port.
    #[must_use]
    pub fn backends(self, hosts: &[Host], family: Family, port: u16) -> Self {
        hosts.iter().fold(self, |service, host| service.backend(host, family, port))
    }
}

impl Display for Service {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, bind, check, settings, backends } = self;
        write!(
            f,
            "\
[[service]]
name = \"{name}\"
bind = \"{bind}\"
server.check = {{ {check} }}
{settings}{backends}
"
        )
    }
}
