//! What agents say of their backends.

use std::num::NonZeroU32;

use super::*;

const AGENT: &str = "weight = 100\nagent = { port = 9707, inter = '3s' }";

/// `db1` has an agent.
fn one() -> Arc<Config> {
    config(&service("db", VIP, "", &[("db1", 11, AGENT), ("db2", 12, "weight = 100")]))
}

/// All reachable and found up by their checks.
fn healthy() -> Bench {
    let mut bench = Bench::reachable(&one());
    bench.pass("db1");
    bench.pass("db2");
    bench
}

/// Waits until the agent is asked, all checks passing meanwhile.
fn asked(bench: &mut Bench) -> AgentRequest {
    while bench.agents.is_empty() {
        while !bench.probes.is_empty() {
            let request = bench.probes.remove(0);
            bench.answer(&request, Reason::L4Ok);
        }
        if bench.agents.is_empty() {
            bench.tick();
        }
    }
    bench.agents.remove(0)
}

/// Has the agent answer the next question.
fn hear(bench: &mut Bench, line: &str) {
    let request = asked(bench);
    bench.event(Event::Agent { probe: request.id, heard: Ok(line.to_owned()) });
}

/// Has it be silent at the next question.
fn silence(bench: &mut Bench) {
    let request = asked(bench);
    let detail = "refused".to_owned();
    let outcome = Outcome { reason: Reason::L4Connection, detail, took: Duration::ZERO };
    bench.event(Event::Agent { probe: request.id, heard: Err(outcome) });
}

fn says(bench: &Bench, backend: &str) -> Vec<String> {
    let overrides = bench.status_of(backend).overrides;
    overrides.into_iter().map(|said| format!("{} by {}", said.what, said.by)).collect()
}

#[test]
fn it_is_asked_what_is_configured_and_one_question_at_a_time() {
    let keys = "agent = { port = 9707, address = '10.9.9.9', send = 'db1', inter = '3s' }";
    let mut bench = Bench::start(&config(&service("db", VIP, "", &[("db1", 11, keys)])));
    let request = asked(&mut bench);
    assert_eq!((request.target, request.send.as_str()), (address("10.9.9.9:9707"), "db1"));
    assert_eq!(request.timeout, Duration::from_secs(3));
    let asked_at = bench.now;
    for _ in 0..100 {
        bench.wait(Duration::from_millis(20));
        bench.event(Event::Tick);
        assert!(bench.agents.is_empty());
    }
    bench.event(Event::Agent { probe: request.id, heard: Ok(String::new()) });
    let next = asked(&mut bench);
    assert_ne!(next.id, request.id);
    assert_eq!(bench.now - asked_at, Duration::from_secs(3), "from start to start");
}

#[test]
fn its_weight_is_a_share_of_the_configured_one_and_shown_as_its_word() {
    let mut bench = healthy();
    hear(&mut bench, "75%");
    assert_eq!(bench.desired.backends[&bench.number("db1")].weight, 75);
    assert_eq!(says(&bench, "db1"), ["weight 75% by agent"]);
    assert_eq!(bench.said(), "Info: backend db/db1: weight 75%, by agent\n");
    hear(&mut bench, "75%");
    assert_eq!(bench.said(), "", "nothing new");
    hear(&mut bench, "up");
    assert_eq!(says(&bench, "db1"), ["weight 75% by agent"], "what it does not speak of stays");
    hear(&mut bench, "0%");
    assert_eq!(bench.serving("db"), ["db2"]);
    hear(&mut bench, "100%");
    assert_eq!(says(&bench, "db1"), [""; 0]);
}

#[test]
fn it_takes_the_backend_down_and_only_it_brings_it_up_again() {
    for word in ["down", "fail", "stopped"] {
        let mut bench = healthy();
        hear(&mut bench, &format!("{word} # the disk is full"));
        assert_eq!(bench.serving("db"), ["db2"]);
        let status = bench.status_of("db1");
        assert_eq!(status.state, State::Down);
        let why = format!("its agent says {word}: the disk is full");
        assert_eq!(status.why.as_deref(), Some(why.as_str()));
        assert!(bench.said().contains(&format!("DOWN: L7STS {why}")), "{}", bench.said());

        bench.pass("db1");
        assert_eq!(bench.serving("db"), ["db2"], "its check has nothing to say about that");
        silence(&mut bench);
        hear(&mut bench, "50% ready");
        assert_eq!(bench.serving("db"), ["db2"], "that is not up");
        hear(&mut bench, "up");
        assert_eq!(bench.serving("db").len(), 2);
        assert!(bench.said().contains("backend db/db1 is UP: L7OK its agent says up"));
    }
}

#[test]
fn it_brings_nothing_up_that_the_check_finds_down() {
    let mut bench = healthy();
    let request = asked(&mut bench);
    for _ in 0..3 {
        bench.fail("db1");
    }
    bench.event(Event::Agent { probe: request.id, heard: Ok("ready up 100%".to_owned()) });
    assert_eq!(bench.serving("db"), ["db2"]);
    assert_eq!(bench.status_of("db1").state, State::Down);
}

