//! `tcp_check`: a script of sends and expects over a TCP connection.

use regex::bytes::Regex;

use super::{
    model::{CheckKind, Expect, TcpStep},
    reader::{Field, Table},
    report::Read,
};

/// How much of an answer is looked at; see [`TcpStep::Expect`].
const LONGEST_ANSWER: usize = 16 * 1024;

/// Reads a script; one without steps is a plain connect, as in HAProxy.
pub(super) fn read(field: &Field<'_>) -> CheckKind {
    // A step with an error is left out here; its error is reported.
    let steps: Vec<_> = field.items().iter().filter_map(|item| step(item).ok().flatten()).collect();
    if steps.is_empty() { CheckKind::Connect } else { CheckKind::Tcp(steps) }
}

fn step(field: &Field<'_>) -> Read<Option<TcpStep>> {
    let hint = "write tcp_check = [ { send = \"PING\\r\\n\" }, { expect_string = \"PONG\" } ]";
    let table = field.table("a step of tcp_check", hint)?;
    Ok(table.read(|table| {
        let step = one_step(table);
        match table.present()[..] {
            [] => {
                let hint = "give each step one of send, send_hex, expect_string, expect_regex, \
                            expect_hex";
                table.missing("this step of tcp_check does nothing", hint);
            }
            [_] => {}
            [first, second, ..] => {
                let message =
                    format!("a step does one thing, but this one has `{first}` and `{second}`");
                let hint =
                    format!("make two steps of it: {{ {first} = ... }}, {{ {second} = ... }}");
                field.error(message, hint);
            }
        }
        step
    }))
}

fn one_step(table: &mut Table<'_>) -> Option<TcpStep> {
    let steps = [
        table.optional("send", |field| Ok(TcpStep::Send(text(field)?))),
        table.optional("send_hex", |field| Ok(TcpStep::Send(hex(field)?))),
        table.optional("expect_string", |field| Ok(TcpStep::Expect(expect(field, text(field)?)?))),
        table.optional("expect_hex", |field| Ok(TcpStep::Expect(expect(field, hex(field)?)?))),
        table.optional("expect_regex", |field| Ok(TcpStep::Expect(regex(field)?))),
    ];
    steps.into_iter().flatten().next()
}

fn text(field: &Field<'_>) -> Read<Vec<u8>> {
    let text = field.string()?;
    if text.is_empty() {
        let message = format!("`{}` is empty", field.key());
        return Err(field.error(message, "write the text, or remove the step"));
    }
    Ok(text.as_bytes().to_vec())
}

fn hex(field: &Field<'_>) -> Read<Vec<u8>> {
    let digits = text(field)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect();
    bytes.ok_or_else(|| {
        let message = format!("`{}` is not hexadecimal", field.key());
        field.error(message, "write two digits (0-9, a-f) for each byte, as in \"0a0b\"")
    })
}

fn expect(field: &Field<'_>, bytes: Vec<u8>) -> Read<Expect> {
    if bytes.len() > LONGEST_ANSWER {
        let message = format!("`{}` can never be found: it has {} bytes", field.key(), bytes.len());
        let hint = format!("the first {LONGEST_ANSWER} bytes of an answer are looked at");
        return Err(field.error(message, hint));
    }
    Ok(Expect::String(bytes))
}

fn regex(field: &Field<'_>) -> Read<Expect> {
    text(field)?;
    let regex = Regex::new(field.string()?).map_err(|error| {
        // A syntax error is a drawing of several lines; what is wrong stands in the last one.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default();
        let why = why.trim_start_matches("error: ");
        let message = format!("`{}` is not a regular expression: {why}", field.key());
        let hint = "put a backslash before a character that is meant literally, or use \
                    `expect_string`; look-around and back-references do not exist here";
        field.error(message, hint)
    })?;
    if regex.is_match(b"") {
        let message = format!("`{}` is satisfied before anything is received", field.key());
        let hint = "ask for at least one character, so that a silent backend fails the check";
        field.report().warning(Some(field.span()), message, hint);
    }
    Ok(Expect::Regex(regex))
}
