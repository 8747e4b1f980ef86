//! Certificates as bytes: elements of DER, each with its kind and its length before it.

const SEQUENCE: u8 = 0x30;

/// The same certificate of version 1: without the number of its version, and without extensions.
/// Its signature is not good any more.
pub(super) fn as_version_1(certificate: &[u8]) -> Vec<u8> {
    let parts = elements(content(certificate));
    let [signed, signature @ ..] = &parts[..] else { panic!("no certificate") };
    let fields = elements(content(signed));
    let [_version, fields @ .., _extensions] = &fields[..] else { panic!("no certificate") };
    sequence(&[&[&sequence(fields)[..]], signature].concat())
}

fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    let content = elements.concat();
    let [.., high, low] = content.len().to_be_bytes();
    [&[SEQUENCE, 0x82, high, low], &content[..]].concat()
}

/// The elements that follow each other in these bytes.
fn elements(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = bytes.split_at(header(bytes) + length(bytes));
        elements.push(element);
        bytes = rest;
    }
    elements
}

fn content(element: &[u8]) -> &[u8] {
    &element[header(element)..]
}

/// How many bytes the kind and the length of an element take.
fn header(element: &[u8]) -> usize {
    match element[1] {
        0..0x80 => 2,
        long => 2 + usize::from(long & 0x7f),
    }
}

fn length(element: &[u8]) -> usize {
    match element[1] {
        short @ 0..0x80 => short.into(),
        _ => element[2..header(element)].iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
    }
}
