//! The login: who we are, and as many answers as the server asks for.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Transport,
    error::{Error, readable},
    fields::Fields,
    greeting::{Greeting, NONCE},
    method::Method,
    packets::Packets,
};
use crate::config::MysqlLogin;

/// What this client can do, as bits: long passwords and column flags (of 4.0), the protocol of 4.1,
/// transactions, passwords that are not of 3.x, and methods by name.
const CAPABILITIES: u32 = 1 | 1 << 2 | 1 << 9 | 1 << 13 | 1 << 15 | 1 << 19;
/// Longest packet that the server may send, in bytes: it may not believe it.
const LONGEST_PACKET: u32 = 1 << 24;
/// `utf8mb4_general_ci`, which MySQL and `MariaDB` both have.
const CHARACTER_SET: u8 = 45;

/// First bytes of what a server says to a login.
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// What `caching_sha2_password` says after [`MORE`].
const CACHED: u8 = 0x03;
const WANTS_PASSWORD: u8 = 0x04;

/// More often no server asks.
const MOST_ROUNDS: usize = 6;

const ANSWER: &str = "an answer to the login";

/// Logs in, to no database.
pub(super) async fn login<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    greeting: &Greeting,
    login: &MysqlLogin,
    transport: Transport,
) -> Result<(), Error> {
    if greeting.nonce.len() < NONCE {
        return Err(Error::Unsupported(
            "a server from before MySQL 4.1 can't be logged in to".into(),
        ));
    }
    let password = login.password.reveal().as_bytes();
    // A user's method may be another one, which the server says then.
    let method = Method::named(&greeting.method).unwrap_or(Method::Native);
    let answer = method.answer(password, &greeting.nonce);
    packets.write(&response(&login.user, method, &answer)).await?;
    for _ in 0..MOST_ROUNDS {
        let packet = packets.read(ANSWER).await?;
        match *packet.as_slice() {
            [OK, ..] => return Ok(()),
            [ERROR, ref error @ ..] => return Err(Error::from_packet(error)),
            [SWITCH, ref request @ ..] => {
                let answer = switch(request, password)?;
                packets.write(&answer).await?;
            }
            [MORE, CACHED] => {}
            [MORE, WANTS_PASSWORD] => {
                packets.write(&plain_password(password, transport)?).await?;
            }
            _ => return Err(Error::malformed("the answer to the login is none")),
        }
    }
    Err(Error::malformed("the login comes to no end"))
}

/// The packet that follows the greeting.
fn response(user: &str, method: Method, answer: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(CAPABILITIES.to_le_bytes());
    packet.extend(LONGEST_PACKET.to_le_bytes());
    packet.push(CHARACTER_SET);
    packet.extend([0; 23]);
    packet.extend(user.bytes());
    packet.push(0);
    packet.push(u8::try_from(answer.len()).expect("no method's answer is longer than 64 bytes"));
    packet.extend(answer);
    packet.extend(method.name().bytes());
    packet.push(0);
    packet
}

/// The answer to a server that asks to be convinced by another method.
fn switch(request: &[u8], password: &[u8]) -> Result<Vec<u8>, Error> {
    if request.is_empty() {
        let message = "the server wants a password of MySQL 3.x: give the user a new one";
        return Err(Error::Unsupported(message.into()));
    }
    let mut fields = Fields::new(request);
    let name = fields.until_zero()?;
    let method = Method::named(name).ok_or_else(|| {
        let known = "mysql_native_password, caching_sha2_password or ed25519";
        let name = readable(name);
        Error::Unsupported(format!("the user's method is {name}: give it {known}"))
    })?;
    let nonce = fields.rest();
    let nonce = nonce.strip_suffix(&[0]).filter(|_| nonce.len() == NONCE + 1).unwrap_or(nonce);
    Ok(method.answer(password, nonce))
}

/// The password itself, for a server that has only its salted hash, if nobody can listen.
fn plain_password(password: &[u8], transport: Transport) -> Result<Vec<u8>, Error> {
    match transport {
        Transport::Private => Ok([password, &[0]].concat()),
        Transport::Public => Err(Error::Unsupported(
            "the server wants the password itself (caching_sha2_password, and not in its cache), \
             which is not sent where others may listen: use a user without a password, or with \
             mysql_native_password"
                .into(),
        )),
    }
}
