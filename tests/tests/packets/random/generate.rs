//! Packets at random, most of them nearly right.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use lb_daemon::dataplane::{Simulated, XdpAction};
use tests::lab::Family;

use crate::{
    asking::{self, REPLY, REQUEST},
    frame::{ACK, FIN, Frame, IP, PSH, QINQ, RST, SYN, Segment, TCP, VLAN},
    message::Message,
    net::{BACKEND, Net},
    verify,
};

/// Translations that are remembered, to answer as their backends, and packets, for errors.
const REMEMBERED: usize = 256;

const ASK: &[fn(&Net, Ipv6Addr) -> Frame] =
    &[asking::solicitation, asking::verification, asking::advertisement];

pub(super) struct Generator {
    nets: [Net; 2],
    random: Random,
    /// What backends see: the client's translation and the backend.
    translations: Vec<(SocketAddr, SocketAddr)>,
    /// IP packets that were sent on.
    sent: Vec<Vec<u8>>,
}

impl Generator {
    pub(super) fn new(nets: [Net; 2], seed: u64) -> Self {
        Self { nets, random: Random::new(seed), translations: Vec::new(), sent: Vec::new() }
    }

    pub(super) fn next(&mut self) -> Frame {
        if self.random.chance(2) {
            return self.noise();
        }
        let segment = match self.translation() {
            Some((client, backend)) => self.backend_segment(client, backend),
            None => self.client_segment(),
        };
        let segment = self.vary(segment);
        let segment = if self.random.chance(8) { self.oddity(segment) } else { segment };
        let frame = if self.random.chance(15) { self.error() } else { segment.frame() };
        let frame = if self.random.chance(3) { self.question() } else { frame };
        let frame = if self.random.chance(15) { self.tag(frame) } else { frame };
        if self.random.chance(15) { self.mutate(frame) } else { frame }
    }

    /// Remembers what a backend would answer to, and what an error may be about.
    pub(super) fn learn(&mut self, done: &Simulated) {
        let sent = matches!(done.action, XdpAction::Tx | XdpAction::Redirect);
        if !sent || verify::find(&done.frame).is_ok_and(|found| found.protocol != TCP) {
            return;
        }
        let ip_at = verify::ip_at(&done.frame).expect("the judge found it");
        let packet = &done.frame[ip_at..];
        self.random.keep(&mut self.sent, packet.to_vec());
        if done.frame[..6] == BACKEND {
            self.random.keep(&mut self.translations, ends(packet));
        }
    }

    /// An ICMP message about a packet that was sent on, to whom it seemed to come from.
    fn error(&mut self) -> Frame {
        let random = &mut self.random;
        let Some(packet) = random.pick_any(&self.sent) else { return self.noise() };
        let (from, to) = ends(packet);
        let net = &self.nets[usize::from(from.is_ipv6())];
        let mut outer = net.server();
        (outer.from, outer.to) = (to, from);
        if random.chance(50) {
            outer = outer.src(net.elsewhere());
        }
        if random.chance(5) {
            outer = outer.hops(random.byte() % 4);
        }
        let kinds: &[u8] = if from.is_ipv4() { &[3, 3, 11, 12, 5, 8] } else { &[1, 2, 3, 4, 128] };
        let kind = (*random.pick(kinds), random.byte() % 16, random.word());
        let message = Message::quoting(packet, outer, kind);
        let quoted = random.below(60);
        let message = if random.chance(60) { message.quotes(quoted) } else { message };
        let wrong = random.chance(5);
        if wrong { message.wrong_by(random.short()).frame() } else { message.frame() }
    }

