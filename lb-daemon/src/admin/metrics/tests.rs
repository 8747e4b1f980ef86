//! The exposition read back by a small parser of its own, and scraped over HTTP.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::{
    admin::sample,
    core::{
        By, Order, OverrideStatus, QueueStatus, RuntimeMaxconn, Status, SyncStatus,
        sync::{Stage, View},
    },
};

/// An exposition: types by family, values by series.
#[derive(Debug, Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    series: BTreeMap<String, f64>,
}

/// Reads an exposition, strictly: each family has its HELP and TYPE before its series, which stand
/// together, and no series is there twice.
fn parse(text: &str) -> Exposition {
    let mut exposition = Exposition::default();
    let mut helps = BTreeSet::new();
    let mut family = String::new();
    let body = text.strip_suffix("# EOF\n").expect("no end mark");
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.len() > 10 && help.ends_with('.'), "{line}");
            assert!(helps.insert(name.to_owned()), "a second HELP: {line}");
            name.clone_into(&mut family);
        } else if let Some(r#type) = line.strip_prefix("# TYPE ") {
            let (name, r#type) = r#type.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            let known = exposition.types.insert(name.into(), r#type.into());
            assert_eq!(known, None, "a second TYPE: {line}");
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            let (name, unit) = unit.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = match exposition.types[&family].as_str() {
                "counter" => "_total",
                "info" => "_info",
                "gauge" => "",
                other => panic!("a metric of type {other}"),
            };
            assert_eq!(name, format!("{family}{suffix}"), "not with its family: {line}");
            check_name(name);
            check_labels(labels.strip_suffix('}').expect(line));
            let known = exposition.series.insert(series.into(), value.parse().unwrap());
            assert_eq!(known, None, "a second series: {line}");
        }
    }
    let typed: BTreeSet<String> = exposition.types.keys().cloned().collect();
    assert_eq!(helps, typed, "HELP without TYPE");
    exposition
}

fn check_name(name: &str) {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(name.starts_with("tandem_") && name.chars().all(fits), "{name}");
}

/// `a="b",c="d"`, the values escaped, no label twice.
fn check_labels(mut labels: &str) {
    let mut seen = BTreeSet::new();
    while !labels.is_empty() {
        let (name, rest) = labels.split_once("=\"").expect(labels);
        assert!(seen.insert(name), "label twice: {name}");
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        labels = &rest[end.expect("a label without end") + 1..];
        if !labels.is_empty() {
            labels = labels.strip_prefix(',').expect("no comma between labels");
            assert!(!labels.is_empty(), "a comma at the end");
        }
    }
}

/// Much of what can go wrong, and a limit that is reached.
fn limited() -> Status {
    let mut status = sample::troubled();
    let service = &mut status.services[0];
    service.active = 820;
    service.limit = Some(1000);
    service.queue = Some(QueueStatus {
        waiting: 5,
        most: 9,
        oldest_ms: 70,
        queued: 100,
        timed_out: 3,
        refused: 2,
    });
    let backend = &mut service.backends[0];
    (backend.configured_limit, backend.limit, backend.queue) = (Some(400), Some(300), 4);
    backend.overrides.push(OverrideStatus {
        what: Order::Maxconn(RuntimeMaxconn::Absolute(300)).to_string(),
        by: By::Agent.name().to_owned(),
        since_seconds: 1,
    });
    status
}

