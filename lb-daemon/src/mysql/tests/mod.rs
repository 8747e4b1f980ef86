//! Conversations with a server that says what it should, or anything else.

pub(crate) mod fake;
mod garbage;
mod login;
mod questions;
mod replicas;

use std::future::Future;

use fake::Fake;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::config::Password;

/// Bytes on the way.
const PIPE: usize = 64 * 1024;

/// What comes of a story of the client's and one of the server's.
async fn meet<T>(
    client: impl AsyncFnOnce(DuplexStream) -> T,
    server: impl AsyncFnOnce(Fake<DuplexStream>),
) -> T {
    let (ours, theirs) = duplex(PIPE);
    let (answer, ()) = tokio::join!(client(ours), server(Fake::new(theirs)));
    answer
}

fn user(password: &str) -> MysqlLogin {
    let password = Password::new(password.to_owned());
    MysqlLogin { user: "check".into(), password, password_file: None }
}

/// Greets and logs in.
async fn log_in(
    stream: DuplexStream,
    password: &str,
    transport: Transport,
) -> Result<Session<DuplexStream>, Error> {
    let mut session = Session::greet(stream).await?;
    session.login(&user(password), transport).await?;
    Ok(session)
}

/// Asks a question, of a `MariaDB` that lets anybody in and goes on with this.
async fn ask<F: Future<Output = ()>>(
    question: MysqlQuestion,
    server: impl FnOnce(Fake<DuplexStream>) -> F,
) -> Result<String, Error> {
    ask_a(fake::MARIADB, question, server).await
}

/// The same, of a server of this version.
async fn ask_a<F: Future<Output = ()>>(
    version: &str,
    question: MysqlQuestion,
    server: impl FnOnce(Fake<DuplexStream>) -> F,
) -> Result<String, Error> {
    let client = async |stream| {
        let mut session = log_in(stream, "secret", Transport::Public).await.unwrap();
        let answer = session.ask(&question).await;
        session.quit().await;
        answer
    };
    meet(client, async |mut fake: Fake<DuplexStream>| {
        fake.let_in_as(version).await;
        server(fake).await;
    })
    .await
}
