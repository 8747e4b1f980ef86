//! One reason for everything that can happen to a packet.

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Rewritten and sent on, or answered, by the XDP program.
    Transmit,
    /// Left to the kernel's own stack.
    Pass,
    /// Discarded.
    Drop,
}

macro_rules! verdicts {
    ($($(#[doc = $doc:literal])+ $name:ident = $action:ident, $label:literal;)+) => {
        /// Why a packet was forwarded, answered, passed or dropped. The discriminant is the index
        /// of its counter.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Verdict {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Verdict {
            /// Every verdict, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The verdict with this counter index; `DropInternal` if there is none.
            #[inline(always)]
            pub const fn from_index(index: u32) -> Self {
                // A chain of comparisons that the compiler turns into nothing where the index is
                // a verdict's own.
                $(if index == Self::$name as u32 { return Self::$name; })+
                Self::DropInternal
            }

            /// What becomes of a packet with this verdict.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$name => Action::$action,)+ }
            }

            /// The name used in metrics and status, `snake_case`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }
        }
    };
}

verdicts! {
    /// From a client, on an existing flow, sent to its backend.
    ForwardClient = Transmit, "forward_client";
    /// From a backend, on an existing flow, sent to its client.
    ForwardServer = Transmit, "forward_server";
    /// The SYN that opened a flow, sent to the backend chosen for it.
    ForwardNew = Transmit, "forward_new";
    /// An ICMP error about a packet of an existing flow, sent to whom the packet came from.
    ForwardError = Transmit, "forward_error";
    /// Too large for the next link: answered with ICMP's "fragmentation needed" or "packet too
    /// big".
    ReplyTooBig = Transmit, "reply_too_big";
    /// No flow and not a SYN: answered with a RST, as a host without the connection does.
    ResetNoFlow = Transmit, "reset_no_flow";
    /// A SYN to a service none of whose backends is eligible: answered with a RST.
    ResetNoBackend = Transmit, "reset_no_backend";
    /// A SYN for which there was no place, and that waited for too long or found the queue full: answered
    /// with a RST.
    ResetNoPlace = Transmit, "reset_no_place";
    /// Neither IPv4 nor IPv6 (ARP, for one).
    PassNotIp = Pass, "pass_not_ip";
    /// Too short to hold its IP header.
    PassTruncated = Pass, "pass_truncated";
    /// More than two VLAN tags.
    PassVlan = Pass, "pass_vlan";
    /// An ICMP error that is not about a flow of ours, or no error at all.
    PassIcmp = Pass, "pass_icmp";
    /// An IP protocol other than TCP (ICMP, VRRP, UDP, ...).
    PassNotTcp = Pass, "pass_not_tcp";
    /// TCP to an address that is no virtual address of ours.
    PassNotOurs = Pass, "pass_not_ours";
    /// TCP to a virtual address, but to a port that no service has.
    PassNoService = Pass, "pass_no_service";
    /// To a virtual address, but shorter than its headers or than its length field says.
    DropTruncated = Drop, "drop_truncated";
    /// To a virtual address, with an impossible header length or version.
    DropMalformed = Drop, "drop_malformed";
    /// A fragment to a virtual address.
    DropFragment = Drop, "drop_fragment";
    /// IPv4 options, or an IPv6 extension header, to a virtual address.
    DropOptions = Drop, "drop_options";
    /// On a flow, too large for the next link, and nobody may be told (IPv4 without DF).
    DropTooBig = Drop, "drop_too_big";
    /// On a flow, but its hop limit ends here.
    DropHopLimit = Drop, "drop_hop_limit";
    /// A RST without a flow; a RST is never answered (RFC 9293, section 3.10.7.1).
    DropStrayReset = Drop, "drop_stray_reset";
    /// No flow and not a SYN, while unknown packets are to be dropped rather than answered.
    DropNoFlow = Drop, "drop_no_flow";
    /// A SYN with flags that no opening segment has (FIN or RST beside it).
    DropBadFlags = Drop, "drop_bad_flags";
    /// A new connection, but the flow table is full.
    DropTableFull = Drop, "drop_table_full";
    /// A new connection, but no translation port to its backend is free.
    DropNoPort = Drop, "drop_no_port";
    /// The next hop is not resolved, or no room is left for a new one.
    DropNoHop = Drop, "drop_no_hop";
    /// For an address of a group that another host has, or may have: this one has no lease on it.
    DropNoLease = Drop, "drop_no_lease";
    /// A backend's SYN-ACK that is held back until the peer knows of the connection. It is sent on after
    /// that, and counted once more then, by what becomes of it.
    DropHeld = Drop, "drop_held";
    /// A SYN that waits, because its service or all backends it may go to have as many connections as they
    /// may. It is sent on when there is a place, and counted once more then, by what becomes of it.
    DropQueued = Drop, "drop_queued";
    /// A SYN for which there is no place, and that cannot wait: the daemon is not there, or has more of them
    /// than it can take. The client sends its SYN again.
    DropNoPlace = Drop, "drop_no_place";
    /// A packet of a flow that another processor is just removing.
    DropDying = Drop, "drop_dying";
    /// A new connection, but another processor was just opening it too, or was for too long inserting
    /// one that shares its place
    /// in the flow table. The client sends its SYN again.
    DropBusy = Drop, "drop_busy";
    /// The program met a map entry it cannot explain, or the driver left no room to change a
    /// frame's length. Please report it.
    DropInternal = Drop, "drop_internal";
}

/// How many verdicts there are.
pub const COUNT: usize = Verdict::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_are_the_counter_indices() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
        }
    }

    #[test]
    fn labels_begin_with_their_action() {
        for verdict in Verdict::ALL {
            let label = verdict.label();
            let fits = match verdict.action() {
                Action::Transmit => {
                    ["forward_", "reply_", "reset_"].iter().any(|prefix| label.starts_with(prefix))
                }
                Action::Pass => label.starts_with("pass_"),
                Action::Drop => label.starts_with("drop_"),
            };
            assert!(fits, "{label}");
        }
    }
}
