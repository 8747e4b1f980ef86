//! The clients of thousands of sessions, on one thread.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{BULK, BULK_PERIOD, Load, Outcome, RECORD, talk::Talk};
use crate::lab::{
    Namespace,
    socket::{close_by_reset, dial},
    wait::stretched,
};

/// Sessions with [`SessionServer`](super::SessionServer)s, on a thread of their own. Dropping them ends
/// them by RST.
#[derive(Debug)]
pub struct Sessions {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    count: usize,
}

/// What is to be done on the thread.
type Order = Box<dyn FnOnce(&mut Talking) + Send>;

/// How long a session may take to open.
const OPENING: Duration = Duration::from_secs(10);

impl Sessions {
    /// Opens all sessions, one after the other, and begins.
    pub fn open(client: &Namespace, to: SocketAddr, load: &Load) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let open = || -> io::Result<Vec<Talk>> {
            let pushes = load.total() - load.pushed;
            let begin = |nth: usize| {
                let stream = dial(to, None, OPENING)?;
                // Others may have sessions with the same server.
                let own = u64::try_from(stream.as_raw_fd()).expect("descriptors are positive");
                let seed = u64::from(stream.local_addr()?.port()) << 32 | own;
                let talk = Talk::begin(stream, seed, (nth >= pushes).then_some(load.period))?;
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                epoll.add(&talk.stream, EpollEvent::new(flags, nth as u64))?;
                Ok(talk)
            };
            (0..load.total()).map(begin).collect()
        };
        let talks = client.enter(open).with_context(|| format!("cannot open sessions at {to}"))?;
        let turns = |first, count, record, period| Turns { first, count, record, period, taken: 0 };
        let turns = [
            turns(0, load.active, RECORD, load.period),
            turns(load.active, load.bulk, BULK, BULK_PERIOD),
        ];
        let (orders, taken) = mpsc::channel();
        let talking =
            Talking { epoll, talks, turns, load: *load, began: Instant::now(), record: vec![] };
        let thread = Some(thread::spawn(move || talking.go_on(&taken)));
        Ok(Self { orders: Some(orders), thread, count: load.total() })
    }

    /// How many there are, those that were lost among them.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Waits for one more record on each session that is still there, and tells what became of all.
    /// Those on which it does not come within this time, and that before, are lost.
    pub fn verify(&self, within: Duration) -> Result<Outcome> {
        self.order(Talking::ask_to_verify)?;
        let deadline = Instant::now() + stretched(within);
        while Instant::now() < deadline && self.order(|talking| talking.unverified() > 0)? {
            thread::sleep(Duration::from_millis(20));
        }
        self.order(Talking::conclude)
    }

    /// Forgets how long sessions have waited so far.
    pub fn forget_stalls(&self) -> Result<()> {
        self.order(|talking| talking.talks.iter_mut().for_each(|one| one.longest = Duration::ZERO))
    }

    fn order<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Talking) -> T + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = mpsc::channel();
        let order = Box::new(move |talking: &mut Talking| drop(answer.send(what(talking))));
        let orders = self.orders.as_ref().expect("it is only taken by dropping");
        orders.send(order).ok().context("the sessions' thread has ended")?;
        result.recv().context("the sessions' thread has ended")
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's.
struct Talking {
    epoll: Epoll,
    /// The active ones first, then bulk, idle, and pushed.
    talks: Vec<Talk>,
    turns: [Turns; 2],
    load: Load,
    began: Instant,
    record: Vec<u8>,
}

/// Sessions that take turns in sending.
struct Turns {
    first: usize,
    count: usize,
    record: usize,
    period: Duration,
    /// How many turns were taken since the beginning.
    taken: u128,
}

/// How exactly records are sent at their time.
const TICK: Duration = Duration::from_millis(2);

impl Talking {
    fn go_on(mut self, orders: &Receiver<Order>) {
        let mut events = vec![EpollEvent::empty(); 512];
        let mut buffer = vec![0; 64 * 1024];
        let mut tick = Instant::now();
        loop {
            loop {
                match orders.try_recv() {
                    Ok(order) => order(&mut self),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let now = Instant::now();
            if now >= tick {
                self.take_turns(now);
                tick = now + TICK;
            }
            let patience = u8::try_from(TICK.as_millis()).expect("it is short");
            let ready = self.epoll.wait(&mut events, patience).unwrap_or(0);
            for event in &events[..ready] {
                let nth = usize::try_from(event.data()).expect("it is an index");
                let talk = &mut self.talks[nth];
                talk.go_on(&mut buffer);
                if talk.lost.is_some() {
                    let _ = self.epoll.delete(&talk.stream);
                }
            }
        }
    }

    /// Has those send whose turn has come.
    fn take_turns(&mut self, now: Instant) {
        let elapsed = now - self.began;
        for turns in self.turns.iter_mut().filter(|turns| turns.count > 0) {
            let due = elapsed.as_nanos() * turns.count as u128 / turns.period.as_nanos();
            while turns.taken < due {
                let nth = usize::try_from(turns.taken % turns.count as u128);
                let nth = turns.first + nth.expect("it is less than a count");
                self.talks[nth].send(turns.record, &mut self.record);
                turns.taken += 1;
            }
        }
    }

    fn ask_to_verify(&mut self) {
        for talk in &mut self.talks {
            talk.ask_to_verify(&mut self.record);
        }
    }

    fn unverified(&self) -> usize {
        self.talks.iter().filter(|talk| talk.lost.is_none() && !talk.is_verified()).count()
    }

    fn conclude(&mut self) -> Outcome {
        let mut outcome = Outcome { sessions: self.talks.len(), ..Outcome::default() };
        for (nth, talk) in self.talks.iter_mut().enumerate() {
            if talk.lost.is_none() && !talk.is_verified() {
                talk.lost = Some("Silent".to_owned());
                let _ = self.epoll.delete(&talk.stream);
            }
            outcome.corrupted += talk.corrupted;
            let longest = std::mem::take(&mut talk.longest);
            match &talk.lost {
                Some(why) => {
                    let kind = self.load.kind(nth);
                    *outcome.lost.entry(format!("{why} ({kind})")).or_default() += 1;
                }
                None if nth < self.load.active => outcome.stalls.push(longest),
                None => {}
            }
        }
        outcome.stalls.sort();
        outcome
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        for talk in &self.talks {
            // Leaves no TIME_WAIT, of which there would be thousands.
            let _ = close_by_reset(&talk.stream);
        }
    }
}
