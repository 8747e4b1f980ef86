//! Who is where: clients before, backends behind.
//!
//! ```text
//!  client ──(its router)── front │ Tandem │ back ── backend
//!         client() ──►                 to_backend() ──►
//!      ◄── to_client()                 ◄── server()
//! ```

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lb_common::{addr, maps::NextHop};
use lb_daemon::{
    config::{Balance, Limits, Timeouts},
    core::{Desired, DesiredBackend, DesiredService, Slots},
};
use tests::lab::Family;

use crate::{
    frame::{Frame, IP, Mac, Segment},
    row::Row,
};

/// The router that the clients are behind.
pub(crate) const ROUTER: Mac = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const FRONT: Mac = [0x02, 0, 0, 0, 0, 0x0f];
pub(crate) const BACK: Mac = [0x02, 0, 0, 0, 0, 0x0b];
pub(crate) const BACKEND: Mac = [0x02, 0, 0, 0, 0, 0xbe];

/// The first translation port, of which there are enough.
pub(crate) const FIRST_PORT: u16 = 1024;

/// The hosts of one row. Client and backend have the row's number in their addresses, so that no
/// row sees another one's connections.
#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) family: Family,
    pub(crate) number: u16,
    /// Interface towards the clients.
    pub(crate) front: u32,
    /// Interface towards the backends.
    pub(crate) back: u32,
    pub(crate) client: SocketAddr,
    pub(crate) vip: SocketAddr,
    /// What the backend sees instead of the client; the port is the first.
    pub(crate) source: SocketAddr,
    pub(crate) backend: SocketAddr,
}

impl Net {
    pub(crate) fn new(family: Family, number: u16, (front, back): (u32, u32)) -> Self {
        let [high, low] = number.to_be_bytes();
        let ip = |v4: [u8; 4], v6: [u16; 8]| match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(v4)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(v6)),
        };
        let client = ip([10, 1, high, low], [0x2001, 0xdb8, 1, 0, 0, 0, 0, number]);
        let vip = ip([192, 0, 2, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let source = ip([10, 2, 255, 254], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xfffe]);
        let backend = ip([10, 2, high, low], [0x2001, 0xdb8, 2, 0, 0, 0, 0, number]);
        Self {
            family,
            number,
            front,
            back,
            client: (client, 40_000).into(),
            vip: (vip, 443).into(),
            source: (source, FIRST_PORT).into(),
            backend: (backend, 8080).into(),
        }
    }

    /// Another address on the virtual one's network, that is nobody's.
    pub(crate) fn elsewhere(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, 99).into(),
            Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 99).into(),
        }
    }

    /// From the client as it arrives.
    pub(crate) fn client(&self) -> Segment {
        Segment::new(self.front, (FRONT, ROUTER), self.client, self.vip)
    }

    /// From the client as the backend gets it.
    pub(crate) fn to_backend(&self) -> Segment {
        Segment::new(self.back, (BACKEND, BACK), self.source, self.backend).hops(63)
    }

    /// From the backend as it arrives.
    pub(crate) fn server(&self) -> Segment {
        Segment::new(self.back, (BACK, BACKEND), self.backend, self.source).seq(0x2000_0000)
    }

    /// From the backend as the client gets it.
    pub(crate) fn to_client(&self) -> Segment {
        Segment::new(self.front, (ROUTER, FRONT), self.vip, self.client).seq(0x2000_0000).hops(63)
    }

    /// A RST of Tandem's own to the client.
    pub(crate) fn reset(&self) -> Segment {
        self.to_client().rst().seq(0).window(0).id(0).hops(64)
    }

    /// A SYN has come.
    pub(crate) fn opened(&self) -> Vec<Frame> {
        vec![self.client().syn().frame()]
    }

    /// And was answered.
    pub(crate) fn answered(&self) -> Vec<Frame> {
        self.opened().and(self.server().syn_ack())
    }

    /// And the answer was acknowledged.
    pub(crate) fn established(&self) -> Vec<Frame> {
        self.answered().and(self.client().plain())
    }

    /// Both sides have closed, the client first.
    pub(crate) fn closed(&self) -> Vec<Frame> {
        self.established().and(self.client().fin()).and(self.server().fin())
    }

    /// Where the TCP header is in a frame.
    pub(crate) fn tcp(&self) -> usize {
        match self.family {
            Family::V4 => IP + 20,
            Family::V6 => IP + 40,
        }
    }

    /// One service with one backend; that one has the row's number.
    pub(crate) fn desired(&self) -> Desired {
        Desired {
            services: BTreeMap::from([(0, self.service())]),
            backends: BTreeMap::from([(self.number, self.desired_backend())]),
            ..Desired::default()
        }
    }

    fn service(&self) -> DesiredService {
        const LONG: Duration = Duration::from_secs(3600);
        DesiredService {
            bind: vec![self.vip],
            balance: Balance::RoundRobin,
            slots: Slots(vec![self.number].into()),
            maxconn: None,
            timeout: Timeouts {
                connect: LONG,
                queue: LONG,
                client: LONG,
                server: LONG,
                client_fin: LONG,
                server_fin: LONG,
            },
            group: 0,
            synchronous: false,
        }
    }

    fn desired_backend(&self) -> DesiredBackend {
        DesiredBackend {
            service: 0,
            address: self.backend,
            weight: 1,
            limits: Limits::default(),
            sources: vec![self.source.ip()],
            error_limit: None,
            hop: NextHop {
                ifindex: self.back,
                src: addr::Mac(BACK),
                dst: addr::Mac(BACKEND),
                ..NextHop::default()
            },
        }
    }

    /// Begins a row: what came before its packet.
    pub(crate) fn given(&self, before: Vec<Frame>) -> Row {
        Row::new(self, before)
    }

    /// Begins a row with nothing before its packet.
    pub(crate) fn when(&self, packet: impl Into<Frame>) -> Row {
        self.given(Vec::new()).when(packet)
    }
}

/// Frames one after the other.
pub(crate) trait And {
    /// And then this one.
    fn and(self, frame: impl Into<Frame>) -> Self;
}

impl And for Vec<Frame> {
    fn and(mut self, frame: impl Into<Frame>) -> Self {
        self.push(frame.into());
        self
    }
}
