//! Bytes to messages. Whatever comes in, nothing here panics, and nothing is allocated that is not
//! a small multiple of the bytes that are there.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use super::{ANSWERED, FRAME, GONE, LENGTH, Malformed, V6, field, kind};
use crate::core::sync::{Change, Connection, Digest, Hello, Message, Scope, Tuple};

/// Reads the message at the beginning of `bytes`, and says how many bytes it took; nothing if there
/// is not all of it yet.
///
/// # Errors
///
/// If that is no message, and never will be.
pub fn decode(bytes: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    let malformed = Malformed::Frame(length);
    let length = usize::try_from(length).map_err(|_| malformed)?;
    if !(1..=FRAME - LENGTH).contains(&length) {
        return Err(malformed);
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let (kind, body) = frame.split_first().ok_or(malformed)?;
    let mut reader = Reader { kind: *kind, rest: body };
    let message = reader.message()?;
    reader.end()?;
    Ok(Some((message, LENGTH + length)))
}

/// What is left of a body.
struct Reader<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn message(&mut self) -> Result<Message, Malformed> {
        Ok(match self.kind {
            kind::HELLO => Message::Hello(self.hello()?),
            kind::CHANGES => Message::Changes(self.all(Self::change)?),
            kind::TRANSFER_BEGINS => {
                let (id, scope, served) = (self.u32()?, self.scope()?, self.names()?);
                Message::TransferBegins { id, scope, served }
            }
            kind::TRANSFER => Message::Transfer(self.all(|reader| match reader.change()? {
                Change::Is(connection) => Ok(connection),
                Change::Gone(_) | Change::Answered(_) => Err(reader.bad("connection")),
            })?),
            kind::TRANSFER_ENDS => Message::TransferEnds { id: self.u32()? },
            kind::TRANSFER_DONE => Message::TransferDone { id: self.u32()? },
            kind::WANT => Message::Want(self.scope()?),
            kind::DIGEST => {
                let group = self.name()?;
                let mut digest = Box::new(Digest([0; 256]));
                for sum in &mut digest.0 {
                    *sum = self.u64()?;
                }
                Message::Digest { group, digest }
            }
            kind::SERVING => Message::Serving(self.names()?),
            kind::ACK => Message::Ack { number: self.u64()?, refused: self.u32()? },
            kind::ALIVE => Message::Alive,
            kind::BYE => {
                let text = std::mem::take(&mut self.rest);
                Message::Bye(self.text(text, "reason")?)
            }
            unknown => return Err(Malformed::Kind(unknown)),
        })
    }

    fn hello(&mut self) -> Result<Hello, Malformed> {
        let versions = self.range("range of versions")?;
        let (mut program, mut node) = (String::new(), String::new());
        let mut source_ports = None;
        let mut groups = BTreeSet::new();
        let mut seen = BTreeSet::new();
        while !self.rest.is_empty() {
            let tag = self.u8()?;
            let value = self.counted()?;
            if !seen.insert(tag) {
                return Err(self.bad("field"));
            }
            let mut reader = Self { kind: self.kind, rest: value };
            match tag {
                field::PROGRAM => program = self.text(value, "program")?,
                field::NODE => node = self.text(value, "node")?,
                field::SOURCE_PORTS => {
                    source_ports = Some(reader.range("range of ports")?);
                    reader.end()?;
                }
                field::GROUPS => {
                    groups = reader.names()?;
                    reader.end()?;
                }
                _ => {}
            }
        }
        let source_ports = source_ports.ok_or_else(|| self.bad("range of ports"))?;
        Ok(Hello { versions, program, node, source_ports, groups })
    }

    fn change(&mut self) -> Result<Change, Malformed> {
        let what = self.u8()?;
        if what & !(V6 | GONE | ANSWERED) != 0 || what & (GONE | ANSWERED) == GONE | ANSWERED {
            return Err(self.bad("change"));
        }
        let is_v6 = what & V6 != 0;
        let tuple = Tuple {
            client: self.address(is_v6)?,
            bind: self.address(is_v6)?,
            source: self.address(is_v6)?,
            backend: self.address(is_v6)?,
        };
        if what & GONE != 0 {
            return Ok(Change::Gone(tuple));
        }
        let connection = Connection { tuple, state: self.u8()?, timestamp: self.u32()? };
        let is_answered = what & ANSWERED != 0;
        Ok(if is_answered { Change::Answered(connection) } else { Change::Is(connection) })
    }

    fn address(&mut self, is_v6: bool) -> Result<SocketAddr, Malformed> {
        let ip: IpAddr = if is_v6 {
            Ipv6Addr::from(self.array::<16>()?).into()
        } else {
            Ipv4Addr::from(self.array::<4>()?).into()
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    fn scope(&mut self) -> Result<Scope, Malformed> {
        let groups = self.names()?;
        let bits: [u8; 32] = self.array()?;
        let has = |bucket: &u8| bits[usize::from(bucket / 8)] & 1 << (bucket % 8) != 0;
        Ok(Scope { groups, buckets: (0..=u8::MAX).filter(has).collect() })
    }

    fn names(&mut self) -> Result<BTreeSet<String>, Malformed> {
        let count = self.u16()?;
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let name = self.name()?;
            if names.last().is_some_and(|last| *last >= name) {
                return Err(self.bad("order of names"));
            }
            names.insert(name);
        }
        Ok(names)
    }

    fn name(&mut self) -> Result<String, Malformed> {
        let bytes = self.counted()?;
        self.text(bytes, "name")
    }

    fn range(&mut self, what: &'static str) -> Result<RangeInclusive<u16>, Malformed> {
        let (first, last) = (self.u16()?, self.u16()?);
        if first > last { Err(self.bad(what)) } else { Ok(first..=last) }
    }

    fn text(&self, bytes: &[u8], what: &'static str) -> Result<String, Malformed> {
        let text = str::from_utf8(bytes).map_err(|_| self.bad(what))?;
        Ok(text.to_owned())
    }

    fn all<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let mut all = Vec::new();
        while !self.rest.is_empty() {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        let (value, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (value, rest) = self.rest.split_first_chunk().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*value)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Long(self.kind)) }
    }

    fn short(&self) -> Malformed {
        Malformed::Short(self.kind)
    }

    fn bad(&self, what: &'static str) -> Malformed {
        Malformed::Value(self.kind, what)
    }
}
