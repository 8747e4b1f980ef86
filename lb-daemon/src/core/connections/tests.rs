//! Filters, names and counts of connections.

use lb_common::flow::{CLIENT_FIN, ESTABLISHED, RESET, SERVER_FIN, SYN_ACK};

use super::*;

const OPEN: u8 = SYN_ACK | ESTABLISHED;

fn flow(client: &str, service: u16, backend: u16, state: u8) -> Flow {
    let address = |text: &str| text.parse().unwrap();
    Flow {
        client: address(client),
        bind: address("10.2.2.4:3306"),
        source: address("10.3.3.241:1024"),
        server: address("10.4.4.2:3306"),
        service,
        backend,
        state,
        client_idle: Duration::from_millis(1_500),
        server_idle: Duration::from_millis(20),
        age: Duration::from_secs(7),
        adopted: false,
    }
}

fn names() -> ConnectionNames {
    let backend = |service: &str, backend: &str| (service.to_owned(), backend.to_owned());
    ConnectionNames {
        services: [(1, "mysql".to_owned()), (2, "web".to_owned())].into(),
        backends: [
            (10, backend("mysql", "s1")),
            (11, backend("mysql", "s2")),
            (20, backend("web", "s1")),
        ]
        .into(),
    }
}

/// Numbers of the backends whose connections are selected, of one connection each.
fn selected(filter: ConnectionFilter) -> Vec<u16> {
    let flows = [
        flow("10.1.0.7:4000", 1, 10, OPEN),
        flow("10.1.1.7:4000", 1, 11, OPEN | CLIENT_FIN),
        flow("[fd00::7]:4000", 2, 20, 0),
        flow("192.0.2.1:4000", 9, 99, OPEN | RESET),
    ];
    let selection = names().select(filter).unwrap();
    flows.iter().filter(|flow| selection.has(flow)).map(|flow| flow.backend).collect()
}

#[test]
fn states_are_those_of_a_connections_life() {
    let both = CLIENT_FIN | SERVER_FIN;
    let states = [0, SYN_ACK, OPEN, OPEN | SERVER_FIN, OPEN | both, OPEN | RESET, RESET];
    let names = states.map(|state| ConnectionState::of(state).name());
    let closed = "closed";
    let expected = ["opening", "opening", "established", "closing", closed, closed, closed];
    assert_eq!(names, expected);
}

#[test]
fn a_filter_selects_what_all_of_it_holds_for() {
    let all = ConnectionFilter::default();
    let service = |name: &str| ConnectionFilter { service: Some(name.to_owned()), ..all.clone() };
    let backend = |name: &str| ConnectionFilter { backend: Some(name.to_owned()), ..all.clone() };
    let client =
        |text: &str| ConnectionFilter { client: Some(text.parse().unwrap()), ..all.clone() };
    let state = |state| ConnectionFilter { state: Some(state), ..all.clone() };
    assert_eq!(selected(all.clone()), [10, 11, 20, 99]);
    assert_eq!(selected(service("mysql")), [10, 11]);
    assert_eq!(selected(backend("s1")), [10, 20], "of every service");
    assert_eq!(selected(backend("web/s1")), [20]);
    assert_eq!(selected(client("10.1.0.7")), [10]);
    assert_eq!(selected(client("10.1.0.0/23")), [10, 11]);
    assert_eq!(selected(client("fd00::/8")), [20]);
    assert_eq!(selected(state(ConnectionState::Closing)), [11]);
    assert_eq!(selected(state(ConnectionState::Opening)), [20]);
    let both = ConnectionFilter { client: client("10.0.0.0/8").client, ..backend("s1") };
    assert_eq!(selected(both), [10]);
}

#[test]
fn a_name_that_nobody_has_is_answered_by_those_that_there_are() {
    let filter = |service: Option<&str>, backend: Option<&str>| ConnectionFilter {
        service: service.map(str::to_owned),
        backend: backend.map(str::to_owned),
        ..ConnectionFilter::default()
    };
    let error = |filter| names().select(filter).unwrap_err().to_string();
    assert_eq!(
        error(filter(Some("mail"), None)),
        "there is no service mail; there are: mysql, web"
    );
    assert_eq!(
        error(filter(None, Some("web/s2"))),
        "there is no backend web/s2; there are: mysql/s1, mysql/s2, web/s1"
    );
    let none = ConnectionNames::default().select(filter(Some("web"), None)).unwrap_err();
    assert_eq!(none.to_string(), "there is no service web, as there are none at all");
}

#[test]
fn prefixes_have_all_lengths_and_only_their_own_family() {
    let has =
        |prefix: &str, ip: &str| prefix.parse::<Prefix>().unwrap().contains(ip.parse().unwrap());
    assert!(has("0.0.0.0/0", "255.1.2.3") && has("::/0", "fd00::1"));
    assert!(!has("0.0.0.0/0", "::") && !has("::/0", "0.0.0.0"));
    assert!(has("10.0.0.0/9", "10.127.0.1") && !has("10.0.0.0/9", "10.128.0.1"));
    assert!(has("10.1.2.3/31", "10.1.2.2") && !has("10.1.2.3", "10.1.2.2"));
    assert!(has("fd00::/127", "fd00::1") && !has("fd00::/127", "fd00::2"));
    for text in ["", "10.1", "10.1.2.3/33", "fd00::/129", "10.1.2.3/", "10.1.2.3/-1", "web"] {
        assert_eq!(text.parse::<Prefix>(), Err(NoPrefix), "{text}");
    }
}

#[test]
fn what_is_not_in_force_any_more_has_no_name() {
    let named = names().name(&flow("10.1.0.7:4000", 1, 10, OPEN));
    assert_eq!((named.service.as_deref(), named.backend.as_deref()), (Some("mysql"), Some("s1")));
    assert_eq!((named.client_idle_ms, named.server_idle_ms, named.age_ms), (1_500, 20, 7_000));
    let unnamed = names().name(&flow("10.1.0.7:4000", 1, 99, OPEN));
    assert_eq!((unnamed.service.as_deref(), unnamed.backend), (Some("mysql"), None));
}

#[test]
fn counts_are_by_backend_and_state() {
    let mut counts = ConnectionCounts::default();
    for state in [OPEN, OPEN, OPEN | CLIENT_FIN, 0] {
        counts.add(&flow("10.1.0.7:4000", 1, 11, state));
    }
    counts.add(&Flow { adopted: true, ..flow("10.1.0.7:4000", 1, 10, OPEN) });
    counts.add(&flow("10.1.0.7:4000", 1, 77, OPEN | RESET));
    let counts = counts.finish(&names());
    let count = |backend: Option<&str>| ConnectionCount {
        service: Some("mysql".to_owned()),
        backend: backend.map(str::to_owned),
        ..ConnectionCount::default()
    };
    assert_eq!(
        counts,
        [
            ConnectionCount { closed: 1, ..count(None) },
            ConnectionCount { established: 1, adopted: 1, ..count(Some("s1")) },
            ConnectionCount { opening: 1, established: 2, closing: 1, ..count(Some("s2")) },
        ]
    );
    assert_eq!(counts[2].total(), 4);
}