#[test]
fn its_silence_changes_nothing_and_is_shown() {
    let mut bench = healthy();
    hear(&mut bench, "drain 50%");
    for _ in 0..5 {
        silence(&mut bench);
        assert_eq!(bench.said(), "");
    }
    assert_eq!(says(&bench, "db1"), ["drain by agent", "weight 50% by agent"]);
    let agent = bench.status_of("db1").agent.expect("it was asked");
    assert_eq!((agent.up, agent.answer), (true, None));
    assert_eq!(agent.problem.as_deref(), Some("L4CON refused"));
    let mut bench = healthy();
    silence(&mut bench);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn it_is_asked_in_maintenance_and_can_end_it() {
    let mut bench = healthy();
    hear(&mut bench, "maint");
    assert_eq!(bench.status_of("db1").state, State::Maint);
    hear(&mut bench, "down");
    hear(&mut bench, "ready");
    assert_eq!(bench.status_of("db1").state, State::Down, "it was down for it meanwhile");
    hear(&mut bench, "maint up");
    assert_eq!(bench.status_of("db1").state, State::Maint);
    hear(&mut bench, "ready");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn the_last_word_counts_whoever_says_it_and_only_an_operators_is_kept() {
    let mut bench = healthy();
    hear(&mut bench, "drain");
    assert_eq!(bench.kept, None, "the agent says so again by itself");
    bench.say("db/db1", Order::State(AdminState::Maint)).unwrap();
    assert_eq!(says(&bench, "db1"), ["maint by operator"]);
    assert_eq!(bench.kept.as_ref().map(Vec::len), Some(1));
    hear(&mut bench, "drain");
    assert_eq!(says(&bench, "db1"), ["drain by agent"]);
    assert_eq!(bench.kept, Some(Vec::new()), "the operator is overruled, for good");
    bench.say("db/db1", Order::State(AdminState::Ready)).unwrap();
    assert_eq!(says(&bench, "db1"), [""; 0]);
}

#[test]
fn its_words_are_forgotten_when_a_reload_takes_it_away() {
    let without = config(&service("db", VIP, "", &[("db1", 11, ""), ("db2", 12, "")]));
    for word in ["drain 50% maxconn:7", "maint", "down"] {
        let mut bench = healthy();
        hear(&mut bench, word);
        assert_eq!(bench.serving("db"), ["db2"], "{word}");
        bench.reload(&one());
        assert_eq!(bench.serving("db"), ["db2"], "{word}: a reload is no reason");

        bench.reload(&without);
        assert_eq!(says(&bench, "db1"), [""; 0], "{word}");
        assert_eq!(bench.status_of("db1").limit, None, "{word}");
        assert_eq!(bench.serving("db"), ["db1", "db2"], "{word}");
    }
    let mut bench = healthy();
    bench.say("db/db1", Order::State(AdminState::Drain)).unwrap();
    hear(&mut bench, "25%");
    bench.reload(&without);
    assert_eq!(says(&bench, "db1"), ["drain by operator"], "another's word stays");
}

#[test]
fn nonsense_changes_nothing_and_is_shown() {
    let mut bench = healthy();
    hear(&mut bench, "hello world");
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
    let agent = bench.status_of("db1").agent.expect("it was asked");
    assert_eq!(agent.answer.as_deref(), Some("hello world"));
    assert_eq!(agent.problem.as_deref(), Some("it says \"hello\", which means nothing"));
    hear(&mut bench, "maxconn:30");
    assert_eq!(bench.status_of("db1").agent.and_then(|agent| agent.maxconn), Some(30));
    assert_eq!(bench.status_of("db1").limit, Some(30));
    let limits = |bench: &Bench| bench.desired.backends[&bench.number("db1")].limits.maxconn;
    assert_eq!(limits(&bench), NonZeroU32::new(30), "and is in force");
    hear(&mut bench, "maxconn:0");
    assert_eq!((bench.status_of("db1").limit, limits(&bench)), (None, None));
}

#[test]
fn its_limit_and_an_operators_are_one_thing_and_the_last_word_counts() {
    let limit = |bench: &Bench| bench.status_of("db1").limit;
    let mut bench = healthy();
    hear(&mut bench, "maxconn:30");
    assert_eq!(says(&bench, "db1"), ["maxconn 30 by agent"]);
    assert_eq!(bench.said(), "Info: backend db/db1: maxconn 30, by agent\n");
    bench.say("db/db1", Order::Maxconn(RuntimeMaxconn::Absolute(50))).unwrap();
    assert_eq!((limit(&bench), says(&bench, "db1").len()), (Some(50), 1));
    assert_eq!(bench.kept.as_ref().map(Vec::len), Some(1));
    hear(&mut bench, "up");
    assert_eq!(limit(&bench), Some(50), "of that it says nothing");
    hear(&mut bench, "maxconn:30");
    assert_eq!(limit(&bench), Some(30));
    assert_eq!(bench.kept, Some(Vec::new()), "the operator is overruled, for good");
    bench.say("db/db1", Order::Maxconn(RuntimeMaxconn::Configured)).unwrap();
    assert_eq!((limit(&bench), says(&bench, "db1")), (None, Vec::new()));
}

#[test]
fn what_is_shown_of_a_long_answer_is_its_beginning() {
    let mut bench = healthy();
    let word = "ü".repeat(300);
    hear(&mut bench, &format!("{word} drain"));
    assert_eq!(says(&bench, "db1"), ["drain by agent"], "all of it counts");
    let agent = bench.status_of("db1").agent.expect("it was asked");
    let beginning = format!("{}…", "ü".repeat(200));
    assert_eq!(agent.answer.as_ref(), Some(&beginning));
    assert_eq!(agent.problem, Some(format!("it says {beginning:?}, which means nothing")));
}

/// A thousand of them answer hundreds of times a second.
#[test]
fn an_answer_that_says_nothing_new_is_no_reason_to_look_at_all_services() {
    let mut bench = healthy();
    hear(&mut bench, "drain 50% maxconn:7");
    let is_routine = |bench: &mut Bench, heard: Result<&str, Outcome>| {
        let request = asked(bench);
        let event = Event::Agent { probe: request.id, heard: heard.map(str::to_owned) };
        bench.core.is_routine(&event, bench.now, &mut Vec::new())
    };
    assert!(is_routine(&mut bench, Ok("drain 50% maxconn:7")));
    assert!(is_routine(&mut bench, Ok("up nonsense")));
    let outcome =
        Outcome { reason: Reason::L4Timeout, detail: String::new(), took: Duration::ZERO };
    assert!(is_routine(&mut bench, Err(outcome)));
    for news in ["ready", "51%", "maxconn:8", "down", "up", "maint"] {
        assert!(!is_routine(&mut bench, Ok(news)), "{news}");
    }
    // Nor is it one that an agent is to be asked.
    bench.now = bench.core.next_deadline().expect("something is due");
    assert!(bench.core.is_routine(&Event::Tick, bench.now, &mut Vec::new()));
}

#[test]
fn a_backend_that_an_earlier_daemon_kept_out_waits_for_its_agent_once() {
    let owner = |host| (0, address(&format!("10.4.4.{host}:3306")));
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, owner(11)), (1, owner(12))].into(),
        serving: [1].into(),
        ..Inventory::default()
    };
    let restarted = || {
        let mut bench = Bench::restart(&inventory, &one());
        bench.reach_all();
        let request = asked(&mut bench);
        bench.pass("db1");
        assert_eq!(bench.serving("db"), ["db2"], "its agent may have taken it down");
        bench.agents.insert(0, request);
        bench
    };
    let mut bench = restarted();
    hear(&mut bench, "down");
    assert_eq!(bench.serving("db"), ["db2"]);
    let mut bench = restarted();
    silence(&mut bench);
    assert_eq!(bench.serving("db"), ["db1", "db2"]);
}

