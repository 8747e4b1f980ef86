//! Messages to bytes.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{ANSWERED, FRAME, GONE, LENGTH, Unfit, V6, field, kind};
use crate::core::sync::{Change, Connection, Hello, Message, Scope, Tuple};

/// Appends a message to `out`, as one frame.
///
/// # Errors
///
/// If it cannot be told; `out` is then as it was.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let start = out.len();
    let result = frame(message, out, start);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn frame(message: &Message, out: &mut Vec<u8>, start: usize) -> Result<(), Unfit> {
    out.extend([0; LENGTH]);
    body(message, out)?;
    let length = out.len() - start;
    if length > FRAME {
        return Err(Unfit::TooLong);
    }
    let length = u32::try_from(length - LENGTH).map_err(|_| Unfit::TooLong)?;
    out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn body(message: &Message, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match message {
        Message::Hello(said) => {
            out.push(kind::HELLO);
            hello(said, out)?;
        }
        Message::Changes(changes) => {
            out.push(kind::CHANGES);
            changes.iter().try_for_each(|one| change(one, out))?;
        }
        Message::TransferBegins { id, scope: of, served } => {
            out.push(kind::TRANSFER_BEGINS);
            out.extend(id.to_be_bytes());
            scope(of, out)?;
            names(served, out)?;
        }
        Message::Transfer(connections) => {
            out.push(kind::TRANSFER);
            connections.iter().try_for_each(|one| connection(one, 0, out))?;
        }
        Message::TransferEnds { id } => {
            out.push(kind::TRANSFER_ENDS);
            out.extend(id.to_be_bytes());
        }
        Message::TransferDone { id } => {
            out.push(kind::TRANSFER_DONE);
            out.extend(id.to_be_bytes());
        }
        Message::Want(of) => {
            out.push(kind::WANT);
            scope(of, out)?;
        }
        Message::Digest { group, digest } => {
            out.push(kind::DIGEST);
            name(group, out)?;
            out.extend(digest.0.iter().flat_map(|sum| sum.to_be_bytes()));
        }
        Message::Serving(groups) => {
            out.push(kind::SERVING);
            names(groups, out)?;
        }
        Message::Ack { number, refused } => {
            out.push(kind::ACK);
            out.extend(number.to_be_bytes());
            out.extend(refused.to_be_bytes());
        }
        Message::Alive => out.push(kind::ALIVE),
        Message::Bye(why) => {
            out.push(kind::BYE);
            out.extend(why.as_bytes());
        }
    }
    Ok(())
}

fn hello(hello: &Hello, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Hello { versions, program, node, source_ports, groups } = hello;
    out.extend([versions.start(), versions.end()].iter().flat_map(|version| version.to_be_bytes()));
    let mut list = Vec::new();
    names(groups, &mut list)?;
    let ports = [source_ports.start().to_be_bytes(), source_ports.end().to_be_bytes()].concat();
    let fields = [
        (field::PROGRAM, program.as_bytes()),
        (field::NODE, node.as_bytes()),
        (field::SOURCE_PORTS, &ports),
        (field::GROUPS, &list),
    ];
    for (tag, value) in fields {
        out.push(tag);
        counted(value, out)?;
    }
    Ok(())
}

fn change(change: &Change, out: &mut Vec<u8>) -> Result<(), Unfit> {
    match change {
        Change::Is(one) => connection(one, 0, out),
        Change::Answered(one) => connection(one, ANSWERED, out),
        Change::Gone(one) => tuple(one, GONE, out),
    }
}

fn connection(connection: &Connection, what: u8, out: &mut Vec<u8>) -> Result<(), Unfit> {
    tuple(&connection.tuple, what, out)?;
    out.push(connection.state);
    out.extend(connection.timestamp.to_be_bytes());
    Ok(())
}

fn tuple(tuple: &Tuple, what: u8, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let Tuple { client, bind, source, backend } = tuple;
    let all = [client, bind, source, backend];
    if all.iter().any(|one| one.is_ipv6() != client.is_ipv6()) {
        return Err(Unfit::Families);
    }
    out.push(what | if client.is_ipv6() { V6 } else { 0 });
    for one in all {
        address(one, out);
    }
    Ok(())
}

fn address(address: &SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(address.port().to_be_bytes());
}

fn scope(scope: &Scope, out: &mut Vec<u8>) -> Result<(), Unfit> {
    names(&scope.groups, out)?;
    let mut bits = [0_u8; 32];
    for bucket in &scope.buckets {
        bits[usize::from(bucket / 8)] |= 1 << (bucket % 8);
    }
    out.extend(bits);
    Ok(())
}

fn names(names: &BTreeSet<String>, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let count = u16::try_from(names.len()).map_err(|_| Unfit::TooLong)?;
    out.extend(count.to_be_bytes());
    names.iter().try_for_each(|one| name(one, out))
}

fn name(name: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
    counted(name.as_bytes(), out)
}

fn counted(value: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
    let length = u16::try_from(value.len()).map_err(|_| Unfit::TooLong)?;
    out.extend(length.to_be_bytes());
    out.extend(value);
    Ok(())
}
