//! Backends that are given by host names.

use super::*;

const NAMED: &str = "db1.example.org";

/// One service of two backends, of which the first has a name.
fn named() -> Arc<Config> {
    config(&with_name(NAMED, ""))
}

fn with_name(name: &str, keys: &str) -> String {
    format!(
        "[[service]]\nname = 'db'\nbind = {VIP}\n\
         [[service.backend]]\nname = 'db1'\naddress = '{name}:3306'\n{keys}\n\
         [[service.backend]]\nname = 'db2'\naddress = '10.4.4.12:3306'\n"
    )
}

impl Bench {
    /// The resolver answers with these addresses.
    fn resolves(&mut self, name: &str, addresses: &[&str]) {
        let heard = Ok(addresses.iter().map(|text| ip(text)).collect());
        self.event(Event::Resolved { name: name.to_owned(), heard });
    }

    fn resolves_not(&mut self, name: &str) {
        let heard = Err("Name or service not known".to_owned());
        self.event(Event::Resolved { name: name.to_owned(), heard });
    }

    fn address_of(&self, backend: &str) -> Option<SocketAddr> {
        self.status_of(backend).address
    }

    /// A daemon whose first backend has resolved to 10.4.4.11, is reachable, and has passed a check.
    fn resolved(config: &Arc<Config>) -> Self {
        let mut bench = Self::start(config);
        bench.resolves(NAMED, &["10.4.4.11"]);
        bench.reach_all();
        bench.pass("db1");
        bench
    }
}

#[test]
fn a_name_is_asked_for_at_once_and_then_in_intervals() {
    let mut bench = Bench::start(&named());
    assert_eq!(std::mem::take(&mut bench.lookups), [NAMED]);
    bench.resolves(NAMED, &["10.4.4.11"]);
    let asked = bench.now;
    while bench.lookups.is_empty() {
        bench.tick();
        bench.probes.clear();
    }
    assert_eq!(bench.now - asked, Duration::from_secs(10));
}

#[test]
fn a_backend_whose_name_does_not_resolve_is_down_and_is_not_checked() {
    let mut bench = Bench::start(&named());
    bench.resolves_not(NAMED);
    assert_eq!(
        bench.said(),
        "Warn: db1.example.org does not resolve, its backends keep the addresses that they have: \
         Name or service not known\n"
    );
    bench.reach_all();
    assert_eq!(bench.serving("db"), ["db2"]);
    let status = bench.status_of("db1");
    assert_eq!((status.state, status.address), (State::Down, None));
    let why = "db1.example.org does not resolve: Name or service not known";
    assert_eq!(status.why.as_deref(), Some(why));
    assert!(bench.probes.iter().all(|probe| !probe.check.target.ip().is_unspecified()));

    // It is asked for again soon.
    bench.lookups.clear();
    bench.tick();
    assert_eq!(bench.lookups, [NAMED]);
    bench.resolves(NAMED, &["10.4.4.11"]);
    assert_eq!(bench.said(), "Info: db1.example.org resolves again\n");
    bench.reach_all();
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.11:3306")));
    assert!(bench.probes.iter().any(|probe| probe.check.target == address("10.4.4.11:3306")));
}

#[test]
fn a_name_that_stops_resolving_keeps_its_address() {
    let mut bench = Bench::resolved(&named());
    bench.resolves_not(NAMED);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    let host = bench.status_of("db1").host.expect("it has a name");
    assert_eq!(host.problem.as_deref(), Some("Name or service not known"));
    bench.resolves_not(NAMED);
    assert_eq!(bench.said(), "", "it was said before");
    bench.resolves(NAMED, &[]);
    assert_eq!(bench.serving("db"), ["db1", "db2"], "no address is no better");
}

