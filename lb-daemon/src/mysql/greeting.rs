//! The greeting: what a server says first, without being asked.

use super::{
    error::{Error, readable},
    fields::Fields,
};

/// The only version of the protocol since MySQL 3.21.
const PROTOCOL: u8 = 10;
const ERROR: u8 = 0xff;

/// Length of the nonce, whose parts are in two places.
pub(super) const NONCE: usize = 20;
const FIRST_PART: usize = 8;

/// Bits of the server's capabilities, of which it sends the upper half by itself.
const PLUGIN_AUTH_UPPER: u16 = 1 << 3;

/// Before the version of a `MariaDB`, for replicas that know no version above 5.
const VERSION_PREFIX: &str = "5.5.5-";

/// Who the server is, and what a login begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// As the server calls it, `10.11.6-MariaDB`.
    pub(super) version: String,
    /// What a password is to be mixed with; [`NONCE`] bytes if the server can do more than MySQL 4.0.
    pub(super) nonce: Vec<u8>,
    /// How it would like to be convinced, before it knows of whom.
    pub(super) method: Vec<u8>,
}

impl Greeting {
    /// Reads it. An error packet in its place, of a server that does not want to talk to this host,
    /// is [`Error::Refused`].
    pub(super) fn parse(packet: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields::new(packet);
        match fields.u8()? {
            PROTOCOL => {}
            ERROR => return Err(Error::from_packet(fields.rest())),
            other => {
                let message = format!("a greeting of protocol version {other}, not {PROTOCOL}");
                return Err(Error::malformed(&message));
            }
        }
        let version = readable(fields.until_zero()?);
        let version = version.strip_prefix(VERSION_PREFIX).unwrap_or(&version).to_owned();
        let _thread = fields.bytes(4)?;
        let mut nonce = fields.bytes(FIRST_PART)?.to_vec();
        let _filler = fields.u8()?;
        let _capabilities = fields.u16()?;
        let mut greeting = Self { version, nonce: Vec::new(), method: Vec::new() };
        // What follows is not there in old servers.
        if let Ok((second_part, method)) = second_half(&mut fields) {
            nonce.extend(second_part);
            greeting.method = method.to_vec();
        }
        greeting.nonce = nonce;
        Ok(greeting)
    }
}

/// The rest of the nonce, and the method.
fn second_half<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], &'a [u8]), Error> {
    let _character_set = fields.u8()?;
    let _status = fields.u16()?;
    let capabilities = fields.u16()?;
    let _length_of_nonce = fields.u8()?;
    let _reserved = fields.bytes(10)?;
    let nonce = fields.bytes(NONCE - FIRST_PART)?;
    let _zero = fields.u8()?;
    if capabilities & PLUGIN_AUTH_UPPER == 0 {
        return Ok((nonce, &[]));
    }
    let method = fields.rest();
    // Some servers have forgotten the zero at the end.
    Ok((nonce, method.strip_suffix(&[0]).unwrap_or(method)))
}
