//! What holds for every configuration: it survives being written out, and no text, however
//! broken, does more than be refused.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use lb_daemon::config::{
    self, Admin, AgentCheck, Backend, Balance, Check, CheckKind, Config, ExternalCheck, Global,
    HttpCheck, HttpExpect, HttpSubject, HttpVersion, Limits, Log, LogFormat, MysqlCheck,
    MysqlExpect, MysqlLogin, MysqlQuestion, Observe, OnError, OnMarkedDown, Password, Pattern,
    Peer, Role, Service, Severity, StatusRange, TcpAction, TcpConnect, TcpExpect, TcpStep,
    Timeouts, Tls, XdpMode,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use regex::bytes::Regex;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

#[path = "config_properties/group.rs"]
mod group;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_configuration_reads_back_as_it_was(config in config()) {
        let text = config.to_toml();
        let parsed = config::parse(&text, "effective").map_err(|error| {
            TestCaseError::fail(format!("{error}\n\n{text}"))
        })?;
        prop_assert_eq!(parsed.config, config);
    }

    #[test]
    fn any_text_is_answered(text in ".*") {
        answer(&text)?;
    }

    #[test]
    fn any_toml_like_text_is_answered(words in vec(select(WORDS), 0..60)) {
        answer(&words.concat())?;
    }

    #[test]
    fn any_damage_to_a_good_file_is_answered(
        file in select(GOOD),
        damages in vec((any::<prop::sample::Index>(), 0..40_usize, select(WORDS)), 1..6),
    ) {
        let mut text: Vec<char> = file.chars().collect();
        for (at, length, word) in damages {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, word.chars());
        }
        answer(&text.into_iter().collect::<String>())?;
    }

    /// A file cut off anywhere, as by a full disk.
    #[test]
    fn a_file_that_ends_early_is_answered(file in select(GOOD), at: prop::sample::Index) {
        let text: Vec<char> = file.chars().collect();
        answer(&text[..at.index(text.len() + 1)].iter().collect::<String>())?;
    }
}

