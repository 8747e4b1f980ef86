//! The tcp-check: plays a script over a connection.

use super::{
    connection::{Connection, Way},
    finding::{Finding, NoMore, describe, quote},
};
use crate::{
    config::{Check, Pattern, TcpAction, TcpExpect, TcpStep},
    core::Reason,
};

/// Plays the steps in order; the check passes when the last is done.
///
/// As in HAProxy, a match takes nothing away: expects that follow each other all look at the whole
/// of what came since the last send, so they may match in any order and overlap.
pub(super) async fn play(
    check: &Check,
    steps: &[TcpStep],
    mut way: Way<'_>,
) -> Result<Finding, Finding> {
    if let Some(TcpAction::Connect(first)) = steps.first().map(|step| &step.action) {
        way = way.anew(check, first);
    }
    let mut connection = Connection::open(way).await?;
    for (index, step) in steps.iter().enumerate() {
        let subject = name(index, step);
        match &step.action {
            // The first one is open.
            TcpAction::Connect(_) if index == 0 => {}
            TcpAction::Connect(next) => {
                way = way.anew(check, next);
                connection = Connection::open(way).await.map_err(|found| found.at(&subject))?;
            }
            TcpAction::Send(bytes) => connection
                .send(bytes)
                .await
                .map_err(|trouble| Finding::not_sent(&subject, &trouble))?,
            TcpAction::Expect(expect) => await_match(&mut connection, expect, &subject).await?,
        }
    }
    if let Some(TcpAction::Connect(_)) = steps.last().map(|step| &step.action) {
        return Ok(way.found_open());
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

/// "step 2", or "step 2 (login)".
fn name(index: usize, step: &TcpStep) -> String {
    let comment = step.comment.as_ref().map_or_else(String::new, |text| format!(" ({text})"));
    format!("step {}{comment}", index + 1)
}

/// Receives until it is known whether the answer is as expected.
///
/// As in HAProxy, what must not come is waited for as long as more may come: until the connection is
/// closed, 16 KiB are full, or there is as much as `min_recv` says. If time is up before, that is a
/// failure.
async fn await_match(
    connection: &mut Connection,
    expect: &TcpExpect,
    subject: &str,
) -> Result<(), Finding> {
    let no = if expect.negated { "no " } else { "" };
    let expected = format!("{no}{}", describe(&expect.pattern));
    let mut end = None;
    loop {
        let received = connection.received();
        let is_found = expect.pattern.is_in(received);
        let is_enough = expect.min_recv.is_none() && is_found || received.len() >= enough(expect);
        if end.is_some() || is_enough && (is_found || expect.min_recv.is_some()) {
            if is_found != expect.negated {
                return Ok(());
            }
            let end = end.unwrap_or(NoMore::Complete);
            return Err(Finding::no_answer(subject, &expected, received, &end));
        }
        match connection.receive().await {
            Ok(()) => {}
            Err(no_more @ NoMore::Trouble(_)) => {
                let received = connection.received();
                return Err(Finding::no_answer(subject, &expected, received, &no_more));
            }
            Err(no_more) => end = Some(no_more),
        }
    }
}

/// Bytes that must have come before it can be said that the pattern is not among them.
fn enough(expect: &TcpExpect) -> usize {
    let longest = match &expect.pattern {
        Pattern::String(bytes) => bytes.len(),
        Pattern::Regex(_) => 1,
    };
    usize::from(expect.min_recv.unwrap_or_default()).max(longest)
}
