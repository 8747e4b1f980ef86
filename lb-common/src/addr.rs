//! Addresses as they stand in packets: every value here is in network byte order.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::hash::absorb;

/// An IPv4 address, its four bytes in network order held in one word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct V4(pub u32);

/// An IPv6 address, its sixteen bytes in network order held in four words.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct V6(pub [u32; 4]);

/// A TCP port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Port(pub u16);

/// An Ethernet address.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

/// What the packet path needs to know of an address family's addresses.
///
/// The data plane is written once over this trait; `V4` and `V6` are its two instances.
pub trait Address: Copy + Eq + Default + fmt::Debug + 'static {
    /// Folds the address to one word for hashing.
    fn fold(self) -> u32;

    /// Adds both addresses of a tuple to a hash that is to be [finished](crate::hash) by others.
    fn absorb(hash: u64, by: u64, src: Self, dst: Self) -> u64;

    /// Zero for equal addresses, without a branch for each word of them.
    fn difference(self, other: Self) -> u32;

    /// The sum of the address' 16-bit words, as they stand in memory, for the Internet checksum.
    fn sum(self) -> u32;

    /// The standard library's form of the address.
    fn to_ip(self) -> IpAddr;

    /// The address in this family, or `None` if it belongs to the other.
    fn from_ip(ip: IpAddr) -> Option<Self>;
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl Address for V4 {
    #[inline(always)]
    fn fold(self) -> u32 {
        self.0
    }

    #[inline(always)]
    fn absorb(hash: u64, by: u64, src: Self, dst: Self) -> u64 {
        absorb(hash, by, pair(src.0, dst.0))
    }

    #[inline(always)]
    fn difference(self, other: Self) -> u32 {
        self.0 ^ other.0
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        (self.0 & 0xffff) + (self.0 >> 16)
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self.0.to_ne_bytes()))
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(Self(u32::from_ne_bytes(ip.octets()))),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for V6 {
    #[inline(always)]
    fn fold(self) -> u32 {
        let [a, b, c, d] = self.0;
        // Rotations keep addresses that differ by swapped words apart.
        a ^ b.rotate_left(7) ^ c.rotate_left(15) ^ d.rotate_left(22)
    }

    #[inline(always)]
    fn absorb(hash: u64, by: u64, src: Self, dst: Self) -> u64 {
        let (src, dst) = (src.0, dst.0);
        let hash = absorb(absorb(hash, by, pair(src[0], src[1])), by, pair(src[2], src[3]));
        absorb(absorb(hash, by, pair(dst[0], dst[1])), by, pair(dst[2], dst[3]))
    }

    #[inline(always)]
    fn difference(self, other: Self) -> u32 {
        let (one, two) = (self.0, other.0);
        (one[0] ^ two[0]) | (one[1] ^ two[1]) | (one[2] ^ two[2]) | (one[3] ^ two[3])
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        let [a, b, c, d] = self.0;
        V4(a).sum() + V4(b).sum() + V4(c).sum() + V4(d).sum()
    }

    fn to_ip(self) -> IpAddr {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        let IpAddr::V6(ip) = ip else { return None };
        let mut words = [0; 4];
        for (word, from) in words.iter_mut().zip(ip.octets().chunks_exact(4)) {
            *word = u32::from_ne_bytes([from[0], from[1], from[2], from[3]]);
        }
        Some(Self(words))
    }
}

impl Port {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(host_order: u16) -> Self {
        Self(host_order.to_be())
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl fmt::Debug for V4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for V6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.2.2.4", "0.0.0.0", "255.255.255.255"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(V4::from_ip(ip).unwrap().to_ip(), ip);
            assert_eq!(V6::from_ip(ip), None);
        }
        for text in ["fd00::4", "::", "2001:db8:1:2:3:4:5:6"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(V6::from_ip(ip).unwrap().to_ip(), ip);
            assert_eq!(V4::from_ip(ip), None);
        }
    }

    #[test]
    fn bytes_in_memory_are_in_network_order() {
        let V4(word) = V4::from_ip(IpAddr::from([10, 2, 3, 4])).unwrap();
        assert_eq!(word.to_ne_bytes(), [10, 2, 3, 4]);
        assert_eq!(Port::new(3306).0.to_ne_bytes(), [0x0c, 0xea]);
        assert_eq!(Port::new(3306).get(), 3306);
    }
}