#[test]
fn the_exposition_is_well_formed_and_complete() {
    let exposition = parse(&encode(limited()));
    let expected = r#"
        tandem_build_info{version="0.1.0"} 1
        tandem_uptime_seconds 273600
        tandem_config_info{path="/etc/tandem/tandem.toml"} 1
        tandem_config_generation 3
        tandem_config_age_seconds 7200
        tandem_config_last_reload_successful 0
        tandem_overrides_kept 0
        tandem_xdp_attached{interface="eth1",mode="generic"} 1
        tandem_packets_total{verdict="forward_client",action="transmit"} 81234567
        tandem_packets_total{verdict="pass_not_ip",action="pass"} 99
        tandem_packets_total{verdict="drop_table_full",action="drop"} 17
        tandem_packets_total{verdict="drop_no_port",action="drop"} 0
        tandem_table_connections{family="ipv4"} 961000
        tandem_table_capacity{family="ipv6"} 1000000
        tandem_table_half_open{family="ipv4"} 12
        tandem_table_half_open_capacity{family="ipv4"} 65536
        tandem_table_evicted_total{family="ipv4"} 1234
        tandem_group_role{group="gw",role="BACKUP"} 1
        tandem_group_role{group="web",role="FAULT"} 1
        tandem_group_role_age_seconds{group="gw"} 17
        tandem_group_priority{group="gw"} 100
        tandem_group_effective_priority{group="gw"} 100
        tandem_group_faults{group="gw"} 0
        tandem_group_faults{group="web"} 1
        tandem_group_lease_seconds{group="gw"} 0
        tandem_group_tracked{group="gw",kind="script",name="chk_haproxy"} 0
        tandem_group_tracked{group="gw",kind="interface",name="eth1"} 1
        tandem_group_transitions_total{group="gw",role="BACKUP"} 2
        tandem_group_address_claims_total{group="gw"} 0
        tandem_group_addresses_put_back_total{group="gw"} 0
        tandem_group_adverts_sent_total{group="gw"} 273000
        tandem_group_adverts_received_total{group="gw"} 4
        tandem_group_adverts_discarded_total{group="gw",reason="hop_limit"} 3
        tandem_group_adverts_discarded_total{group="gw",reason="password"} 0
        tandem_service_up{service="mysql"} 0
        tandem_service_up{service="web"} 1
        tandem_service_active_connections{service="mysql"} 820
        tandem_service_limit{service="mysql"} 1000
        tandem_service_queue{service="mysql"} 5
        tandem_service_queue_most{service="mysql"} 9
        tandem_service_queued_total{service="mysql"} 100
        tandem_service_queue_refusals_total{service="mysql",reason="timeout"} 3
        tandem_service_queue_refusals_total{service="mysql",reason="full"} 2
        tandem_service_connections_total{service="mysql"} 877149
        tandem_service_connection_errors_total{service="mysql"} 12
        tandem_service_packets_total{service="mysql",direction="in"} 74529000
        tandem_service_packets_total{service="mysql",direction="out"} 87633000
        tandem_service_bytes_total{service="mysql",direction="in"} 7452900000
        tandem_service_bytes_total{service="mysql",direction="out"} 100737000000
        tandem_backend_up{service="mysql",backend="db1"} 0
        tandem_backend_up{service="mysql",backend="db2"} 1
        tandem_backend_state_age_seconds{service="mysql",backend="db1"} 725
        tandem_backend_eligible{service="mysql",backend="db3"} 0
        tandem_backend_eligible{service="web",backend="web1"} 1
        tandem_backend_weight{service="mysql",backend="db2"} 50
        tandem_backend_configured_weight{service="mysql",backend="db2"} 100
        tandem_backend_override{service="mysql",backend="db1",override="maxconn",by="agent"} 1
        tandem_backend_override{service="mysql",backend="db2",override="drain",by="operator"} 1
        tandem_backend_override{service="mysql",backend="db2",override="weight",by="operator"} 1
        tandem_backend_agent_up{service="web",backend="web1"} 1
        tandem_backend_host_resolved{service="web",backend="web2"} 0
        tandem_backend_active_connections{service="mysql",backend="db1"} 421
        tandem_backend_limit{service="mysql",backend="db1"} 300
        tandem_backend_configured_limit{service="mysql",backend="db1"} 400
        tandem_backend_queue{service="mysql",backend="db1"} 4
        tandem_backend_connections_total{service="mysql",backend="db1"} 450891
        tandem_backend_connection_errors_total{service="mysql",backend="db1"} 12
        tandem_backend_observed_alarms_total{service="mysql",backend="db1"} 1
        tandem_backend_packets_total{service="mysql",backend="db1",direction="in"} 38311000
        tandem_backend_packets_total{service="mysql",backend="db1",direction="out"} 45047000
        tandem_backend_bytes_total{service="mysql",backend="db1",direction="in"} 3831100000
        tandem_backend_bytes_total{service="mysql",backend="db1",direction="out"} 51783000000
        tandem_backend_check_result{service="mysql",backend="db1",code="L4CON"} 1
        tandem_backend_check_passed{service="mysql",backend="db1"} 0
        tandem_backend_check_duration_seconds{service="mysql",backend="db2"} 0.002
        tandem_backend_check_age_seconds{service="mysql",backend="db2"} 1.25
        tandem_backend_checks_total{service="mysql",backend="db1",result="passed"} 137000
        tandem_backend_checks_total{service="mysql",backend="db1",result="failed"} 363
        tandem_backend_downs_total{service="mysql",backend="db1"} 1
    "#;
    let mut families = BTreeSet::new();
    for line in expected.trim().lines() {
        let (series, value) = line.trim().rsplit_once(' ').unwrap();
        let found = exposition.series.get(series).copied();
        assert_eq!(found, Some(value.parse().unwrap()), "{series}");
        families.insert(series.split('{').next().unwrap());
    }
    assert_eq!(families.len(), exposition.types.len(), "a family is not in the list above");
}

