//! A machine on the bench, fed by hand, in its own time.

use super::*;

/// Number of the machine's host; its rivals have lower and higher ones.
const US: u8 = 10;

/// A machine, and what time it is.
pub(super) struct Bench {
    pub(super) group: Group,
    pub(super) now: Instant,
    /// What comes of sending an advert.
    pub(super) sends: Result<(), String>,
}

impl Bench {
    /// A machine that has been told nothing.
    pub(super) fn new(config: config::Group) -> Self {
        let now = Instant::now();
        Self { group: Group::new(Arc::new(config), host(US), 1000, now), now, sends: Ok(()) }
    }

    /// A machine whose host is well: a backup, unless it owns the addresses.
    pub(super) fn started(config: config::Group) -> Self {
        let mut bench = Self::new(config);
        bench.tell(Input::Standing(well()));
        bench
    }

    /// A machine in this role.
    pub(super) fn in_role(role: Role, config: config::Group) -> Self {
        let mut bench = Self::new(config);
        match role {
            Role::Init => {}
            Role::Backup => _ = bench.tell(Input::Standing(well())),
            Role::Master => {
                bench.tell(Input::Standing(well()));
                if bench.group.role() != Role::Master {
                    bench.until_due();
                }
            }
            Role::Fault => _ = bench.tell(Input::Standing(ill())),
        }
        assert_eq!(bench.group.role(), role);
        bench
    }

    pub(super) fn tell(&mut self, input: Input) -> Vec<Output> {
        let outputs = self.group.handle(input, self.now);
        self.answer(outputs)
    }

    pub(super) fn reconfigure(&mut self, config: Arc<config::Group>) -> Vec<Output> {
        let outputs = self.group.reconfigure(config, self.now);
        self.answer(outputs)
    }

    /// Says what came of every advert. What is done for that comes right after it.
    fn answer(&mut self, outputs: Vec<Output>) -> Vec<Output> {
        let mut all = Vec::new();
        for output in outputs {
            let is_sent = matches!(output, Output::Send(_));
            all.push(output);
            if is_sent {
                all.extend(self.group.handle(Input::Sent(self.sends.clone()), self.now));
            }
        }
        all
    }

    /// Hands an advert over, and lets the machine do what is due then.
    pub(super) fn hear(&mut self, from: u8, advert: Advert) -> Vec<Output> {
        let mut outputs = self.tell(Input::Advert(Received { source: host(from), advert }));
        if self.group.next_deadline().is_some_and(|due| due <= self.now) {
            outputs.extend(self.tell(Input::Tick));
        }
        outputs
    }

    /// Lets time pass, in which the machine is left alone.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets time pass until the machine has something to do, and lets it.
    pub(super) fn until_due(&mut self) -> Vec<Output> {
        self.now = self.group.next_deadline().expect("something is due");
        self.tell(Input::Tick)
    }

    /// How long it would wait from now.
    pub(super) fn waits(&self) -> Duration {
        self.group.next_deadline().expect("something is due") - self.now
    }
}

/// A standing that must not hold the group.
pub(super) fn ill() -> Standing {
    Standing { faults: vec!["eth1 is down".to_owned()], ..well() }
}

/// A standing that may not take over from a working master.
pub(super) fn unready() -> Standing {
    Standing { ready: false, ..well() }
}

/// What is to be done, in a word each: `lease`, `unlease`, `send PRIORITY` (CARP: `send BASE/SKEW`),
/// `hold`, `release`, `announce`, and the new role.
pub(super) fn words(outputs: &[Output]) -> Vec<String> {
    let word = |output: &Output| match output {
        Output::Lease(Some(_)) => "lease".to_owned(),
        Output::Lease(None) => "unlease".to_owned(),
        Output::Send(Advert::Vrrp(advert)) => format!("send {}", advert.priority),
        Output::Send(Advert::Carp(advert)) => format!("send {}/{}", advert.advbase, advert.advskew),
        Output::Hold(true) => "hold".to_owned(),
        Output::Hold(false) => "release".to_owned(),
        Output::Announce { .. } => "announce".to_owned(),
        Output::Changed(transition) => transition.to.to_string(),
    };
    outputs.iter().map(word).collect()
}

/// The same, in one line.
pub(super) fn line(outputs: &[Output]) -> String {
    words(outputs).join(", ")
}
