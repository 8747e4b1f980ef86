//! Two sessions and a line between them that loses nothing: for the rules one by one.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    super::super::{Change, Connection, Message, Tuple},
    super::{Session, Settings, View, limits::Limits},
    address, hello, limits,
    model::Model,
    settings,
};

/// Two hosts. What they say is in `lines`, by who hears it, until it is handed over.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) sessions: [Session; 2],
    pub(super) tables: [Model; 2],
    pub(super) lines: [Vec<Message>; 2],
    /// All that each has said since this was last looked at.
    pub(super) said: [Vec<Message>; 2],
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(limits(), settings())
    }

    pub(super) fn with(limits: Limits, settings: Settings) -> Self {
        let now = Instant::now();
        let sessions = [0, 1].map(|number| {
            let mut session = Session::new(hello(number), settings, now);
            session.limits = limits;
            session
        });
        let tables = [0, 1].map(|_| Model::new(300, 1000));
        Self { now, sessions, tables, lines: [vec![], vec![]], said: [vec![], vec![]] }
    }

    pub(super) fn connect(&mut self) {
        for number in [0, 1] {
            let mut out = Vec::new();
            self.sessions[number].connected(self.now, &mut out);
            self.say(number, out);
        }
    }

    pub(super) fn disconnect(&mut self) {
        for number in [0, 1] {
            self.sessions[number].disconnected("cut", self.now);
            self.lines[number].clear();
        }
    }

    /// The daemon of a host dies, and another one finds its tables.
    pub(super) fn restart(&mut self, number: usize) {
        self.disconnect();
        self.sessions[number] = Session::new(hello(number), settings(), self.now);
        self.sessions[number].limits = limits();
    }

    fn say(&mut self, number: usize, out: Vec<Message>) {
        self.said[number].extend(out.iter().cloned());
        self.lines[1 - number].extend(out);
    }

    /// Has a host say what is due. Returns why the link is to be closed, if it is.
    pub(super) fn poll(&mut self, number: usize, room: usize) -> Option<String> {
        let mut out = Vec::new();
        let result = self.sessions[number].poll(&mut self.tables[number], room, self.now, &mut out);
        self.say(number, out);
        result.err().map(|error| error.to_string())
    }

    /// Hands a message over. Returns why the link is to be closed, if it is.
    pub(super) fn hand(&mut self, number: usize, message: Message) -> Option<String> {
        let mut out = Vec::new();
        let session = &mut self.sessions[number];
        let result = session.receive(message, &mut self.tables[number], self.now, &mut out);
        self.say(number, out);
        result.err().map(|refusal| refusal.why)
    }

    /// Hands over what was said to a host.
    pub(super) fn hear(&mut self, number: usize) -> Option<String> {
        let messages = std::mem::take(&mut self.lines[number]);
        messages.into_iter().find_map(|message| self.hand(number, message))
    }

    /// Goes on until nobody has anything to say.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            for number in [0, 1] {
                assert_eq!(self.poll(number, 100), None);
                assert_eq!(self.hear(1 - number), None);
            }
        }
        assert!(self.lines.iter().all(Vec::is_empty), "they do not end: {:?}", self.lines);
    }

    /// Lets time go by in small steps.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(500);
            self.settle();
        }
    }

    pub(super) fn serve(&mut self, number: usize, groups: &[&str]) {
        let groups: BTreeSet<String> = groups.iter().map(|&group| group.to_owned()).collect();
        let new = groups.difference(&self.tables[number].serving).cloned();
        self.tables[number].grace.extend(new);
        self.tables[number].serving = groups;
    }

    pub(super) fn view(&self, number: usize) -> View {
        self.sessions[number].view(self.now)
    }

    /// A client's packet opens a connection on a host.
    pub(super) fn open(&mut self, number: usize, tuple: Tuple) {
        self.tables[number].happens(Change::Is(connection(tuple)));
    }
}

pub(super) const fn connection(tuple: Tuple) -> Connection {
    Connection { tuple, state: 3, timestamp: 7 }
}

/// A connection of a client to group a (bind 1) or b (bind 2), with a translation of a host's.
pub(super) fn tuple(client: u16, bind: u16, source: u16) -> Tuple {
    Tuple {
        client: address(1, client),
        bind: address(2, bind),
        source: address(4, source),
        backend: address(3, 0),
    }
}