#[test]
fn a_recovery_by_the_agent_is_a_slow_start() {
    let keys = format!("slowstart = '60s'\n{AGENT}");
    let both = [("db1", 11, keys.as_str()), ("db2", 12, "weight = 100")];
    let mut bench = Bench::reachable(&config(&service("db", VIP, "", &both)));
    bench.pass("db1");
    hear(&mut bench, "down");
    hear(&mut bench, "up");
    assert_eq!(bench.status_of("db1").slow_start.map(|climb| climb.percent), Some(1));
}

#[test]
fn the_limit_that_an_earlier_daemon_heard_of_stays_until_the_agent_was_asked() {
    let limit = |bench: &Bench, name: &str| {
        let limits = bench.desired.backends[&bench.number(name)].limits;
        limits.maxconn.map(NonZeroU32::get)
    };
    let keys = format!("maxconn = 300\n{AGENT}");
    let both = config(&service("db", VIP, "", &[("db1", 11, &keys), ("db2", 12, "maxconn = 300")]));
    let owner = |host| (0, address(&format!("10.4.4.{host}:3306")));
    let few = NonZeroU32::new(30).unwrap();
    let inventory = Inventory {
        services: [(0, vec![address("10.2.2.4:3306")])].into(),
        backends: [(0, owner(11)), (1, owner(12))].into(),
        serving: [0, 1].into(),
        limits: [(0, few), (1, few)].into(),
        ..Inventory::default()
    };
    let restarted = || {
        let mut bench = Bench::restart(&inventory, &both);
        bench.reach_all();
        assert_eq!((limit(&bench, "db1"), limit(&bench, "db2")), (Some(30), Some(300)));
        bench
    };
    let mut bench = restarted();
    hear(&mut bench, "maxconn:40");
    assert_eq!(limit(&bench, "db1"), Some(40));
    let mut bench = restarted();
    hear(&mut bench, "up");
    assert_eq!(limit(&bench, "db1"), Some(300), "it wants no other one");
    let mut bench = restarted();
    silence(&mut bench);
    assert_eq!(limit(&bench, "db1"), Some(300));
    let mut bench = restarted();
    bench.say("db/db1", Order::Maxconn(RuntimeMaxconn::Absolute(500))).unwrap();
    assert_eq!(limit(&bench, "db1"), Some(500), "what an operator says is in force at once");
}