#[test]
fn a_backend_that_moves_gets_a_number_of_its_own_and_is_checked_at_once() {
    let mut bench = Bench::resolved(&named());
    let before = bench.number("db1");
    bench.probes.clear();
    bench.resolves(NAMED, &["10.4.4.21"]);
    assert_eq!(
        bench.said(),
        "Info: backend db/db1 moves from 10.4.4.11 to 10.4.4.21, which db1.example.org is now; its \
         connections stay where they are\n"
    );
    assert_eq!(bench.resolve, [ip("10.4.4.21")]);
    assert_eq!(bench.probes.len(), 1);
    assert_eq!(bench.probes[0].check.target, address("10.4.4.21:3306"));
    bench.reach("10.4.4.21");
    let after = bench.number("db1");
    assert_ne!(before, after, "connections refer to the old one");
    assert_eq!(bench.desired.backends[&after].address, address("10.4.4.21:3306"));
    assert_eq!(bench.serving("db"), ["db1", "db2"], "it was up");
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db2"], "the first check of the new address decides");
}

#[test]
fn a_check_of_the_old_address_says_nothing_of_the_new_one() {
    let mut bench = Bench::resolved(&named());
    let old = loop {
        bench.tick();
        let mut probes = bench.probes.drain(..);
        if let Some(old) = probes.find(|probe| probe.check.target == address("10.4.4.11:3306")) {
            break old;
        }
    };
    bench.resolves(NAMED, &["10.4.4.21"]);
    bench.reach("10.4.4.21");
    bench.answer(&old, Reason::L4Connection);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(
        bench.probes[0].check.target,
        address("10.4.4.21:3306"),
        "asked as soon as it has ended"
    );
}

