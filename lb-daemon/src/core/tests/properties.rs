//! What holds whatever happens, in whatever order.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Something that happens to a core.
#[derive(Clone, Debug)]
enum Step {
    Reload(Index),
    /// One of the probes under way ends.
    Answer(Index, bool),
    /// A probe ends that nobody knows.
    Stray(u64),
    Route {
        host: u8,
        routed: bool,
        via_router: bool,
    },
    Neighbour {
        host: u8,
        mac: u8,
        known: bool,
    },
    RoutesChanged,
    /// A walk that finds connections of these numbers.
    Walk(Vec<u16>),
    /// Time passes, up to the deadline or past it.
    Wait(u16),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    let host = 11..17_u8;
    prop_oneof![
        1 => any::<Index>().prop_map(Step::Reload),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(i, passed)| Step::Answer(i, passed)),
        1 => (0..100_u64).prop_map(Step::Stray),
        3 => (host.clone(), prop::bool::weighted(0.9), any::<bool>())
            .prop_map(|(host, routed, via_router)| Step::Route { host, routed, via_router }),
        3 => (10..17_u8, 1..3_u8, prop::bool::weighted(0.9))
            .prop_map(|(host, mac, known)| Step::Neighbour { host, mac, known }),
        1 => Just(Step::RoutesChanged),
        2 => vec(0..8_u16, 0..4).prop_map(Step::Walk),
        2 => (0..20_000_u16).prop_map(Step::Wait),
        3 => Just(Step::Tick),
    ]
}

/// Configurations that differ in everything a reload can change.
fn configs() -> Vec<Arc<Config>> {
    let unchecked = "check = { enabled = false }";
    let backup = "role = 'backup'";
    vec![
        two(),
        config(&service("db", VIP, "balance = 'leastconn'", &[("db2", 12, ""), ("new", 13, "")])),
        config(&service(
            "db",
            "['10.2.2.3:80', '10.2.2.4:3306']",
            "balance = 'source'\nallbackups = true",
            &[("db1", 11, "weight = 3"), ("b1", 14, backup), ("b2", 15, backup)],
        )),
        config(&format!(
            "{}{}",
            service("web", "'10.2.2.9:80'", "", &[("w1", 11, unchecked), ("w2", 16, "weight = 0")]),
            service("mysql", VIP, "", &[("db1", 11, "check = { port = 9 }"), ("b1", 14, backup)]),
        )),
        config(""),
    ]
}

/// Events as they happened to a core, and what is known of the world besides.
struct World {
    bench: Bench,
    configs: Vec<Arc<Config>>,
    config: Arc<Config>,
    /// Walks in a row that found no connection of a number without an owner, by number.
    quiet: BTreeMap<u16, u8>,
    owners: BTreeMap<u16, SocketAddr>,
}

impl World {
    fn new() -> Self {
        let configs = configs();
        let config = configs[0].clone();
        let bench = Bench::start(&config);
        let mut this =
            Self { bench, configs, config, quiet: BTreeMap::new(), owners: BTreeMap::new() };
        this.follow_owners();
        this
    }

    fn take(&mut self, step: Step) {
        let bench = &mut self.bench;
        match step {
            Step::Reload(which) => {
                self.config = which.get(&self.configs).clone();
                bench.reload(&self.config);
            }
            Step::Answer(which, passed) => {
                if bench.probes.is_empty() {
                    return;
                }
                let request = bench.probes.remove(which.index(bench.probes.len()));
                bench.answer(&request, if passed { Reason::L4Ok } else { Reason::L4Timeout });
            }
            Step::Stray(id) => {
                let strays = [(u64::MAX - id, Reason::L4Timeout), (u64::MAX, Reason::L4Ok)];
                for (probe, reason) in strays.map(|(id, reason)| (ProbeId(id), reason)) {
                    let took = Duration::ZERO;
                    let outcome = Outcome { reason, detail: String::new(), took };
                    bench.event(Event::Probed { probe, outcome });
                }
            }
            Step::Route { host, routed, via_router } => {
                let target = ip(&format!("10.4.4.{host}"));
                let via = if via_router { ip("10.4.4.10") } else { target };
                let route = routed.then(|| route(via));
                bench.event(Event::Routed { target, route });
            }
            Step::Neighbour { host, mac, known } => {
                let address = ip(&format!("10.4.4.{host}"));
                let mac = known.then_some(Mac([2, 0, 0, 0, 1, mac]));
                bench.event(Event::Neighbour { ifindex: IFINDEX, address, mac });
            }
            Step::RoutesChanged => bench.event(Event::RoutesChanged),
            Step::Walk(used) => {
                for (number, walks) in &mut self.quiet {
                    *walks = if used.contains(number) { 0 } else { *walks + 1 };
                }
                bench.walk(&used);
            }
            Step::Wait(millis) => bench.wait(Duration::from_millis(millis.into())),
            Step::Tick => {
                if let Some(deadline) = bench.core.next_deadline() {
                    bench.now = bench.now.max(deadline);
                }
                bench.event(Event::Tick);
                let next = bench.core.next_deadline();
                assert!(next.is_none_or(|next| next > bench.now), "a tick leaves nothing due");
            }
        }
        self.follow_owners();
        self.check();
    }

