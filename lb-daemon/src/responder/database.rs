//! The one who knows: asks MySQL, on a connection of its own each time, as a client would.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Verdict, arguments::Server};
use crate::{
    config::{MysqlLogin, MysqlQuestion},
    mysql::{Session, Transport},
};

/// A server, and what to ask of it.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) server: Server,
    pub(super) login: MysqlLogin,
    pub(super) question: MysqlQuestion,
    /// Longest time for all of it.
    pub(super) timeout: Duration,
}

impl Database {
    /// Asks once.
    pub(super) async fn ask(&self) -> Verdict {
        let server = &self.server;
        match timeout(self.timeout, self.converse()).await {
            Ok(Ok(answer)) => Verdict::Fit(answer),
            Ok(Err(why)) => Verdict::Unfit(format!("MySQL at {server}: {why}")),
            Err(_) => {
                let limit = self.timeout;
                Verdict::Unfit(format!("MySQL at {server}: no answer within {limit:?}"))
            }
        }
    }

    async fn converse(&self) -> Result<String, String> {
        let refused = |error| format!("cannot connect: {error}");
        match &self.server {
            Server::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(refused)?;
                self.talk(stream, Transport::Private).await
            }
            Server::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(refused)?;
                self.talk(stream, Transport::Public).await
            }
        }
    }

    async fn talk<S>(&self, stream: S, transport: Transport) -> Result<String, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut session = Session::greet(stream).await.map_err(|error| error.to_string())?;
        let login = session.login(&self.login, transport).await;
        login.map_err(|error| format!("login as {}: {error}", self.login.user))?;
        let answer = session.ask(&self.question).await;
        session.quit().await;
        answer.map_err(|error| error.to_string())
    }
}
