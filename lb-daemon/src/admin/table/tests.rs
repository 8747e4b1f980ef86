//! How the table looks.

use std::time::Duration;

use super::*;
use crate::{
    admin::sample,
    core::{ClaimStatus, QueueStatus},
};

#[test]
fn all_is_well() {
    insta::assert_snapshot!(render(&sample::healthy(), false, None), @r#"
    lb1  tandem 0.1.0, up 3d4h; /etc/tandem/tandem.toml generation 3, 2h old
    all is well

    INTERFACE  XDP
    eth0       native
    eth1       generic

    FLOWS  CONNECTIONS   CAPACITY  FULL  HALF OPEN  CAPACITY  EVICTED
    ipv4        12,345  1,000,000    2%         12    65,536        0
    ipv6             0  1,000,000    0%          0    65,536        0

    GROUP  ROLE         PRIORITY            MASTER     LEASE  SENT  RECEIVED  DISCARDED
    gw     MASTER 3d4h  110 instead of 100  this host  2.87s  273k         4          3
      VRRPv2 51 on eth0: 10.2.2.4/24, 10.3.3.4/24 dev eth1
      └ no advert within 3.6 s
    web    BACKUP 3d4h  100                 10.2.2.3       -     0      273k          3
      CARP 7 on eth0: fd00:2::4/64
      └ 10.2.2.3 has the higher priority

    SERVICE  ADDRESS          ROLE    WEIGHT  STATE          CONNS  TOTAL      IN     OUT  CHECK
    mysql  UP  leastconn on 10.2.2.4:3306
      db1    10.2.3.11:3306   active     100  UP 3d4h          421   451k  3.83GB  51.8GB  L7OK 2ms
      db2    10.2.3.12:3306   active     100  UP 3d4h          398   426k  3.62GB  49.0GB  L7OK 2ms
      db3    10.2.3.13:3306   backup     100  UP 3d4h            0      0      0B      0B  L7OK 2ms
        └ no new connections: standby: active backends are up
    web  UP  roundrobin on [fd00:2::4]:80, [fd00:2::4]:443
      web1   [fd00:3::11]:80  active     100  UP 3d4h            7   7497  63.7MB   861MB  L7OK 2ms
      web2   [fd00:3::12]:80  active     100  no check 3d4h      8   8568  72.8MB   984MB  -
    "#);
}

#[test]
fn limits_are_shown_with_what_there_is_and_who_waits() {
    let mut status = sample::healthy();
    let service = &mut status.services[0];
    // More than its backends have: some are of one that was removed.
    service.active = 820;
    service.limit = Some(1000);
    service.queue = Some(QueueStatus { waiting: 5, ..QueueStatus::default() });
    service.backends[0].limit = Some(421);
    service.backends[0].queue = 3;
    let text = render(&status, false, None);
    let line = |start: &str| {
        text.lines().find(|line| line.trim_start().starts_with(start)).map(str::trim).unwrap()
    };
    let heading = "mysql  UP  leastconn on 10.2.2.4:3306, 820 of 1000 connections, 5 waiting";
    assert_eq!(line("mysql"), heading);
    assert!(line("db1").contains(" 421/421 "), "{text}");
    assert_eq!(line("└ 3"), "└ 3 waiting");
    assert!(line("db2").contains(" 398 "), "{text}");
}

#[test]
fn a_limit_that_was_said_does_not_explain_why_a_backend_is_left_out() {
    let mut status = sample::healthy();
    let backend = &mut status.services[0].backends[0];
    (backend.state, backend.eligible, backend.limit) = (State::Drain, false, Some(500));
    backend.why = Some("weight 0".to_owned());
    let (by, since_seconds) = ("operator".to_owned(), 60);
    backend.overrides = vec![OverrideStatus { what: "maxconn 500".to_owned(), by, since_seconds }];
    let text = render(&status, false, None);
    let note = "└ maxconn 500 by operator for 1m; no new connections: weight 0";
    assert!(text.lines().any(|line| line.trim() == note), "{text}");
}

#[test]
fn what_is_wrong_comes_first() {
    insta::assert_snapshot!(render(&sample::troubled(), false, None), @r#"
    lb1  tandem 0.1.0, up 3d4h; /etc/tandem/tandem.toml generation 3, 2h old

    !! service mysql DOWN: none of its 3 backends takes connections
    !! group web FAULT for 1m5s: interface eth0: down
    !! mysql/db1 DOWN for 12m5s, failed 362 times, last 0s ago: L4CON, Connection refused (os error 111)
    !! web/web2 DOWN for 3d4h, failed 362 times, last 0s ago: L7TOUT after 2.00s
     ! the ipv4 flow table is 97 % full: raise [global] maxconn
     ! script chk_haproxy, which group gw tracks with weight 10: exit status 1: no pid file
     ! mysql/db3 is healthy but gets no new connections: no neighbour answers for 10.2.3.13 on eth1
     ! web/web1 failed once, last 1s ago: L7RSP, expected "pong", got �[2J"HTTP/1.0 500 Internal Server…
     ! clients are turned away where `maxconn` is reached, and do not wait for a place:
         its thread has panicked, as the log tells
     ! what operators said of backends would not outlive the daemon, which tries again:
         cannot write /var/lib/tandem/overrides.json: No space left
     ! web2.example.org of web/web2 does not resolve, and keeps its address: Temporary failure in name…
     ! mysql/db9 is not in the configuration, but maint by operator for 1d is kept for it
         forget it: tandem backend mysql/db9 ready
     ! the last reload was refused, generation 3 stays in force:
         /etc/tandem/tandem.toml:12:3: unknown key `wieght`
           hint: did you mean `weight`?
     ! drop_internal is at 1: that is always a bug of tandem, please report it

    INTERFACE  XDP
    eth0       native
    eth1       generic

    FLOWS  CONNECTIONS   CAPACITY  FULL  HALF OPEN  CAPACITY  EVICTED
    ipv4       961,000  1,000,000   97%         12    65,536    1,234
    ipv6             0  1,000,000    0%          0    65,536        0

    GROUP  ROLE        PRIORITY  MASTER    LEASE  SENT  RECEIVED  DISCARDED
    gw     BACKUP 17s  100       10.2.2.3      -  273k         4          3
      VRRPv2 51 on eth0: 10.2.2.4/24, 10.3.3.4/24 dev eth1
      └ 10.2.2.3 has the higher priority
        MASTER 3d4h ago: no advert within 3.6 s
    web    FAULT 1m5s  100       -             -     0      273k          3
      CARP 7 on eth0: fd00:2::4/64
      └ interface eth0: down

    SERVICE  ADDRESS          ROLE    WEIGHT  STATE       CONNS  TOTAL      IN     OUT  CHECK
    mysql  DOWN  leastconn on 10.2.2.4:3306
      db1    10.2.3.11:3306   active     100  DOWN 12m5s    421   451k  3.83GB  51.8GB  L4CON 0ms
        └ 12 failed handshakes, 10 in a row once; Connection refused (os error 111)
      db2    10.2.3.12:3306   active      50  DRAIN 3d4h    398   426k  3.62GB  49.0GB  L7OK 2ms
        └ drain by operator for 5m, weight 50% by operator for 3h
      db3    10.2.3.13:3306   backup     100  UP 3d4h         0      0      0B      0B  L7OK 2ms
        └ no new connections: no neighbour answers for 10.2.3.13 on eth1
    web  UP  roundrobin on [fd00:2::4]:80, [fd00:2::4]:443
      web1   [fd00:3::11]:80  active     100  UP 3d4h         7   7497  63.7MB   861MB  L7RSP 2ms
        └ agent: 75% up; expected "pong", got �[2J"HTTP/1.0 500 Internal Server Error: the database of…
      web2   [fd00:3::12]:80  active     100  DOWN 3d4h       8   8568  72.8MB   984MB  L7TOUT 2.00s
        └ web2.example.org, resolved 1m35s ago

    DROPPED OR RESET  PACKETS
    reset_no_backend    4,242
    drop_table_full        17
    drop_internal           1
    "#);
}

#[test]
fn the_live_view_shows_rates() {
    let before = sample::healthy();
    let mut after = before.clone();
    let traffic = &mut after.services[0].backends[0].traffic;
    traffic.connections += 4_200;
    traffic.bytes_in += 1_000_000;
    traffic.bytes_out += 1_250_000_000;
    let rates = Rates::between(&before, &after, Duration::from_secs(2));
    after.verdicts.clear();
    insta::assert_snapshot!(render(&after, false, Some(&rates)), @r#"
    lb1  tandem 0.1.0, up 3d4h; /etc/tandem/tandem.toml generation 3, 2h old
    all is well

    INTERFACE  XDP
    eth0       native
    eth1       generic

    FLOWS  CONNECTIONS   CAPACITY  FULL  HALF OPEN  CAPACITY  EVICTED
    ipv4        12,345  1,000,000    2%         12    65,536        0
    ipv6             0  1,000,000    0%          0    65,536        0

    GROUP  ROLE         PRIORITY            MASTER     LEASE  SENT  RECEIVED  DISCARDED
    gw     MASTER 3d4h  110 instead of 100  this host  2.87s  273k         4          3
      VRRPv2 51 on eth0: 10.2.2.4/24, 10.3.3.4/24 dev eth1
      └ no advert within 3.6 s
    web    BACKUP 3d4h  100                 10.2.2.3       -     0      273k          3
      CARP 7 on eth0: fd00:2::4/64
      └ 10.2.2.3 has the higher priority

    SERVICE  ADDRESS          ROLE    WEIGHT  STATE          CONNS      NEW        IN       OUT  CHECK
    mysql  UP  leastconn on 10.2.2.4:3306
      db1    10.2.3.11:3306   active     100  UP 3d4h          421  2.10k/s  4.00Mb/s  5.00Gb/s  L7OK 2ms
      db2    10.2.3.12:3306   active     100  UP 3d4h          398      0/s      0b/s      0b/s  L7OK 2ms
      db3    10.2.3.13:3306   backup     100  UP 3d4h            0      0/s      0b/s      0b/s  L7OK 2ms
        └ no new connections: standby: active backends are up
    web  UP  roundrobin on [fd00:2::4]:80, [fd00:2::4]:443
      web1   [fd00:3::11]:80  active     100  UP 3d4h            7      0/s      0b/s      0b/s  L7OK 2ms
      web2   [fd00:3::12]:80  active     100  no check 3d4h      8      0/s      0b/s      0b/s  -
    "#);
}

#[test]
fn the_brief_table_is_part_of_the_whole() {
    let (whole, brief) =
        [render, render_brief].map(|render| render(&sample::healthy(), false, None)).into();
    let (header, rest) = brief.split_once("\n\n").expect("two sections");
    assert!(whole.starts_with(header) && whole.ends_with(rest), "{brief}");
    assert!(rest.starts_with("GROUP"), "{brief}");
}

#[test]
fn an_empty_daemon_has_little_to_say() {
    insta::assert_snapshot!(render(&Status::default(), false, None), @r#"
      tandem , up 0s;  generation 0, 0s old

    !! the XDP program is attached to no interface: nothing is forwarded

    SERVICE  ADDRESS  ROLE  WEIGHT  STATE  CONNS  TOTAL  IN  OUT  CHECK
    none is configured
    "#);
}

#[test]
fn lines_fit_in_100_columns() {
    let rates = Rates::default();
    for status in [sample::healthy(), sample::troubled()] {
        for rates in [None, Some(&rates)] {
            for line in render(&status, false, rates).lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
    }
}

#[test]
fn what_other_hosts_do_to_a_group_is_a_problem() {
    let mut status = sample::healthy();
    let group = &mut status.groups[0];
    group.problem = Some("an advert of 10.2.2.9 lists other addresses".to_owned());
    group.claim = Some(ClaimStatus {
        address: [10, 2, 2, 4].into(),
        mac: "02:00:00:00:00:99".to_owned(),
        interface: "eth0".to_owned(),
        age_seconds: 5,
    });
    let text = render(&status, false, None);
    let marked: Vec<_> = text.lines().filter(|line| line.trim_start().starts_with('!')).collect();
    assert_eq!(
        marked,
        [
            "!! address 10.2.2.4 of group gw is on another host too: 02:00:00:00:00:99 on eth0 \
             claimed it 5s ago",
            " ! group gw: an advert of 10.2.2.9 lists other addresses",
        ]
    );
}

#[test]
fn states_have_colours_when_asked() {
    let coloured = render(&sample::troubled(), true, None);
    for painted in [
        "\x1b[31mDOWN 12m5s\x1b[0m",
        "\x1b[33mDRAIN 3d4h\x1b[0m",
        "\x1b[32mUP 3d4h\x1b[0m",
        "\x1b[31mL4CON 0ms\x1b[0m",
        "\x1b[31mFAULT 1m5s\x1b[0m",
    ] {
        assert!(coloured.contains(painted), "{painted:?} not in:\n{coloured}");
    }
    assert!(!render(&sample::troubled(), false, None).contains('\x1b'));
}

#[test]
fn many_binds_are_summed_up() {
    let mut status = sample::healthy();
    let service = &mut status.services[0];
    service.bind = (1..=10).map(|port| ([10, 2, 2, 4], port).into()).collect();
    let text = render(&status, false, None);
    assert!(text.contains("leastconn on 10.2.2.4:1, 10.2.2.4:2, 10.2.2.4:3, 7 more\n"), "{text}");
}

#[test]
fn the_list_of_problems_does_not_push_the_rest_away() {
    let mut status = sample::troubled();
    let down = status.services[0].backends[0].clone();
    status.services[0].backends = vec![down; 200];
    let text = render(&status, false, None);
    let marked = text.lines().filter(|line| line.starts_with("!! ")).count();
    assert_eq!(marked, MAX_PROBLEMS);
    // The service itself, 200 of its backends, one of web, a group, and ten lesser problems.
    assert!(text.contains("\n   ... and 197 more, see below\n"), "{text}");
}