    /// Somebody asks who has an address, or says so.
    fn question(&mut self) -> Frame {
        let random = &mut self.random;
        let net = random.pick(&self.nets);
        let known = [net.vip.ip(), net.source.ip(), net.elsewhere(), net.client.ip()];
        match (*random.pick(&known), *random.pick(&known)) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                asking::arp(net, *random.pick(&[REQUEST, REQUEST, REPLY]), one, other)
            }
            (IpAddr::V6(one), _) => random.pick(ASK)(net, one),
            _ => unreachable!("they are of one family"),
        }
    }

    /// In one VLAN of a few, or in two.
    fn tag(&mut self, frame: Frame) -> Frame {
        let random = &mut self.random;
        let mut number = || random.small(3) | random.small(8) << 13;
        let (inner, outer) = (number(), number());
        let frame = frame.tagged(VLAN, inner);
        if random.chance(50) { frame.tagged(*random.pick(&[VLAN, QINQ]), outer) } else { frame }
    }

    /// What a backend is to answer to, now and then.
    fn translation(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        if self.translations.is_empty() || !self.random.chance(40) {
            return None;
        }
        let place = self.random.below(self.translations.len());
        Some(self.translations[place])
    }

    fn client_segment(&mut self) -> Segment {
        let which = self.random.below(2);
        let net = &self.nets[which];
        let random = &mut self.random;
        let number = random.small(8);
        let client = Net::new(net.family, number, (net.front, net.back)).client.ip();
        let mut segment = net
            .client()
            .src(client)
            .sport(40_000 + random.small(48))
            .src_mac([2, 0, 0, 0, 1, random.byte() % 16])
            .dport(*random.pick(&[443, 443, 443, 81, 81, 82, 82, 80, 22]));
        if random.chance(3) {
            segment = segment.dst(net.elsewhere());
        }
        if random.chance(5) {
            segment = segment.by(net.back);
        }
        let flags = *random.pick(&[SYN, SYN, SYN, ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK]);
        segment.flags(flags)
    }

    fn backend_segment(&mut self, client: SocketAddr, backend: SocketAddr) -> Segment {
        let net = &self.nets[usize::from(client.is_ipv6())];
        let random = &mut self.random;
        let mut segment = net.server();
        (segment.from, segment.to) = (backend, client);
        let flags =
            *random.pick(&[SYN | ACK, SYN | ACK, ACK, PSH | ACK, FIN | ACK, FIN | ACK, RST]);
        segment.flags(flags)
    }

    /// Fields that any segment may have.
    fn vary(&mut self, segment: Segment) -> Segment {
        let random = &mut self.random;
        let mut segment = segment.seq(random.word()).ack(random.word()).class(random.byte());
        if random.chance(10) {
            segment = segment.flags(random.byte());
        }
        if random.chance(50) {
            let most = if random.chance(5) { 1600 } else { 40 };
            segment = segment.data(&random.bytes(most));
        }
        if random.chance(30) {
            let words = random.below(11);
            segment = segment.options(&random.exactly(words * 4));
        } else if random.chance(50) {
            segment = segment.options(&random.timestamps());
        }
        if random.chance(5) {
            segment = segment.hops(random.byte() % 4);
        }
        if random.chance(10) {
            let (window, urgent) = (random.short(), random.short());
            segment = segment.window(window).urgent(urgent).reserved(random.byte() & 0xf);
        }
        let (id, label) = (random.short(), random.word() & 0xf_ffff);
        segment = segment.id(id).flow_label(label);
        if random.chance(10) {
            segment = segment.may_fragment();
        }
        if random.chance(20) { segment.padding(random.below(12)) } else { segment }
    }

    /// Something that a segment to a service should not have.
    fn oddity(&mut self, segment: Segment) -> Segment {
        let v4 = segment.from.is_ipv4();
        let random = &mut self.random;
        match random.below(7) {
            0 => segment.fragment(random.short() & 0x1fff, random.chance(50)),
            1 if v4 => {
                let words = 1 + random.below(10);
                segment.ip_options(&random.exactly(words * 4))
            }
            1 => {
                let number = *random.pick(&[0, 43, 44, 60]);
                segment.extension(number, &random.exactly(8))
            }
            2 => segment.protocol(*random.pick(&[1, 17, 41, 44, 58, 60, 112, 255])),
            3 => segment.claims(random.below(100)),
            4 => segment.wrong_by(random.short()),
            5 => segment.checksum(*random.pick(&[0, 0xffff])),
            _ => segment.flags(SYN | FIN),
        }
    }

    /// Damage that is done to a whole frame.
    fn mutate(&mut self, mut frame: Frame) -> Frame {
        let random = &mut self.random;
        let length = frame.bytes.len();
        match random.below(5) {
            0 => frame.bytes.truncate(IP + random.below(length - IP)),
            1 => frame.bytes[IP + 2 + random.below(4)] = random.byte(),
            2 => return frame.tagged(*random.pick(&[VLAN, QINQ]), random.short()),
            3 => {
                // In the headers, where it matters.
                for _ in 0..=random.below(3) {
                    let at = random.below(length.min(80));
                    frame.bytes[at] ^= 1 << random.below(8);
                }
            }
            _ => {
                for _ in 0..=random.below(4) {
                    let at = random.below(length);
                    frame.bytes[at] = random.byte();
                }
            }
        }
        frame
    }

    /// A frame of no sense at all, though it may say what it is.
    fn noise(&mut self) -> Frame {
        let random = &mut self.random;
        let mut bytes = random.exactly(IP);
        bytes.extend(random.bytes(200));
        match random.below(3) {
            0 => bytes[12..14].copy_from_slice(&[0x08, 0x00]),
            1 => bytes[12..14].copy_from_slice(&[0x86, 0xdd]),
            _ => {}
        }
        Frame { bytes, ifindex: self.nets[0].front }
    }
}

