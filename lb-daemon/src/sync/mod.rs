//! The conversation with the peer: sockets, encryption, and the thread that has the session speak.

pub mod codec;
mod secure;
