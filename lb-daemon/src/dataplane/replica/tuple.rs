//! A connection's addresses as both hosts write them, and its keys in the flow table.

use lb_common::{
    addr::Address,
    flow::{DEAD, Flow, FlowKey, HELD, RELEASED, RESET, is_told, state},
};

use crate::{
    core::sync::{Connection, Tuple},
    dataplane::family::{Family, join},
};

/// The keys of both entries of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Keys<A> {
    /// Client to virtual address.
    pub(in crate::dataplane) forward: FlowKey<A>,
    /// Backend to source address.
    pub(in crate::dataplane) reverse: FlowKey<A>,
}

impl<A: Address> Keys<A> {
    /// What a forward entry says.
    pub(super) fn of(flow: &Flow<A>) -> Self {
        Self { forward: flow.key, reverse: flow.to.pair_key() }
    }

    pub(super) fn tuple(&self) -> Tuple {
        let Self { forward, reverse } = self;
        Tuple {
            client: join(forward.src, forward.sport),
            bind: join(forward.dst, forward.dport),
            source: join(reverse.dst, reverse.dport),
            backend: join(reverse.src, reverse.sport),
        }
    }
}

impl<A: Family> Keys<A> {
    /// The keys in this family; nothing if an address is of the other.
    pub(in crate::dataplane) fn split(tuple: &Tuple) -> Option<Self> {
        let key = |from, to| {
            let ((src, sport), (dst, dport)) = (A::split(from)?, A::split(to)?);
            Some(FlowKey { src, dst, sport, dport })
        };
        let (forward, reverse) =
            (key(tuple.client, tuple.bind)?, key(tuple.backend, tuple.source)?);
        Some(Self { forward, reverse })
    }
}

/// The connection that a forward entry is of, if it is one that both hosts are to have.
pub(super) fn kept<A: Address>(flow: &Flow<A>) -> Option<Connection> {
    let state = state(flow.life);
    let counts = flow.is_forward() && state & DEAD == 0 && is_told(state);
    counts.then(|| connection(flow))
}

/// The connection that a forward entry is of, as the peer is to know it: not as reset.
pub(in crate::dataplane) fn connection<A: Address>(flow: &Flow<A>) -> Connection {
    Connection {
        tuple: Keys::of(flow).tuple(),
        state: state(flow.life) & !(DEAD | RESET | HELD | RELEASED),
        timestamp: flow.timestamp,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::addr::{V4, V6};

    use super::*;

    #[test]
    fn a_tuple_survives_the_way_into_the_table_and_back() {
        let v4 = ["198.51.100.7:40000", "192.0.2.1:443", "10.2.0.9:1024", "10.2.0.1:8080"];
        let v6 = ["[2001:db8::7]:40000", "[2001:db8::1]:443", "[fd00::9]:1024", "[fd00::1]:80"];
        let tuple = |ends: [&str; 4]| {
            let [client, bind, source, backend] = ends.map(|end| end.parse().unwrap());
            Tuple { client, bind, source, backend }
        };
        let (v4, v6) = (tuple(v4), tuple(v6));
        assert_eq!(Keys::<V4>::split(&v4).unwrap().tuple(), v4);
        assert_eq!(Keys::<V6>::split(&v6).unwrap().tuple(), v6);
        assert_eq!(Keys::<V6>::split(&v4), None);
        assert_eq!(Keys::<V4>::split(&Tuple { backend: v6.backend, ..v4 }), None);
    }
}
