//! The beginning of a connection. Both sides give up after [`PATIENCE`], and read no more bytes than
//! there are to be.

use std::{ops::RangeInclusive, time::Duration};

use snow::Builder;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Channel, Failure, Key, TAG};

/// How long the whole handshake may take.
const PATIENCE: Duration = Duration::from_secs(2);

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const NAME: [u8; 11] = *b"tandem sync";
/// The form of all that is described in the module above.
const FORM: u8 = 1;
const PROLOGUE: usize = NAME.len() + 1 + 4;
/// Bytes of a handshake's message: an ephemeral public key, and an empty payload's tag.
const MESSAGE: usize = 32 + TAG;

const GO_ON: u8 = 0;
const OTHER_KEY: u8 = 1;
const OTHER_FORM: u8 = 2;

/// The caller's part. `versions` are those of the messages.
pub(in crate::sync) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &Key,
    versions: &RangeInclusive<u16>,
) -> Result<Channel, Failure> {
    in_time(async {
        let [first, last] = [versions.start(), versions.end()].map(|one| one.to_be_bytes());
        let prologue = [&NAME[..], &[FORM], &first, &last].concat();
        let mut noise = begin(key, &prologue)?.build_initiator().map_err(Failure::Local)?;
        let mut message = [0; MESSAGE];
        noise.write_message(&[], &mut message).map_err(Failure::Local)?;
        stream.write_all(&[&prologue[..], &message].concat()).await?;
        match stream.read_u8().await? {
            GO_ON => {}
            OTHER_KEY => return Err(Failure::Key),
            OTHER_FORM => return Err(Failure::Form),
            _ => return Err(Failure::Stranger),
        }
        stream.read_exact(&mut message).await?;
        noise.read_message(&message, &mut []).map_err(|_| Failure::Key)?;
        let mut channel = Channel(noise.into_transport_mode().map_err(Failure::Local)?);
        let mut proof = [0; TAG];
        channel.0.write_message(&[], &mut proof).map_err(Failure::Local)?;
        stream.write_all(&proof).await?;
        Ok(channel)
    })
    .await
}

/// The part of the one that is called.
pub(in crate::sync) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &Key,
) -> Result<Channel, Failure> {
    in_time(async {
        let mut prologue = [0; PROLOGUE];
        let (name, rest) = prologue.split_at_mut(NAME.len());
        stream.read_exact(name).await?;
        if name != NAME {
            return Err(Failure::Stranger);
        }
        stream.read_exact(rest).await?;
        if rest[0] != FORM {
            stream.write_u8(OTHER_FORM).await?;
            return Err(Failure::Form);
        }
        let mut noise = begin(key, &prologue)?.build_responder().map_err(Failure::Local)?;
        let mut message = [0; MESSAGE];
        stream.read_exact(&mut message).await?;
        if noise.read_message(&message, &mut []).is_err() {
            // Nothing is given away by this: it could be seen by trying.
            stream.write_u8(OTHER_KEY).await?;
            return Err(Failure::Key);
        }
        noise.write_message(&[], &mut message).map_err(Failure::Local)?;
        stream.write_all(&[&[GO_ON][..], &message].concat()).await?;
        let mut channel = Channel(noise.into_transport_mode().map_err(Failure::Local)?);
        let mut proof = [0; TAG];
        stream.read_exact(&mut proof).await?;
        channel.0.read_message(&proof, &mut []).map_err(|_| Failure::Garbled)?;
        Ok(channel)
    })
    .await
}

async fn in_time<T>(part: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(PATIENCE, part).await.unwrap_or(Err(Failure::Silent))
}

fn begin<'a>(key: &'a Key, prologue: &'a [u8]) -> Result<Builder<'a>, Failure> {
    let pattern = PATTERN.parse().map_err(Failure::Local)?;
    Builder::new(pattern)
        .psk(0, &key.0)
        .and_then(|builder| builder.prologue(prologue))
        .map_err(Failure::Local)
}
