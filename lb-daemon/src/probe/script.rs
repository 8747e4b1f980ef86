//! The tcp-check: plays a script over a connection.

use super::{
    connection::Connection,
    finding::{Finding, pattern, quote},
};
use crate::{
    config::{Expect, TcpStep},
    core::Reason,
};

/// Plays the steps in order; the check passes when the last is done.
///
/// As in HAProxy, a match takes nothing away: expects that follow each other all look at the whole
/// of what came since the last send, so they may match in any order and overlap.
pub(super) async fn play(
    mut connection: Connection,
    steps: &[TcpStep],
) -> Result<Finding, Finding> {
    for (index, step) in steps.iter().enumerate() {
        let subject = format!("step {}", index + 1);
        match step {
            TcpStep::Send(bytes) => connection
                .send(bytes)
                .await
                .map_err(|trouble| Finding::not_sent(&subject, &trouble))?,
            TcpStep::Expect(expect) => await_match(&mut connection, expect, &subject).await?,
        }
    }
    let done = match steps.len() {
        1 => "1 step done".to_owned(),
        count => format!("{count} steps done"),
    };
    let detail = match connection.received() {
        [] => done,
        received => format!("{done}, got {}", quote(received)),
    };
    Ok(Finding::new(Reason::L7Ok, detail))
}

async fn await_match(
    connection: &mut Connection,
    expect: &Expect,
    subject: &str,
) -> Result<(), Finding> {
    while !matches(expect, connection.received()) {
        if let Err(no_more) = connection.receive().await {
            let (expected, received) = (describe(expect), connection.received());
            return Err(Finding::no_answer(subject, &expected, received, &no_more));
        }
    }
    Ok(())
}

fn matches(expect: &Expect, received: &[u8]) -> bool {
    match expect {
        Expect::String(bytes) if bytes.is_empty() => true,
        Expect::String(bytes) => received.windows(bytes.len()).any(|window| window == bytes),
        Expect::Regex(regex) => regex.is_match(received),
    }
}

fn describe(expect: &Expect) -> String {
    match expect {
        Expect::String(bytes) => quote(bytes),
        Expect::Regex(regex) => pattern(regex.as_str()),
    }
}
