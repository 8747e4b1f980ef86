//! What a data plane holds, whatever its layout. Both sides are on one host, but of two versions: what is
//! here changes only together with [`VERSION`], but for new fields that have defaults.
//!
//! Everything is said in lines of JSON: a [`Greeting`] and an [`Account`] to begin with, then [`Part`]s and
//! an [`End`] each time that the other side asks, by one of the words [`PASS`] and [`LAST`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use anyhow::{Result, ensure};
use lb_common::{
    addr::Mac,
    maps::{MAX_BACKENDS, MAX_GROUPS, MAX_SERVICES, NextHop, SLOTS, Tag, Tags},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{Balance, Limits, Timeouts},
    core::{
        Desired, DesiredBackend, DesiredService, Slots,
        sync::{Connection, Tuple},
    },
};

/// The version of all this.
pub(super) const VERSION: u32 = 1;

/// Asks for the connections that were not told of yet, or are in another state since.
pub(super) const PASS: &str = "pass\n";
/// The same when no packet comes to that data plane any more.
pub(super) const LAST: &str = "last\n";

/// The first line, of all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The [`VERSION`] that is spoken.
    pub(super) version: u32,
}

/// Any further line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Line {
    /// What there is beside connections.
    Account(Account),
    /// Some connections.
    Part(Part),
    /// There are no more of them for now.
    End(End),
}

