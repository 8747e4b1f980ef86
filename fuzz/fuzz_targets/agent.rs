//! Whatever an agent says, its line is read, the core does as it says, and what is shown of it is short
//! and safe for a terminal.
//!
//! `cargo fuzz run agent`, as the target `adverts`.
#![no_main]

use std::{
    io::Cursor,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use lb_daemon::{
    config::{self, Config},
    core::{Core, Counters, Effect, Elections, Event, Inventory},
    probe::over,
};
use libfuzzer_sys::fuzz_target;
use tokio::{io, runtime};

const BACKEND: &str = r#"
[global]
node = "lb1"
interfaces = ["eth0"]
[[service]]
name = "db"
bind = "10.2.2.4:3306"
[[service.backend]]
name = "db1"
address = "10.4.4.1:3306"
weight = 100
check = { enabled = false }
agent = { port = 9707 }
"#;

static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    Arc::new(config::parse(BACKEND, "backend").unwrap_or_else(|error| panic!("{error}")).config)
});

static RUNTIME: LazyLock<runtime::Runtime> = LazyLock::new(|| {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
});

fuzz_target!(|bytes: &[u8]| {
    let agent = io::join(Cursor::new(bytes.to_vec()), io::sink());
    let heard = RUNTIME.block_on(over::agent(agent, "how are you?\n", Duration::from_secs(60)));

    let now = Instant::now();
    let mut core = Core::new(&Inventory::default(), now);
    let effects = core.handle(Event::Config(CONFIG.clone()), now);
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::AskAgent(request) => Some(request.id),
        _ => None,
    });
    let probe = asked.expect("it is asked at once");
    for effect in core.handle(Event::Agent { probe, heard }, now) {
        if let Effect::Notify(notice) = effect {
            assert!(!notice.to_string().contains(char::is_control), "{notice}");
        }
    }
    let status = core.status(&Counters::default(), &Elections::default(), now);
    let backend = &status.services[0].backends[0];
    assert!((0.0..=256.0).contains(&backend.effective_weight), "{}", backend.effective_weight);
    let shown = backend.agent.as_ref().expect("it has answered");
    for text in [&shown.answer, &shown.problem].into_iter().flatten() {
        assert!(text.chars().count() < 500, "{text}");
    }
});
