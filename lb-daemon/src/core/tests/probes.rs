//! When backends are probed, and what becomes of the answers.

use super::*;

fn four() -> Arc<Config> {
    let backends = [("db1", 11, ""), ("db2", 12, ""), ("db3", 13, ""), ("db4", 14, "")];
    config(&service("db", VIP, "", &backends))
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let mut bench = Bench::start(&four());
    let start = bench.now;
    let mut starts = Vec::new();
    while starts.len() < 4 {
        for request in std::mem::take(&mut bench.probes) {
            starts.push((bench.backend_of(&request), bench.now - start));
        }
        bench.tick();
    }
    let quarter = Duration::from_millis(2500);
    let expected = ["db1", "db2", "db3", "db4"].into_iter().zip(0_u32..);
    let expected: Vec<_> = expected.map(|(name, i)| (name.to_owned(), quarter * i)).collect();
    assert_eq!(starts, expected);
}

/// Checks stay spread although this host is busy at times, and although the configuration is
/// reloaded with twice as many of them.
#[test]
fn checks_never_gather_into_bursts() {
    const INTER: Duration = Duration::from_secs(10);
    let hundred = |count: usize| {
        let names: Vec<String> = (1..=count).map(|i| format!("db{i}")).collect();
        let backends: Vec<(&str, u8, &str)> =
            names.iter().zip(1..).map(|(name, host)| (name.as_str(), host, "")).collect();
        config(&service("db", VIP, "", &backends))
    };
    let mut bench = Bench::start(&hundred(50));
    let start = bench.now;
    let mut starts = Vec::new();
    let mut play = |bench: &mut Bench, until: Duration| {
        while bench.now < start + until {
            for request in std::mem::take(&mut bench.probes) {
                starts.push(bench.now - start);
                bench.answer(&request, Reason::L4Ok);
            }
            bench.tick();
        }
        std::mem::take(&mut starts)
    };
    play(&mut bench, INTER * 2);
    // Nothing moves for most of an interval: then much is due at once, but only then.
    bench.wait(INTER * 4 / 5);
    bench.event(Event::Tick);
    play(&mut bench, INTER * 4);
    let starts_of_50 = play(&mut bench, INTER * 5);
    assert_eq!(starts_of_50.len(), 50);
    assert!(most_within(INTER / 10, &starts_of_50) <= 6, "{starts_of_50:?}");

    bench.reload(&hundred(100));
    play(&mut bench, INTER * 6);
    let starts_of_100 = play(&mut bench, INTER * 7);
    assert_eq!(starts_of_100.len(), 100);
    // The new ones are spread over half of the interval: twice as many as if all were even.
    assert!(most_within(INTER / 10, &starts_of_100) <= 16, "{starts_of_100:?}");
}

/// The most of these times that lie within a window of this length.
fn most_within(window: Duration, times: &[Duration]) -> usize {
    let within = |first: Duration| {
        times.iter().filter(|time| (first..first + window).contains(*time)).count()
    };
    times.iter().map(|first| within(*first)).max().unwrap_or_default()
}

#[test]
fn a_probe_asks_what_the_check_says() {
    let keys = "check = { port = 9200, timeout = '3s', tcp_check = [{ expect_string = 'ok' }] }";
    let bench = Bench::start(&config(&service("db", VIP, "", &[("db1", 11, keys)])));
    let [probe] = bench.probes.as_slice() else { panic!("one probe, at once") };
    assert_eq!(probe.check.target, address("10.4.4.11:9200"));
    assert_eq!(probe.check.timeout, Duration::from_secs(3));
    assert!(matches!(&probe.check.kind, config::CheckKind::Tcp(steps) if steps.len() == 1));
}

#[test]
fn a_backend_has_never_two_probes_under_way() {
    let mut bench = Bench::start(&config(&service("db", VIP, "", &[("db1", 11, "")])));
    let first = bench.probes.pop().unwrap();
    for _ in 0..100 {
        bench.wait(Duration::from_secs(10));
        bench.event(Event::Tick);
        assert!(bench.probes.is_empty());
    }
    bench.answer(&first, Reason::L4Ok);
    let [second] = bench.probes.as_slice() else { panic!("the next is overdue") };
    assert_ne!(second.id, first.id);
}

#[test]
fn a_failing_backend_gets_no_more_connections_until_it_passed() {
    let mut bench = Bench::reachable(&two());
    bench.pass("db1");
    bench.pass("db2");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    bench.fail("db1");
    bench.fail("db1");
    assert_eq!(bench.serving("db"), ["db1", "db2"], "two of three failures");
    bench.fail("db1");
    assert!(bench.applied);
    assert_eq!(bench.serving("db"), ["db2"]);
    assert_eq!(
        bench.said(),
        "Warn: backend db/db1 is DOWN: L4CON detail in 2 ms; 1 active and 0 backup left\n"
    );
    let number = bench.number("db1");
    assert!(bench.desired.backends.contains_key(&number), "its connections live on");

    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db2"], "one of two passes");
    bench.pass("db1");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    assert_eq!(
        bench.said(),
        "Info: backend db/db1 is UP: L4OK detail in 2 ms; 2 active and 0 backup left\n"
    );
    assert_eq!(bench.number("db1"), number);
}

#[test]
fn the_last_backend_takes_its_service_with_it_and_the_first_brings_it_back() {
    let mut bench = Bench::reachable(&two());
    bench.fail("db1");
    bench.fail("db2");
    assert_eq!(bench.serving("db"), [""; 0]);
    assert_eq!(
        bench.said(),
        "Warn: backend db/db2 is DOWN: L4CON detail in 2 ms; 0 active and 0 backup left\n\
         Error: service db is DOWN: no backend is eligible, new connections are refused; \
         `tandem status` says why\n"
    );
    assert_eq!(bench.status().services[0].state, State::Down);
    // Nobody answers for the other one meanwhile.
    while bench.serving("db").is_empty() {
        bench.tick();
        for request in std::mem::take(&mut bench.probes) {
            let passes = bench.backend_of(&request) == "db2";
            bench.answer(&request, if passes { Reason::L4Ok } else { Reason::L4Timeout });
        }
    }
    assert_eq!(bench.serving("db"), ["db2"]);
    assert!(bench.said().ends_with("Info: service db is UP\n"), "{}", bench.said());
    assert_eq!(bench.status().services[0].state, State::Up);
}

#[test]
fn an_answer_to_a_probe_of_nobody_changes_nothing() {
    let mut bench = Bench::reachable(&two());
    let outcome =
        Outcome { reason: Reason::L4Timeout, detail: String::new(), took: Duration::ZERO };
    bench.event(Event::Probed { probe: ProbeId(1_000_000), outcome });
    assert!(!bench.applied && bench.notices.is_empty());
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn a_backend_without_check_is_taken_for_up_and_never_probed() {
    let keys = "check = { enabled = false }";
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &[("db1", 11, keys)])));
    assert_eq!(bench.serving("db"), ["db1"]);
    assert_eq!(bench.core.next_deadline(), None, "and nothing else is due");
    bench.wait(Duration::from_secs(100));
    bench.event(Event::Tick);
    assert!(bench.probes.is_empty());
    assert_eq!(bench.status_of("db1").state, State::Unchecked);
}