/// Sender and receiver of a segment in an IP packet.
fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let address = |at: usize, family: Family| -> IpAddr {
        match family {
            Family::V4 => <[u8; 4]>::try_from(&packet[at..at + 4]).expect("4 bytes").into(),
            Family::V6 => <[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes").into(),
        }
    };
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[0] >> 4 == 4 {
        let ips = (address(12, Family::V4), address(16, Family::V4));
        ((ips.0, port(20)).into(), (ips.1, port(22)).into())
    } else {
        let ips = (address(8, Family::V6), address(24, Family::V6));
        ((ips.0, port(40)).into(), (ips.1, port(42)).into())
    }
}

/// `SplitMix64`: the same packets for the same seed, on every machine.
pub(super) struct Random(u64);

impl Random {
    /// Neighbouring seeds begin far from each other.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn long(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn word(&mut self) -> u32 {
        let [.., a, b, c, d] = self.long().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn short(&mut self) -> u16 {
        let [.., a, b] = self.long().to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    fn byte(&mut self) -> u8 {
        self.short().to_be_bytes()[0]
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.word() as usize % limit
    }

    fn small(&mut self, limit: u16) -> u16 {
        self.short() % limit
    }

    /// True so many times in a hundred.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.word() % 100 < percent
    }

    fn pick<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }

    fn pick_any<'a, T>(&mut self, choice: &'a [T]) -> Option<&'a T> {
        if choice.is_empty() { None } else { Some(self.pick(choice)) }
    }

    /// Keeps it among the last few hundred.
    fn keep<T>(&mut self, among: &mut Vec<T>, value: T) {
        if among.len() < REMEMBERED {
            among.push(value);
        } else {
            among[self.below(REMEMBERED)] = value;
        }
    }

    /// TCP options with timestamps among them.
    fn timestamps(&mut self) -> Vec<u8> {
        let before: [&[u8]; 5] = [&[1, 1], &[1, 1], &[2, 4, 5, 0xb4, 4, 2], &[], &[1]];
        let mut options = self.pick(&before).to_vec();
        options.extend([8, 10]);
        options.extend(self.exactly(8));
        options.extend(self.bytes(10));
        options.resize(options.len().next_multiple_of(4), 1);
        options
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let words = length.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.long().to_be_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most + 1);
        self.exactly(length)
    }
}