#[test]
fn a_backend_that_is_down_stays_down_when_it_moves() {
    let mut bench = Bench::resolved(&named());
    for _ in 0..3 {
        bench.fail("db1");
    }
    bench.resolves(NAMED, &["10.4.4.21"]);
    bench.reach("10.4.4.21");
    assert_eq!(bench.serving("db"), ["db2"]);
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn of_several_addresses_the_one_in_use_stays() {
    let mut bench = Bench::start(&named());
    bench.resolves(NAMED, &["10.4.4.11"]);
    bench.resolves(NAMED, &["10.4.4.10", "10.4.4.11"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.11:3306")), "it is still there");
    bench.resolves(NAMED, &["10.4.4.12", "10.4.4.13"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.13:3306")), "the lowest is db2's");
}

#[test]
fn of_several_addresses_the_two_hosts_of_a_pair_choose_the_same_in_whatever_order_they_come() {
    // Of the first three, one leads nowhere, one is the service itself, and one is of the other family.
    let unfit = ["127.0.0.1", "10.2.2.4", "fd00::11"];
    for fit in [["10.4.4.9", "10.4.4.10"], ["10.4.4.10", "10.4.4.9"]] {
        let mut bench = Bench::start(&named());
        bench.resolves(NAMED, &[unfit.as_slice(), fit.as_slice()].concat());
        assert_eq!(bench.address_of("db1"), Some(address("10.4.4.9:3306")));
    }
}

#[test]
fn addresses_in_another_order_are_no_reason_to_look_at_the_backends() {
    let mut bench = Bench::start(&named());
    let mut moves = |addresses: &[&str]| {
        let heard = Ok(addresses.iter().map(|text| ip(text)).collect());
        bench.core.hosts.heard(NAMED, heard, bench.now).moves
    };
    assert!(moves(&["10.4.4.11", "10.4.4.10"]));
    assert!(!moves(&["10.4.4.10", "10.4.4.11"]));
    assert!(moves(&["10.4.4.10"]));
}

#[test]
fn a_name_never_takes_the_address_that_the_file_gives_another_backend() {
    let mut bench = Bench::resolved(&named());
    let both = with_name(NAMED, "").replace("10.4.4.12", "10.4.4.11");
    bench.reload(&config(&both));
    assert_eq!(bench.address_of("db2"), Some(address("10.4.4.11:3306")));
    assert_eq!(bench.address_of("db1"), None);
    bench.resolves(NAMED, &["10.4.4.11", "10.4.4.10"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.10:3306")));
}

#[test]
fn names_without_an_address_of_the_services_family_leave_it_down() {
    let mut bench = Bench::start(&named());
    bench.resolves(NAMED, &["fd00::11"]);
    let status = bench.status_of("db1");
    assert_eq!((status.state, status.address), (State::Down, None));
    let why = "no address of db1.example.org can be used for it: fd00::11";
    assert_eq!(status.why.as_deref(), Some(why));
}

#[test]
fn a_check_at_an_address_of_its_own_does_not_move() {
    let checks = "check = { address = '10.9.9.9', port = 9200 }\nagent = { port = 9707 }";
    let mut bench = Bench::start(&config(&with_name(NAMED, checks)));
    assert!(bench.probes.is_empty() && bench.agents.is_empty(), "nobody is there yet");
    bench.resolves(NAMED, &["10.4.4.11"]);
    assert_eq!(bench.probes[0].check.target, address("10.9.9.9:9200"));
    assert_eq!(bench.agents[0].target, address("10.4.4.11:9707"));
    assert_eq!(bench.probes[0].subject.address, address("10.4.4.11:3306"));
}

#[test]
fn a_resolver_that_is_silent_is_told_of_and_its_answer_counts_nevertheless() {
    let mut bench = Bench::start(&named());
    while bench.said().is_empty() {
        bench.tick();
        bench.notices.retain(|notice| matches!(notice, Notice::Host { .. }));
    }
    assert!(bench.said().contains("no answer within 5 s"), "{}", bench.said());
    assert_eq!(bench.lookups, [NAMED], "nobody asks twice");
    bench.resolves(NAMED, &["10.4.4.11"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.11:3306")));
}

#[test]
fn a_reload_keeps_what_is_known_of_a_name_and_what_was_said_of_its_backend() {
    let mut bench = Bench::resolved(&named());
    bench.say("db/db1", Order::State(AdminState::Drain)).unwrap();
    let number = bench.number("db1");
    bench.lookups.clear();
    bench.reload(&config(&with_name(NAMED, "weight = 7")));
    assert!(bench.lookups.is_empty(), "it is not time yet");
    assert_eq!((bench.number("db1"), bench.status_of("db1").weight), (number, 7));
    assert_eq!(bench.status_of("db1").state, State::Drain);
    bench.resolves(NAMED, &["10.4.4.21"]);
    assert_eq!(bench.status_of("db1").state, State::Drain, "it is still the same backend");

    bench.reload(&config(&with_name("other.example.org", "")));
    assert_eq!(bench.lookups, ["other.example.org"]);
    let old = Some(address("10.4.4.21:3306"));
    assert_eq!(bench.address_of("db1"), old, "until the other name resolves");
    bench.resolves(NAMED, &["10.4.4.31"]);
    assert_eq!(bench.address_of("db1"), old, "nobody asks for that any more");
    bench.resolves("other.example.org", &["10.4.4.22"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.22:3306")));
}

#[test]
fn a_reload_from_an_address_to_a_name_of_it_interrupts_nothing() {
    let mut bench = Bench::start(&config(&with_name("10.4.4.11", "")));
    bench.reach_all();
    bench.pass("db1");
    for _ in 0..3 {
        bench.fail("db2");
    }
    let number = bench.number("db1");
    // Both at once, so that nobody else could serve.
    let both = with_name(NAMED, "").replace("10.4.4.12", "db2.example.org");
    bench.reload(&config(&both));
    assert!(!bench.applied, "nothing is new for the data plane");
    assert_eq!(bench.serving("db"), ["db1"], "the other one is as down as before");
    bench.resolves_not(NAMED);
    bench.pass_all_for(Duration::from_secs(1));
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.11:3306")));
    bench.resolves(NAMED, &["10.4.4.10", "10.4.4.11"]);
    assert_eq!(bench.said(), "Info: db1.example.org resolves again\n", "it does not move");
    assert_eq!(bench.number("db1"), number);
    assert!(bench.serving("db").contains(&"db1".to_owned()));
    assert!(bench.status_of("db1").check.is_some_and(|check| check.passed > 0), "its health stays");
}

#[test]
fn a_reload_to_a_name_that_is_elsewhere_has_the_backend_move() {
    let mut bench = Bench::start(&config(&with_name("10.4.4.11", "")));
    bench.reach_all();
    bench.reload(&named());
    bench.resolves(NAMED, &["10.4.4.21"]);
    assert!(
        bench.said().contains("backend db/db1 moves from 10.4.4.11 to 10.4.4.21"),
        "{}",
        bench.said()
    );
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.21:3306")));
}

#[test]
fn names_that_swap_their_backends_never_give_two_of_them_the_same_address() {
    let two = |one: &str, two: &str| {
        config(&with_name(one, "").replace("'10.4.4.12", &format!("'{two}")))
    };
    let mut bench = Bench::start(&two("a.example.org", "b.example.org"));
    bench.resolves("a.example.org", &["10.4.4.11"]);
    bench.resolves("b.example.org", &["10.4.4.12"]);
    // One name goes to the other backend, whose address is thereby taken, and a new one comes.
    bench.reload(&two("c.example.org", "a.example.org"));
    assert_eq!(bench.address_of("db2"), Some(address("10.4.4.11:3306")));
    assert_eq!(bench.address_of("db1"), None);
}

#[test]
fn a_service_that_changes_its_family_takes_no_address_of_the_other_one() {
    let six = |name: &str| {
        let text = with_name(name, "").replace(VIP, "'[fd00::4]:3306'");
        config(&text.replace("10.4.4.12", "[fd00::12]"))
    };
    let mut bench = Bench::start(&named());
    bench.resolves(NAMED, &["10.4.4.11", "fd00::11"]);
    assert_eq!(bench.address_of("db1"), Some(address("10.4.4.11:3306")));
    bench.reload(&six(NAMED));
    assert_eq!(bench.address_of("db1"), Some(address("[fd00::11]:3306")), "by the same answer");

    let mut bench = Bench::start(&named());
    bench.resolves(NAMED, &["10.4.4.11"]);
    bench.reload(&six(NAMED));
    assert_eq!(bench.address_of("db1"), None, "the name has none of that family");
    bench.reload(&six("other.example.org"));
    assert_eq!(bench.address_of("db1"), None);
}

#[test]
fn an_address_is_forgotten_with_the_last_name_of_the_configuration() {
    let mut bench = Bench::resolved(&named());
    bench.reload(&config(&service("db", VIP, "", &[("db2", 12, "")])));
    bench.reload(&named());
    assert_eq!(bench.address_of("db1"), None, "it may be anybody's by now");
}

#[test]
fn a_daemon_that_comes_next_knows_its_backend_by_the_address_that_its_name_has() {
    let db = (0, address("10.4.4.11:3306"));
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(3, db), (5, (0, address("10.4.4.12:3306")))].into(),
        serving: [3, 5].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &named());
    bench.reach_all();
    assert!(!bench.told, "its backends serve on until their names are known");
    bench.resolves(NAMED, &["10.4.4.11"]);
    bench.reach_all();
    assert_eq!(bench.number("db1"), 3);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn a_name_that_resolves_only_when_asked_again_finds_its_backend_with_the_number_it_had() {
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(3, (0, address("10.4.4.11:3306")))].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &named());
    let start = bench.now;
    bench.resolves_not(NAMED);
    assert!(!bench.told, "one failure is not the end");
    bench.reach_all();
    while !bench.told {
        bench.tick();
    }
    assert_eq!(bench.now, start + SETTLE, "all others wait no longer than this");
    while bench.lookups.len() < 2 {
        bench.tick();
    }
    bench.resolves(NAMED, &["10.4.4.11"]);
    bench.reach("10.4.4.11");
    assert_eq!(bench.number("db1"), 3);
    assert_eq!(bench.serving("db"), ["db2"], "it had no connections, so its check comes first");
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn a_name_that_never_resolves_keeps_no_number_for_longer_than_five_seconds() {
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(3, (0, address("10.4.4.11:3306")))].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &named());
    let start = bench.now;
    while bench.now < start + Duration::from_secs(5) {
        assert!(!bench.core.hosts.are_settled());
        for _ in bench.lookups.split_off(0) {
            bench.resolves_not(NAMED);
        }
        bench.tick();
    }
    assert!(bench.core.hosts.are_settled());
    bench.resolves(NAMED, &["10.4.4.11"]);
    assert_ne!(bench.number("db1"), 3, "its connections are an unknown backend's by now");
}