/// What there is beside connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// What the clock of TCP timestamps is ahead of the monotonic one, in milliseconds: connections were
    /// moved to that clock, and new ones must not fall behind it.
    pub(super) epoch: u32,
    /// Services by number, those included that no address is bound to any more.
    pub(super) services: BTreeMap<u16, Service>,
    /// Backends by number.
    pub(super) backends: BTreeMap<u16, Backend>,
    /// Numbers of the groups that the virtual addresses belong to; zero for none.
    pub(super) addresses: BTreeMap<IpAddr, u16>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Service {
    /// Addresses and ports.
    pub(super) bind: Vec<SocketAddr>,
    /// Its algorithm, by the name that the configuration has for it.
    pub(super) balance: String,
    /// Numbers of backends, as the algorithm wants them.
    pub(super) slots: Vec<u16>,
    /// Longest time for a handshake.
    pub(super) connect: Duration,
    /// Longest silences of the client and of the backend.
    pub(super) silence: [Duration; 2],
    /// The same once one side has closed.
    pub(super) silence_fin: [Duration; 2],
    /// Number of its group; zero for none.
    pub(super) group: u16,
    /// Most connections that it may have; none for no limit.
    #[serde(default)]
    pub(super) maxconn: Option<NonZeroU32>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backend {
    /// Number of its service.
    pub(super) service: u16,
    /// Address and port.
    pub(super) address: SocketAddr,
    /// Effective weight.
    pub(super) weight: u16,
    /// Addresses that clients are translated to.
    pub(super) sources: Vec<IpAddr>,
    /// Where its frames go.
    pub(super) way: Way,
    /// Most connections that it may have; none for no limit.
    #[serde(default)]
    pub(super) maxconn: Option<NonZeroU32>,
    /// Most SYNs that may wait for it; none for no limit.
    #[serde(default)]
    pub(super) maxqueue: Option<NonZeroU32>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Way {
    /// Interface; zero if it is not known.
    ifindex: u32,
    /// Source address of the frames.
    src: [u8; 6],
    /// Destination address of the frames.
    dst: [u8; 6],
    /// Protocol and number of each VLAN tag, network byte order, the outer one first; zero for none.
    tags: [(u16, u16); 2],
}

/// Some connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The next hops to their clients, by the numbers they have in the old data plane.
    pub(super) ways: BTreeMap<u16, Way>,
    /// The connections.
    pub(super) connections: Vec<Carried>,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Carried {
    client: SocketAddr,
    bind: SocketAddr,
    source: SocketAddr,
    backend: SocketAddr,
    /// State bits, which are the same in every version, as they are for the peer.
    pub(super) state: u8,
    /// What is added to the client's TCP timestamps.
    timestamp: u32,
    /// Number of its service.
    pub(super) service: u16,
    /// Number of its backend.
    pub(super) number: u16,
    /// Which of the ways leads to its client; nothing if that is not known.
    pub(super) way: Option<u16>,
}

/// There are no more connections for now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// Translation ports tried so far, by the number of the backend.
    pub(super) cursors: BTreeMap<u16, u64>,
}

impl Account {
    /// Fails unless this version's maps have room for it.
    pub(super) fn check(&self) -> Result<()> {
        let is_backend = |number: &u16| u32::from(*number) < MAX_BACKENDS;
        let is_group = |number: u16| u32::from(number) < MAX_GROUPS;
        let fits = |(number, service): (&u16, &Service)| {
            u32::from(*number) < MAX_SERVICES
                && service.slots.len() <= SLOTS
                && service.slots.iter().all(is_backend)
                && is_group(service.group)
        };
        ensure!(
            self.services.iter().all(fits)
                && self.backends.keys().all(is_backend)
                && self.addresses.values().all(|group| is_group(*group)),
            "this version has less room"
        );
        Ok(())
    }

    /// What the core would have to desire to get this.
    ///
    /// # Errors
    ///
    /// If a service has an algorithm that this version does not know.
    pub(super) fn desired(&self) -> Result<Desired> {
        let services = self.services.iter().map(|(number, one)| Ok((*number, one.desired()?)));
        let backends = self.backends.iter().map(|(number, one)| (*number, one.desired()));
        let mut shared = self.addresses.clone();
        // Virtual addresses for now, so that what comes to them falls under the truce.
        for source in self.backends.values().flat_map(|backend| &backend.sources) {
            shared.entry(*source).or_insert(0);
        }
        Ok(Desired {
            services: services.collect::<Result<_>>()?,
            backends: backends.collect(),
            shared,
            // Nobody is told of them before the configuration was.
            groups: BTreeMap::new(),
            // Nor does anybody wait before that.
            limited: BTreeSet::new(),
        })
    }
}

impl Service {
    fn desired(&self) -> Result<DesiredService> {
        let known = [Balance::RoundRobin, Balance::LeastConn, Balance::Source, Balance::Hash];
        let balance = known.into_iter().find(|one| one.name() == self.balance);
        let balance = balance
            .ok_or_else(|| anyhow::anyhow!("this version knows no balance {}", self.balance))?;
        let ([client, server], [client_fin, server_fin]) = (self.silence, self.silence_fin);
        Ok(DesiredService {
            bind: self.bind.clone(),
            balance,
            slots: Slots(self.slots.as_slice().into()),
            maxconn: self.maxconn,
            timeout: Timeouts {
                connect: self.connect,
                queue: self.connect,
                client,
                server,
                client_fin,
                server_fin,
            },
            group: self.group,
            // There is nobody yet who could acknowledge anything.
            synchronous: false,
        })
    }
}

impl Backend {
    fn desired(&self) -> DesiredBackend {
        DesiredBackend {
            service: self.service,
            address: self.address,
            weight: self.weight,
            limits: Limits { maxconn: self.maxconn, maxqueue: self.maxqueue },
            sources: self.sources.clone(),
            // The daemon says it again, by what it is configured to.
            error_limit: None,
            hop: self.way.into(),
        }
    }
}

impl Carried {
    /// What is told of a connection with owners of these numbers.
    pub(super) fn new(
        connection: &Connection,
        service: u16,
        number: u16,
        way: Option<u16>,
    ) -> Self {
        let Connection { tuple: Tuple { client, bind, source, backend }, state, timestamp } =
            *connection;
        Self { client, bind, source, backend, state, timestamp, service, number, way }
    }

    /// The connection, as the peer would tell of it.
    pub(super) fn connection(&self) -> Connection {
        let Self { client, bind, source, backend, state, timestamp, .. } = *self;
        Connection { tuple: Tuple { client, bind, source, backend }, state, timestamp }
    }
}

impl From<NextHop> for Way {
    fn from(NextHop { ifindex, src, dst, tags }: NextHop) -> Self {
        let tags = tags.0.map(|Tag { protocol, vlan }| (protocol, vlan));
        Self { ifindex, src: src.0, dst: dst.0, tags }
    }
}

impl From<Way> for NextHop {
    fn from(Way { ifindex, src, dst, tags }: Way) -> Self {
        let tags = Tags(tags.map(|(protocol, vlan)| Tag { protocol, vlan }));
        Self { ifindex, src: Mac(src), dst: Mac(dst), tags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let hour = Duration::from_secs(3600);
        let service = Service {
            bind: vec!["192.0.2.1:80".parse().unwrap()],
            balance: "leastconn".to_owned(),
            slots: vec![7],
            connect: Duration::from_secs(5),
            silence: [hour, hour],
            silence_fin: [Duration::from_secs(30); 2],
            group: 3,
            maxconn: NonZeroU32::new(80),
        };
        let tags = [(0x8100_u16.to_be(), 20_u16.to_be()), (0, 0)];
        let backend = Backend {
            service: 2,
            address: "10.0.0.1:80".parse().unwrap(),
            weight: 5,
            sources: vec!["10.0.0.9".parse().unwrap()],
            way: Way { ifindex: 4, src: [1; 6], dst: [2; 6], tags },
            maxconn: NonZeroU32::new(50),
            maxqueue: NonZeroU32::new(9),
        };
        Account {
            epoch: u32::MAX,
            services: [(2, service)].into(),
            backends: [(7, backend)].into(),
            addresses: [("192.0.2.1".parse().unwrap(), 3)].into(),
        }
    }

    #[test]
    fn an_account_survives_the_way_and_says_what_the_core_once_desired() {
        let line = serde_json::to_string(&Line::Account(account())).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&line).unwrap(), Line::Account(account()));
        let desired = account().desired().unwrap();
        assert_eq!((desired.services[&2].group, desired.services[&2].slots.0[0]), (3, 7));
        let backend = &desired.backends[&7];
        assert_eq!((backend.service, Way::from(backend.hop)), (2, account().backends[&7].way));
        let groups = ["192.0.2.1", "10.0.0.9"].map(|ip| desired.shared[&ip.parse().unwrap()]);
        assert_eq!(groups, [3, 0], "a source address falls under the truce");
    }

    #[test]
    fn limits_hold_at_once_and_a_release_that_tells_of_none_is_understood() {
        let desired = account().desired().unwrap();
        let Limits { maxconn, maxqueue } = desired.backends[&7].limits;
        let limits = [desired.services[&2].maxconn, maxconn, maxqueue];
        assert_eq!(limits.map(|limit| limit.map(NonZeroU32::get)), [Some(80), Some(50), Some(9)]);

        let mut told = serde_json::to_value(account()).unwrap();
        for (owner, key) in
            [("services/2", "maxconn"), ("backends/7", "maxconn"), ("backends/7", "maxqueue")]
        {
            let owner = told.pointer_mut(&format!("/{owner}")).unwrap().as_object_mut().unwrap();
            owner.remove(key).expect("it was told");
        }
        let heard: Account = serde_json::from_value(told).unwrap();
        let desired = heard.desired().unwrap();
        assert_eq!(desired.services[&2].maxconn, None);
        assert_eq!(desired.backends[&7].limits, Limits::default());
    }

    #[test]
    fn a_connection_survives_the_way() {
        let [client, bind, source, backend] =
            ["[2001:db8::1]:4000", "[2001:db8::2]:80", "[fd00::9]:1024", "[fd00::1]:80"]
                .map(|end| end.parse().unwrap());
        let tuple = Tuple { client, bind, source, backend };
        let connection = Connection { tuple, state: 3, timestamp: u32::MAX };
        let told = Carried::new(&connection, 2, 7, Some(5000));
        let line = serde_json::to_string(&told).unwrap();
        let heard: Carried = serde_json::from_str(&line).unwrap();
        assert_eq!((heard, heard.connection()), (told, connection));
    }

    #[test]
    fn what_this_version_has_no_room_for_or_does_not_know_is_refused() {
        account().check().unwrap();
        let mut more = account();
        more.backends.insert(u16::MAX, more.backends[&7].clone());
        assert!(more.check().is_err());
        let mut more = account();
        more.addresses.values_mut().for_each(|group| *group = 64);
        assert!(more.check().is_err());
        let mut other = account();
        other.services.values_mut().for_each(|service| service.balance = "random".to_owned());
        other.check().unwrap();
        assert!(other.desired().is_err());
    }
}