#[test]
fn a_lease_in_force_and_what_is_not_known_yet_show_in_the_metrics() {
    let mut status = sample::healthy();
    status.groups[0].tracked[2].condition = crate::core::Condition::Unknown;
    let exposition = parse(&encode(status));
    let lease = exposition.series[r#"tandem_group_lease_seconds{group="gw"}"#];
    assert!((lease - 2.874).abs() < 1e-9, "{lease}");
    let unknown = r#"tandem_group_tracked{group="gw",kind="script",name="chk_haproxy"}"#;
    assert!(!exposition.series.contains_key(unknown), "nobody knows how it is");
}

#[test]
fn the_peer_shows_in_the_metrics_if_there_is_one() {
    let mut status = sample::healthy();
    assert!(!encode(status.clone()).contains("tandem_sync"));
    let mut conversation = View { state: Stage::InSync, ready: true, ..View::default() };
    conversation.lag.last_seconds = Some(0.25);
    conversation.queue.changes = 3;
    conversation.totals.changes_sent = 5;
    conversation.totals.mismatches = 4;
    let at = |text: &str| text.parse().expect("an address");
    let (listen, peer) = (at("10.4.4.1:5405"), at("10.4.4.2:5405"));
    status.sync = Some(SyncStatus { listen, peer, refused: 7, conversation });
    let text = encode(status);
    parse(&text);
    for line in [
        "tandem_sync_connected 1",
        "tandem_sync_in_sync 1",
        "tandem_sync_ready 1",
        "tandem_sync_lag_seconds{of=\"last\"} 0.25",
        "tandem_sync_queue 3",
        "tandem_sync_changes_total{direction=\"sent\"} 5",
        "tandem_sync_mismatches_total 4",
        "tandem_sync_refused_total 7",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_daemon_without_services_is_well_formed_too() {
    let exposition = parse(&encode(Status::default()));
    assert_eq!(
        exposition.series["tandem_config_last_reload_successful"].to_bits(),
        1_f64.to_bits()
    );
}

#[test]
fn odd_names_are_escaped() {
    let mut status = sample::healthy();
    status.config.path = "/etc/\"odd\"\\\nname".into();
    let exposition = parse(&encode(status));
    let series = r#"tandem_config_info{path="/etc/\"odd\"\\\nname"}"#;
    assert!(exposition.series.contains_key(series), "{exposition:?}");
}

/// An endpoint on a free port of the loopback, its loop answering as given.
fn serving(answer: Option<protocol::Response>) -> (SocketAddr, JoinHandle<Infallible>) {
    let metrics = Metrics::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (requests, mut inbox) = mpsc::channel::<Handle>(4);
    tokio::spawn(async move {
        while let (Some(handle), Some(answer)) = (inbox.recv().await, answer.clone()) {
            handle.reply.send(answer).unwrap();
        }
    });
    (metrics.address(), tokio::spawn(metrics.serve(requests)))
}

/// Head and body of the answer to one request.
async fn http(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: lb1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn a_scrape_over_http_brings_the_metrics() {
    let status = protocol::Response::Status(Box::new(sample::healthy()));
    let (address, _server) = serving(Some(status));
    for _ in 0..2 {
        let (head, body) = http(address, "GET", "/metrics").await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        assert_eq!(body, encode(sample::healthy()));
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let (address, _server) = serving(None);
    let (head, body) = http(address, "GET", "/").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(body.contains("href=\"/metrics\""), "{body}");
    for (method, path, expected) in [
        ("GET", "/status", "404"),
        ("GET", "/metrics/x", "404"),
        ("POST", "/metrics", "405"),
        ("DELETE", "/", "405"),
    ] {
        let (head, _) = http(address, method, path).await;
        assert!(head.starts_with(&format!("http/1.1 {expected} ")), "{method} {path}: {head}");
    }
}

#[tokio::test]
async fn a_daemon_that_stops_is_not_mistaken_for_one_without_traffic() {
    let (address, _server) = serving(None);
    let (head, body) = http(address, "GET", "/metrics").await;
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert_eq!(body, "the daemon is just stopping\n");
}

#[tokio::test]
async fn a_scraper_that_says_nothing_blocks_no_other() {
    let status = protocol::Response::Status(Box::new(sample::healthy()));
    let (address, _server) = serving(Some(status));
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS - 1 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let (head, _) = http(address, "GET", "/metrics").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named_with_the_way_out() {
    let first = Metrics::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = Metrics::bind(first.address()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot serve metrics on {}: the port is already taken by another program: set [admin] \
             metrics to a free one",
            first.address()
        )
    );

    // TEST-NET-1, which no host has.
    let error = Metrics::bind(([192, 0, 2, 1], 9101).into()).unwrap_err();
    assert!(matches!(error, MetricsError::NotOurs(address) if address.port() == 9101));
}
