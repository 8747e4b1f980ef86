//! The lab that the scenarios and the demo share: hosts in network namespaces of their own.
//!
//! A scenario reads like a story:
//!
//! ```no_run
//! use std::time::Duration;
//! use lb_daemon::core::State;
//! use tests::lab::{Ask, IdentServer, Lab, Tandem};
//!
//! # fn story(services: &str) -> anyhow::Result<()> {
//! let lab = Lab::two_arm(2)?;
//! let [b1, b2] = lab.backends() else { unreachable!() };
//! let _servers = [IdentServer::start(b1, 80)?, IdentServer::start(b2, 80)?];
//! let tandem = Tandem::start(&lab, services)?;
//! tandem.wait_until("the service is up", Duration::from_secs(5), |status| {
//!     status.services[0].state == State::Up
//! })?;
//! let vip = (lab.vip4(), 80).into();
//! let tally = Ask::at(vip).times(100).at_once(10).from(lab.client());
//! tally.all_answered()?;
//! assert_eq!((tally.count("b1"), tally.count("b2")), (50, 50));
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! **The place.** [`Lab`](lab::Lab) is a client, a balancer and backends in one of three shapes,
//! [`two_arm`](lab::Lab::two_arm), [`one_arm`](lab::Lab::one_arm) and
//! [`routed`](lab::Lab::routed), always with IPv4 and IPv6; the addresses are in its
//! [plan](lab::plan). The balancer's kernel forwards nothing unless told to
//! ([`let_kernel_forward`](lab::Lab::let_kernel_forward)), so what gets through was balanced.
//! A [`Host`](lab::Host) can be [unplugged](lab::Host::unplug); it is also a
//! [`Namespace`](lab::Namespace), where one can run [closures](lab::Namespace::enter),
//! [threads](lab::Namespace::thread), [commands](lab::Namespace::command) and
//! [`ip`](lab::Namespace::ip). For other shapes there are [`veth`](lab::veth()) and
//! [`bridge`](lab::bridge()).
//!
//! [`Pair`](lab::Pair) has two balancers instead, between two switches. Their cables can be
//! [pulled](lab::Leg::pull) one by one, and a host be [cut off](lab::Twin::cut_off), be
//! [switched off](lab::Twin::power_off), or be [kept from hearing the other](lab::Pair::divide), also
//! by the way [between them alone](lab::Pair::part).
//!
//! **Who answers.** [`IdentServer`](lab::IdentServer) says its host's name and echoes; it can be
//! frozen, or be mute from the start. [`ScriptedServer`](lab::ScriptedServer) plays any dialogue,
//! and another with the next connection. [`ChurnServer`](lab::ChurnServer) ends connections as the
//! client asks it to. [`BulkServer`](lab::BulkServer) is for long transfers,
//! [`MariaDb`](lab::MariaDb), [`Nginx`](lab::Nginx) and, for the names of hosts,
//! [`NameServer`](lab::NameServer) are the real ones. A port on which nothing was started refuses;
//! [`Lab::nobody`](lab::Lab::nobody) is silent.
//!
//! **Who shares addresses.** [`Keepalived`](lab::Keepalived) and [`Ucarp`](lab::Ucarp) are the real
//! ones, and tell their role.
//!
//! **Who asks.** [`Ask`](lab::Ask) makes many short connections and tells who answered,
//! [`Churn`](lab::Churn) makes a great many that end in every way there is and tells which SYNs had
//! to be sent again, [`Held`](lab::Held) keeps connections open, [`Pulse`](lab::Pulse) tells for how
//! long nothing came through, [`Bulk`](lab::Bulk) moves gigabytes and verifies
//! each byte, [`HalfOpen`](lab::HalfOpen) sends SYNs that nobody will follow up,
//! [`http_get`](lab::http_get) and [`MariaDb::query`](lab::MariaDb::query) speak for themselves.
//! They end a connection by FIN or RST ([`Close`](lab::Close)) and can come from many addresses
//! ([`Lab::crowd`](lab::Lab::crowd)).
//!
//! [`Sessions`](lab::Sessions) are thousands of connections to a
//! [`SessionServer`](lab::SessionServer), on which something is said now and then and every byte is
//! checked; [`Openings`](lab::Openings) are new all the time; [`MariaDb::session`](lab::MariaDb::session)
//! is a session with a real database. A [`Survival`](lab::Survival) is a pair with sessions, one host of
//! which has a [`Fault`](lab::Fault).
//!
//! **Who watches.** [`Tap`](lab::Tap) shows the headers of the segments that a host sees,
//! [`Capture`](lab::Capture) what comes into a switch and when, and [`Knocks`](lab::Knocks) for how
//! long a client had no answer. [`deviation`](lab::deviation) says how evenly held connections are
//! spread.
//!
//! **Who shares addresses.** [`Keepalived`](lab::Keepalived) and [`Ucarp`](lab::Ucarp) are the real
//! ones. A [`Contest`](lab::Contest) is a pair with one [member](lab::member::Member) on each host,
//! the product or one of these, and tells by the wire who is master.
//! [`answers_of`](lab::fence::answers_of) asks a host for what should be the other's.
//!
//! **The product.** [`Tandem`](lab::Tandem) is a real `tandem run` on the balancer, and
//! [`Service`](lab::Service) writes what it is to serve; [`Packaged`](lab::Packaged) is the same by its
//! unit, under a real [`Systemd`](lab::Systemd) of the host's own.
//! [`Lab::no_traces`](lab::Lab::no_traces) shows that nothing of it is left.
//!
//! # What to know
//!
//! - It needs root, and the Debian packages `iproute2 ethtool iputils-ping mariadb-server
//!   mariadb-client nginx-light haproxy keepalived ucarp dnsmasq-base systemd tcpdump
//!   tshark`, which `cargo xtask setup` installs.
//! - Everything is undone by dropping it. A `kill -9` of the test leaves nothing either but files
//!   in the temporary directory and empty control groups, which the next lab removes: namespaces have
//!   no names in the file system, and processes inside die with ours. `TANDEM_LAB_KEEP=1` keeps the files for a look.
//! - Every wait has a limit, and what fails says what it saw last. On a machine that is ten times
//!   slower than most, `TANDEM_LAB_STRETCH=10` makes the limits ten times longer.
//! - A scenario that this machine's kernel cannot run says so by [`skip`](lab::skip).
//! - `tandem` is taken from beside the test program (`cargo build --package lb-daemon` puts it
//!   there; `cargo test` alone does not) or from `TANDEM_BIN`. For upgrades there is a second one, with
//!   maps of another layout, in `tandem-other-layout` or `TANDEM_OTHER_LAYOUT_BIN`.
//! - Clients and servers of one test share its limit of open files, 20,000 on some machines: a
//!   [`Held`](lab::Held) of 9,000 is about the most. For more, a
//!   [`SessionServer`](lab::SessionServer::process) is a process of its own.

pub mod bench;
pub mod lab;
