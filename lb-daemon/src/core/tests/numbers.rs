//! Which numbers services and backends have in the data plane, and for how long.

use super::*;

fn of(backends: &[(&str, u8, &str)]) -> Arc<Config> {
    config(&service("db", VIP, "", backends))
}

#[test]
fn a_removed_backends_number_is_given_away_only_after_two_walks_without_it() {
    let mut bench = Bench::reachable(&two());
    let number = bench.number("db2");
    bench.reload(&of(&[("db1", 11, "")]));
    assert!(!bench.desired.backends.contains_key(&number));

    // As many newcomers as there are numbers: the last must wait.
    let others: Vec<String> =
        (0..MAX_BACKENDS - 1).map(|n| format!("10.5.{}.{}:80", n / 250, n % 250 + 1)).collect();
    let mut crowd = service("db", VIP, "", &[("db1", 11, "")]);
    for (n, address) in others.iter().enumerate() {
        let _ = writeln!(crowd, "[[service.backend]]\nname = 'n{n}'\naddress = '{address}'");
    }
    bench.reload(&config(&crowd));
    let waiting = format!("n{}", others.len() - 1);
    let owners = |bench: &Bench| bench.core.backends().filter(|n| *n == number).count();
    assert_eq!(owners(&bench), 0);
    bench.reach(others.last().unwrap().split(':').next().unwrap());
    let why = bench.status_of(&waiting).why.unwrap();
    assert_eq!(why, "the data plane has no free number for it until old connections end");

    bench.walk(&[]);
    bench.walk(&[number]);
    bench.walk(&[]);
    assert_eq!(owners(&bench), 0, "its connections were just seen");
    bench.walk(&[]);
    assert_eq!(bench.number(&waiting), number);
}

#[test]
fn what_an_earlier_daemon_left_keeps_its_numbers() {
    let inventory = Inventory {
        services: [(9, vec![address("10.2.2.9:80"), address("10.2.2.4:3306")])].into(),
        backends: [
            (70, (9, address("10.4.4.12:3306"))),
            (71, (9, address("10.4.4.99:3306"))),
            (72, (8, address("10.4.4.11:3306"))),
        ]
        .into(),
        serving: [70, 71, 72].into(),
        ..Inventory::default()
    };
    let binds = "['10.2.2.4:3306', '10.2.2.9:80']";
    let config = config(&service("db", binds, "", &[("db1", 11, ""), ("db2", 12, "")]));
    let mut bench = Bench::restart(&inventory, &config);
    bench.reach_all();
    assert_eq!(bench.desired.services.keys().copied().collect::<Vec<_>>(), [9]);
    assert_eq!(bench.number("db2"), 70);
    assert!(![70, 71, 72].contains(&bench.number("db1")), "that was another service's");
}

#[test]
fn what_an_earlier_daemon_left_serves_on_until_the_ways_are_known_again() {
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, (0, address("10.4.4.11:3306"))), (1, (0, address("10.4.4.12:3306")))].into(),
        serving: [0, 1].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &two());
    assert!(!bench.applied);
    bench.reach("10.4.4.11");
    assert!(!bench.applied, "the other one may be coming too");
    bench.reach("10.4.4.12");
    assert!(bench.applied);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);

    // One that never answers is not waited for longer than a second.
    let mut bench = Bench::restart(&inventory, &two());
    bench.reach("10.4.4.11");
    bench.now += SETTLE;
    assert!(bench.core.next_deadline().unwrap() <= bench.now);
    bench.event(Event::Tick);
    assert!(bench.applied);
    assert_eq!(bench.serving("db"), ["db1"]);
    bench.event(Event::Tick);
    assert!(!bench.applied);
}

#[test]
fn whom_an_earlier_daemon_kept_connections_from_is_checked_first() {
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, (0, address("10.4.4.11:3306"))), (1, (0, address("10.4.4.12:3306")))].into(),
        serving: [0].into(),
        ..Inventory::default()
    };
    let mut bench = Bench::restart(&inventory, &two());
    bench.reach_all();
    assert_eq!(bench.serving("db"), ["db1"]);
    let probe = bench.probes.iter().find(|p| p.check.target == address("10.4.4.12:3306"));
    let probe = probe.expect("it is checked at once").id;
    let outcome = Outcome { reason: Reason::L4Ok, detail: String::new(), took: Duration::ZERO };
    bench.event(Event::Probed { probe, outcome });
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn what_an_earlier_daemon_served_ends_if_the_file_says_so() {
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        ..Inventory::default()
    };
    let bench = Bench::restart(&inventory, &config(""));
    assert!(bench.applied);
    assert_eq!(bench.desired, Desired::default());
}
