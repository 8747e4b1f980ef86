//! `tcp_check`: a script of sends and expects over a TCP connection.

use super::{
    address, check,
    check_model::{CheckKind, Pattern, TcpAction, TcpConnect, TcpExpect, TcpStep},
    pattern::{self, LONGEST_ANSWER},
    reader::{Field, Table},
    report::Read,
};

/// Keys that say what a step does; it has one of them.
const ACTIONS: [&str; 9] = [
    "connect",
    "send",
    "send_hex",
    "expect_string",
    "expect_hex",
    "expect_regex",
    "expect_not_string",
    "expect_not_hex",
    "expect_not_regex",
];

/// Reads a script; one without steps is a plain connect, as in HAProxy.
pub(super) fn read(field: &Field<'_>) -> CheckKind {
    // A step with an error is left out here; its error is reported.
    let items = field.items();
    let steps: Vec<_> = items.iter().map(|item| step(item).ok().flatten()).collect();
    let connects = |step: &Option<TcpStep>| {
        matches!(step, Some(TcpStep { action: TcpAction::Connect(_), .. }))
    };
    if let Some(late) = steps.iter().position(connects)
        && let Some(Some(_)) = steps.first().filter(|_| late > 0)
    {
        let hint = "begin with { connect = {} }, which connects to the port that is checked";
        items[late].error("a script that connects begins with that", hint);
    }
    let steps: Vec<_> = steps.into_iter().flatten().collect();
    if steps.is_empty() { CheckKind::Connect } else { CheckKind::Tcp(steps) }
}

fn step(field: &Field<'_>) -> Read<Option<TcpStep>> {
    let hint = "write tcp_check = [ { send = \"PING\\r\\n\" }, { expect_string = \"PONG\" } ]";
    let table = field.table("a step of tcp_check", hint)?;
    Ok(table.read(|table| {
        let action = action(table);
        let comment = table.optional("comment", comment);
        if table.is_empty() || table.holds_only("comment") {
            let hint = "give each step one of connect, send, send_hex, expect_string, \
                        expect_regex, expect_hex";
            field.error("this step of tcp_check does nothing", hint);
        }
        let mut present = table.present();
        present.retain(|key| ACTIONS.contains(key));
        if let [first, second, ..] = present[..] {
            let message =
                format!("a step does one thing, but this one has `{first}` and `{second}`");
            let hint = format!("make two steps of it: {{ {first} = ... }}, {{ {second} = ... }}");
            field.error(message, hint);
        }
        action.map(|action| TcpStep { action, comment })
    }))
}

fn action(table: &mut Table<'_>) -> Option<TcpAction> {
    let connect = table.optional("connect", connect).map(TcpAction::Connect);
    let send = |bytes| Ok(TcpAction::Send(bytes));
    let sends = [
        table.optional("send", |field| send(pattern::text(field)?)),
        table.optional("send_hex", |field| send(pattern::hex(field)?)),
    ];
    let string = |field: &Field<'_>| pattern::bytes(field, pattern::text(field)?);
    let bytes = |field: &Field<'_>| pattern::bytes(field, pattern::hex(field)?);
    let expects = [
        (table.optional("expect_string", string), false),
        (table.optional("expect_hex", bytes), false),
        (table.optional("expect_regex", pattern::wanted_regex), false),
        (table.optional("expect_not_string", string), true),
        (table.optional("expect_not_hex", bytes), true),
        (table.optional("expect_not_regex", pattern::unwanted_regex), true),
    ];
    let min_recv = min_recv(table);
    let expect = |(pattern, negated): (Option<Pattern>, bool)| {
        Some(TcpAction::Expect(TcpExpect { pattern: pattern?, negated, min_recv }))
    };
    let mut simple = [connect].into_iter().chain(sends).flatten();
    simple.next().or_else(|| expects.into_iter().find_map(expect))
}

fn connect(field: &Field<'_>) -> Read<TcpConnect> {
    let hint = "write { connect = { port = 6379 } }";
    let table = field.table("`connect` of a step of tcp_check", hint)?;
    Ok(table.read(|table| TcpConnect {
        address: table.optional("address", |field| address::reachable(field, address::ip(field)?)),
        port: table.optional("port", check::port),
        ssl: table.optional("ssl", Field::boolean),
    }))
}

/// `min_recv`, which belongs to an expect.
fn min_recv(table: &mut Table<'_>) -> Option<u16> {
    let expects = table.present().iter().any(|key| key.starts_with("expect"));
    table.optional("min_recv", |field| {
        let hint = format!("the first {LONGEST_ANSWER} bytes of an answer are looked at");
        let bytes = field.integer(&(0..=u32::from(LONGEST_ANSWER)), &hint)?;
        if !expects {
            let hint = "write it into the step that expects the answer";
            return Err(field.error("`min_recv` is in a step that expects nothing", hint));
        }
        Ok(u16::try_from(bytes).expect("within its range"))
    })
}

fn comment(field: &Field<'_>) -> Read<String> {
    let comment = field.string()?;
    if comment.is_empty() || comment.contains(char::is_control) {
        let message = format!("`{}` must be one line of text", field.key());
        return Err(field.error(message, "write what the step is for: comment = \"login\""));
    }
    Ok(comment.to_owned())
}
