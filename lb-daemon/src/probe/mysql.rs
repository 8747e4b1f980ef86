//! The MySQL check: the greeting, and if there is a user, a login and a question.

use std::future::Future;

use tokio::time::timeout;

use super::{
    connection::{Connection, Deadline},
    finding::{Finding, words},
};
use crate::{
    config::MysqlCheck,
    core::Reason,
    mysql::{Error, Session, Transport},
};

/// Goes as far as the check says.
pub(super) async fn ask(connection: Connection, check: &MysqlCheck) -> Result<Finding, Finding> {
    let (stream, deadline) = connection.into_parts();
    let mut session = step("greeting", deadline, Session::greet(stream)).await?;
    let version = session.version().to_owned();
    let Some(login) = &check.login else {
        return Ok(Finding::new(Reason::L7Ok, version));
    };
    step("login", deadline, session.login(login, Transport::Public)).await?;
    let answer = match &check.question {
        None => Ok(format!("{version}, logged in as {}", login.user)),
        Some(question) => step("query", deadline, session.ask(question)).await,
    };
    // Only if there is time for it: a server that hangs is left without a word.
    let _ = timeout(deadline.left(), session.quit()).await;
    answer.map(|detail| Finding::new(Reason::L7Ok, detail))
}

/// A step of the conversation, and what there is to say if it failed.
async fn step<T>(
    name: &str,
    deadline: Deadline,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Finding> {
    match timeout(deadline.left(), work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure(name, &error)),
        Err(_) => {
            let detail = format!("{name}: no answer within {:?}", deadline.timeout());
            Err(Finding::new(Reason::L7Timeout, detail))
        }
    }
}

fn failure(name: &str, error: &Error) -> Finding {
    let (reason, why) = match error {
        Error::Broken(error) => (Reason::L7Response, words(error)),
        Error::Closed(_) | Error::Malformed(_) => (Reason::L7Response, error.to_string()),
        Error::Refused { .. } | Error::Unsupported(_) | Error::Unfit(_) => {
            (Reason::L7Status, error.to_string())
        }
    };
    Finding::new(reason, format!("{name}: {why}"))
}