/// Whatever is said about `text` must have its place in it, and be printable.
fn answer(text: &str) -> Result<(), TestCaseError> {
    let found = match config::parse(text, "any.toml") {
        Ok(parsed) => {
            let again = config::parse(&parsed.config.to_toml(), "effective");
            prop_assert_eq!(again.map(|again| again.config), Ok(parsed.config));
            prop_assert!(parsed.warnings.iter().all(|w| w.severity == Severity::Warning));
            parsed.warnings
        }
        Err(diagnostics) => {
            let printed = diagnostics.to_string();
            prop_assert!(!printed.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            diagnostics.iter().cloned().collect()
        }
    };
    for diagnostic in found {
        let position = diagnostic.position.expect("the text was read");
        let line = text.split('\n').nth(position.line - 1);
        prop_assert!(line.is_some(), "there is no line {}", position.line);
        let length = line.unwrap_or_default().chars().count();
        prop_assert!(position.column <= length + 1, "line {} is shorter", position.line);
        prop_assert!(!diagnostic.message.is_empty() && !diagnostic.hint.is_empty());
        prop_assert!(!diagnostic.message.contains('\n'), "{:?}", diagnostic.message);
    }
    Ok(())
}

const GOOD: &[&str] = &[
    include_str!("config/good/every_key.toml"),
    include_str!("config/good/groups.toml"),
    include_str!("config/good/groups_warnings.toml"),
    include_str!("config/good/inheritance.toml"),
    include_str!("config/good/mysql_from_haproxy.toml"),
    include_str!("config/good/sync.toml"),
    include_str!("config/good/sync_warnings.toml"),
    include_str!("config/good/tcp_checks.toml"),
    include_str!("config/good/warnings.toml"),
    include_str!("../../tandem.example.toml"),
];

/// What breaks parsers, and what this one knows.
const WORDS: &[&str] = &[
    "",
    " ",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{1b}",
    "ü",
    "\u{feff}",
    "𝄞",
    "=",
    ",",
    ".",
    "#",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "-",
    "0",
    "1",
    "99999999999999999999",
    "-1",
    "1.5",
    "nan",
    "0x",
    "true",
    "2024-01-01",
    "a = 1\n",
    "[global]\n",
    "[[service]]\n",
    "[service]\n",
    "[[service.backend]]\n",
    "[service.server.check]\n",
    "[defaults.server]\n",
    "[[group]]\n",
    "[[script]]\n",
    "[[process]]\n",
    "[sync]\n",
    "listen",
    "peer",
    "key",
    "node",
    "interfaces",
    "name",
    "bind",
    "address",
    "source",
    "timeout",
    "check",
    "tcp_check",
    "httpchk",
    "interface",
    "protocol",
    "\"carp\"",
    "vhid",
    "pass_file",
    "virtual_ipaddress",
    "\"10.2.2.4/24\"",
    "track_script",
    "notify",
    "expect_regex",
    "status",
    "weight",
    "\"10.2.2.4:3306\"",
    "\"[fd00::4]:3306\"",
    "\"2s\"",
    "name = \"x\"\n",
    "service.backend.x = 1\n",
];

fn config() -> impl Strategy<Value = Config> {
    let services = vec(any::<bool>(), 0..5).prop_flat_map(|families| {
        let services = families.into_iter().enumerate();
        services.map(|(index, v6)| service(index, v6)).collect::<Vec<_>>()
    });
    let groups = vec(group::group(), 0..6);
    let pair =
        (vec(group::script(), 0..4), vec(group::process(), 0..4), groups, option::of(peer()));
    (global(), admin(), log(), services, pair).prop_map(|(global, admin, log, services, pair)| {
        let (scripts, processes, groups, sync) = pair;
        let mut config = Config {
            sync: sync.map(Arc::new),
            global,
            admin,
            log,
            groups: groups.into_iter().map(Arc::new).collect(),
            scripts: scripts.into_iter().map(Arc::new).collect(),
            processes: processes.into_iter().map(Arc::new).collect(),
            services: services.into_iter().map(Arc::new).collect(),
        };
        group::connect(&mut config);
        config
    })
}

fn global() -> impl Strategy<Value = Global> {
    (
        name(),
        prop::collection::hash_set("[a-z][a-z0-9.-]{0,14}", 1..4),
        select(vec![XdpMode::Auto, XdpMode::Native, XdpMode::Generic]),
        1024..=8_388_608_u32,
        8..=10_u32,
        (1024..=65_535_u16, 1024..=65_535_u16),
        path(),
    )
        .prop_map(|(node, interfaces, xdp_mode, maxconn, half_open, (a, b), bpffs)| Global {
            node,
            interfaces: interfaces.into_iter().collect(),
            xdp_mode,
            maxconn,
            max_half_open: 1 << half_open,
            source_ports: a.min(b)..=a.max(b),
            bpffs: bpffs.into(),
            resolve_interval: Duration::from_secs(10),
        })
}

/// The other host; its addresses are of a network of their own.
fn peer() -> impl Strategy<Value = Peer> {
    let times = (0..=3_600_000_000_u64, 0..=60_000_000_u64);
    (any::<bool>(), 1..=u16::MAX, "[^\0]{32,100}", times).prop_filter_map(
        "a time is zero, or a millisecond at least",
        |(v6, port, key, (wait, grace))| {
            let times = [wait, grace];
            times.iter().all(|time| *time == 0 || *time >= 1_000).then(|| Peer {
                listen: SocketAddr::new(address(v6, 6, 1), port),
                peer: SocketAddr::new(address(v6, 6, 2), port),
                key,
                key_file: None,
                preempt_wait: Duration::from_micros(wait),
                grace: Duration::from_micros(grace),
            })
        },
    )
}

fn admin() -> impl Strategy<Value = Admin> {
    let metrics = option::of((any::<Ipv4Addr>(), 1..=u16::MAX));
    (path(), metrics, path()).prop_map(|(socket, metrics, state_file)| Admin {
        socket: socket.into(),
        metrics: metrics.map(|(address, port)| (address, port).into()),
        state_file: state_file.into(),
    })
}

fn log() -> impl Strategy<Value = Log> {
    let levels = vec!["error", "warn", "info", "debug", "trace"];
    (select(levels), select(vec![LogFormat::Text, LogFormat::Json]))
        .prop_map(|(level, format)| Log { level: level.to_owned(), format })
}

/// Addresses follow from the numbers of service, bind and backend, so that none is there twice.
fn service(index: usize, v6: bool) -> impl Strategy<Value = Service> {
    let balance = vec![Balance::RoundRobin, Balance::LeastConn, Balance::Source, Balance::Hash];
    let timeout = [timeout(), timeout(), timeout(), timeout(), timeout(), timeout()].prop_map(
        |[connect, queue, client, server, client_fin, server_fin]| Timeouts {
            connect,
            queue,
            client,
            server,
            client_fin,
            server_fin,
        },
    );
    let backends = (1..6_usize).prop_flat_map(move |count| {
        (0..count).map(|backend_index| backend(backend_index, v6)).collect::<Vec<_>>()
    });
    let whole = (name(), 1..4_usize, select(balance), any::<bool>(), limit());
    (whole, timeout, 0..=4_usize, backends).prop_map(
        move |((name, binds, balance, allbackups, maxconn), timeout, sources, backends)| Service {
            name: format!("{index}{}", &name[..name.len().min(60)]),
            bind: (0..binds).map(|n| SocketAddr::new(address(v6, 2, index), port(n))).collect(),
            group: None,
            balance,
            allbackups,
            synchronous: !allbackups,
            maxconn,
            timeout,
            source: (0..sources).map(|n| address(v6, 3, n)).collect(),
            backends,
        },
    )
}

fn backend(index: usize, v6: bool) -> impl Strategy<Value = Backend> {
    let roles = select(vec![Role::Active, Role::Backup]);
    let downs = select(vec![OnMarkedDown::None, OnMarkedDown::ShutdownSessions]);
    let slowstart = option::of((1_000..=1_728_000_000_000_u64).prop_map(Duration::from_micros));
    let observe = (1..=65_535_u32, select(OnError::ALL.to_vec()));
    let observe = observe.prop_map(|(error_limit, on_error)| Observe { error_limit, on_error });
    let limits = (limit(), limit()).prop_map(|(maxconn, maxqueue)| Limits { maxconn, maxqueue });
    let fixed = (name(), (0..=256_u16, limits), roles, downs, slowstart, option::of(observe));
    (fixed, option::of(check()), option::of(agent())).prop_map(
        move |(
            (name, (weight, limits), role, on_marked_down, slowstart, observe),
            check,
            agent,
        )| Backend {
            name: format!("{index}{}", &name[..name.len().min(60)]),
            address: SocketAddr::new(address(v6, 4, index), port(index)),
            host: None,
            weight,
            limits,
            role,
            on_marked_down,
            slowstart,
            observe: observe.filter(|_| check.is_some()),
            check: check.map(Arc::new),
            agent: agent.map(Arc::new),
        },
    )
}

fn limit() -> impl Strategy<Value = Option<NonZeroU32>> {
    (0..=8_388_608_u32).prop_map(NonZeroU32::new)
}

fn agent() -> impl Strategy<Value = AgentCheck> {
    let inter = (1_000..=1_728_000_000_000_u64).prop_map(Duration::from_micros);
    (any::<bool>(), 1..=u16::MAX, ".{0,20}", inter).prop_map(|(v6, port, send, inter)| AgentCheck {
        target: SocketAddr::new(address(v6, 5, 8), port),
        send,
        inter,
    })
}

fn check() -> impl Strategy<Value = Check> {
    let period = || (1_000..=1_728_000_000_000_u64).prop_map(Duration::from_micros);
    let places = (any::<bool>(), 1..=u16::MAX, any::<bool>()).prop_map(|(v6, port, sourced)| {
        let source = sourced.then(|| address(v6, 6, 7));
        (SocketAddr::new(address(v6, 5, 7), port), source)
    });
    let periods = [period(), period(), period(), period()];
    (places, periods, 1..=255_u32, 1..=255_u32, kind(), any::<bool>(), tls()).prop_map(
        |((target, source), [inter, fastinter, downinter, timeout], rise, fall, kind, ssl, tls)| {
            // MySQL's TLS does not begin with the connection.
            let ssl = ssl && !matches!(kind, CheckKind::Mysql(_));
            let tls = (ssl || kind.may_begin_tls()).then_some(tls);
            let source = source.filter(|source| reaches_all(*source, &kind));
            Check {
                target,
                inter,
                fastinter,
                downinter,
                rise,
                fall,
                timeout,
                source,
                ssl,
                tls,
                kind,
            }
        },
    )
}

/// Whether a script connects to addresses of the source's family only.
fn reaches_all(source: IpAddr, kind: &CheckKind) -> bool {
    let CheckKind::Tcp(steps) = kind else { return true };
    steps.iter().all(|step| match &step.action {
        TcpAction::Connect(TcpConnect { address: Some(to), .. }) => {
            to.is_ipv4() == source.is_ipv4()
        }
        _ => true,
    })
}

fn tls() -> impl Strategy<Value = Arc<Tls>> {
    let protocols = vec(select(vec!["imap", "http/1.1", "a b"]).prop_map(str::to_owned), 0..3);
    (option::of("[a-z]{1,9}\\.[a-z]{2,3}"), protocols).prop_map(|(sni, alpn)| {
        // Of no account: it follows from the rest.
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        Arc::new(Tls { trust: None, sni, alpn, client: Arc::new(client) })
    })
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let connect =
        || tcp_connect().prop_map(|action| TcpStep { action, comment: Some("there".to_owned()) });
    // A script that connects begins with that.
    let connecting = (connect(), vec(prop_oneof![tcp_step(), connect()], 0..4))
        .prop_map(|(first, rest)| [vec![first], rest].concat());
    prop_oneof![
        Just(CheckKind::Connect),
        vec(tcp_step(), 1..5).prop_map(CheckKind::Tcp),
        connecting.prop_map(CheckKind::Tcp),
        http_check().prop_map(CheckKind::Http),
        mysql().prop_map(CheckKind::Mysql),
        external_check().prop_map(CheckKind::External),
    ]
}

fn mysql() -> impl Strategy<Value = MysqlCheck> {
    let expect = prop_oneof![
        "[^\0]{0,20}".prop_map(MysqlExpect::Text),
        select(vec!["^ready$", r"\d+ 'x'"])
            .prop_map(|regex| MysqlExpect::Regex(Regex::new(regex).expect("valid"))),
    ];
    let lag = (1..=1_728_000_u64).prop_map(Duration::from_secs);
    let question = prop_oneof![
        any::<(bool, bool)>().prop_map(|(available_when_donor, not_when_read_only)| {
            MysqlQuestion::Galera { available_when_donor, not_when_read_only }
        }),
        Just(MysqlQuestion::Writable),
        option::of(lag).prop_map(|max_lag| MysqlQuestion::Replica { max_lag }),
        ("SELECT [!-~]{1,20}", option::of(expect))
            .prop_map(|(query, expect)| MysqlQuestion::Sql { query, expect }),
    ];
    let login = ("[!-~]{1,20}", "[^\0]{0,20}").prop_map(|(user, password)| MysqlLogin {
        user,
        password: Password::new(password),
        password_file: None,
    });
    option::of((login, option::of(question))).prop_map(|login| match login {
        Some((login, question)) => MysqlCheck { login: Some(login), question },
        None => MysqlCheck::default(),
    })
}

fn external_check() -> impl Strategy<Value = ExternalCheck> {
    (path(), vec("[^\0]{0,20}", 0..3), option::of("[^\0]{1,20}"), "[a-z_][a-z0-9_-]{0,20}")
        .prop_map(|(program, arguments, path, user)| ExternalCheck {
            command: [vec![program], arguments].concat(),
            path,
            user,
        })
}

fn tcp_connect() -> impl Strategy<Value = TcpAction> {
    let address = option::of(any::<bool>().prop_map(|v6| address(v6, 7, 7)));
    (address, option::of(1..=u16::MAX), option::of(any::<bool>()))
        .prop_map(|(address, port, ssl)| TcpAction::Connect(TcpConnect { address, port, ssl }))
}

fn tcp_step() -> impl Strategy<Value = TcpStep> {
    let bytes = || prop_oneof![vec(any::<u8>(), 1..20), ".{1,20}".prop_map(String::into_bytes)];
    let pattern = prop_oneof![bytes().prop_map(Pattern::String), regex()];
    let expect = (pattern, any::<bool>(), option::of(0..=16_384_u16));
    let action = prop_oneof![
        bytes().prop_map(TcpAction::Send),
        expect.prop_map(|(pattern, negated, min_recv)| TcpAction::Expect(TcpExpect {
            pattern,
            negated,
            min_recv
        })),
    ];
    (action, option::of("[ -~]{1,20}")).prop_map(|(action, comment)| TcpStep { action, comment })
}

fn regex() -> impl Strategy<Value = Pattern> {
    let regexes = vec![r"is running\.", r#"^"it's" \\ [0-9]+$"#, "(?i)ok\r\n", "ü"];
    select(regexes).prop_map(|regex| Pattern::Regex(Regex::new(regex).expect("valid")))
}

fn http_check() -> impl Strategy<Value = HttpCheck> {
    let range = || {
        (100..=599_u16, 100..=599_u16)
            .prop_map(|(a, b)| StatusRange { first: a.min(b), last: a.max(b) })
    };
    let status = || option::of(vec(range(), 1..4).prop_map(HttpSubject::Status));
    let code = || option::of(regex().prop_map(HttpSubject::StatusText));
    let text = || ".{1,20}".prop_map(|text| Pattern::String(text.into_bytes()));
    let string = || option::of(text().prop_map(HttpSubject::Body));
    let expression = || option::of(regex().prop_map(HttpSubject::Body));
    let expects =
        ((status(), status(), code(), code()), (string(), string(), expression(), expression()))
            .prop_map(|((a, b, c, d), (e, f, g, h))| {
                let subjects =
                    [a, b, c, d, e, f, g, h].into_iter().zip([false, true].into_iter().cycle());
                subjects
                    .filter_map(|(subject, negated)| {
                        Some(HttpExpect { subject: subject?, negated })
                    })
                    .collect::<Vec<_>>()
            })
            .prop_filter("a check expects something", |expects| !expects.is_empty());
    let request = ("[A-Z-]{1,9}", "/[!-~]{0,20}", option::of("[a-z.:0-9]{1,20}"), ".{0,20}");
    let versions = select(vec![HttpVersion::V10, HttpVersion::V11]);
    let headers = vec(("X-[A-Za-z]{1,9}", "([!-~]([ -~]{0,9}[!-~])?)?"), 0..3);
    (request, versions, headers, expects).prop_map(
        |((method, uri, host, body), version, headers, expects)| HttpCheck {
            method,
            uri,
            version,
            host,
            headers,
            body,
            expects,
        },
    )
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,64}"
}

fn path() -> impl Strategy<Value = String> {
    "/[^\0\u{80}-\u{10ffff}]{0,60}"
}

fn timeout() -> impl Strategy<Value = Duration> {
    (10_000..=1_728_000_000_000_u64).prop_map(Duration::from_micros)
}

fn address(v6: bool, network: u8, index: usize) -> IpAddr {
    let index = u8::try_from(index).expect("a few");
    if v6 {
        Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, index.into()).into()
    } else {
        Ipv4Addr::new(10, network, 0, index).into()
    }
}

fn port(index: usize) -> u16 {
    8000 + u16::try_from(index).expect("a few")
}