    /// No number changes hands before two walks found none of its connections.
    fn follow_owners(&mut self) {
        let backends = self.bench.core.services.iter().flat_map(|s| &s.backends);
        let now: BTreeMap<u16, SocketAddr> =
            backends.filter_map(|b| Some((b.number?, b.config.address))).collect();
        for number in self.owners.keys().filter(|number| !now.contains_key(number)) {
            self.quiet.entry(*number).or_insert(0);
        }
        for number in now.keys() {
            if let Some(walks) = self.quiet.remove(number) {
                assert!(walks >= 2, "number {number} may still have connections");
            }
        }
        self.owners = now;
    }

    fn check(&self) {
        let Self { bench, config, .. } = self;
        let desired = &bench.desired;

        let binds: BTreeSet<SocketAddr> =
            desired.services.values().flat_map(|s| s.bind.clone()).collect();
        let configured: BTreeSet<SocketAddr> =
            config.services.iter().flat_map(|s| s.bind.clone()).collect();
        assert_eq!(binds, configured);
        assert_eq!(desired.services.len(), config.services.len(), "a number each");

        let mut probed = BTreeSet::new();
        for request in &bench.probes {
            assert!(probed.insert(request.id), "a probe's name is its own");
        }
        let mut numbers = BTreeSet::new();
        for service in &bench.core.services {
            let number = service.number.expect("there is room for it");
            let told = &desired.services[&number];
            assert_eq!(told.bind, service.config.bind);
            assert_eq!(told.timeout, service.config.timeout);
            for backend in &service.backends {
                assert!(numbers.insert(backend.number.expect("there is room for it")));
            }
            self.check_slots(service, told);
        }
        for number in desired.backends.keys() {
            assert!(numbers.contains(number), "backend {number} is nobody");
        }
    }

    /// The slots hold exactly those that shall get connections, by the words of the manual.
    fn check_slots(&self, service: &ServiceState, told: &DesiredService) {
        let Self { bench, .. } = self;
        let status = bench.status();
        let status = status.services.iter().find(|s| s.name == service.config.name).unwrap();
        let usable = |role| {
            let backends = service.backends.iter().zip(&status.backends);
            let usable = backends.filter(move |(backend, status)| {
                backend.config.role == role
                    && backend.config.weight > 0
                    && status.state != State::Down
                    && bench.core.hops.hop(backend.config.address.ip()).is_ok()
            });
            usable.map(|(backend, _)| backend.number.unwrap()).collect::<Vec<_>>()
        };
        let mut expected = usable(config::Role::Active);
        if expected.is_empty() {
            expected = usable(config::Role::Backup);
            if !service.config.allbackups {
                expected.truncate(1);
            }
        }
        let expected: BTreeSet<u16> = expected.into_iter().collect();
        let slots: BTreeSet<u16> = told.slots.0.iter().copied().collect();
        assert_eq!(slots, expected, "{}", service.config.name);
        for number in &slots {
            assert!(bench.desired.backends.contains_key(number), "slot of an unknown backend");
        }
        assert_eq!(status.state == State::Up, !expected.is_empty());
        for backend in &status.backends {
            let serves = expected.contains(&backend.id);
            assert_eq!(backend.eligible, serves);
            let healthy = backend.state != State::Down;
            assert_eq!(
                backend.why.is_some(),
                healthy && !serves,
                "{}: {:?}",
                backend.name,
                backend.why
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_the_data_plane_is_told_the_truth(steps in vec(step(), 1..80)) {
        let mut world = World::new();
        world.check();
        for step in steps {
            world.take(step);
        }
    }
}
