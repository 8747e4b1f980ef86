//! `httpchk`: an HTTP request and the statuses that count as healthy.

use super::{
    model::{HttpCheck, StatusRange},
    reader::Field,
    report::Read,
};

/// Reads the table; HAProxy's defaults are `OPTIONS /`, and any status from 200 to 399.
pub(super) fn read(field: &Field<'_>) -> Read<HttpCheck> {
    let hint = "write httpchk = { method = \"GET\", uri = \"/health\" }";
    let table = field.table("httpchk", hint)?;
    Ok(table.read(|table| HttpCheck {
        method: table.optional("method", method).unwrap_or_else(|| "OPTIONS".to_owned()),
        uri: table.optional("uri", uri).unwrap_or_else(|| "/".to_owned()),
        host: table.optional("host", host),
        status: table
            .optional("status", statuses)
            .unwrap_or_else(|| vec![StatusRange { first: 200, last: 399 }]),
    }))
}

/// Methods are case-sensitive (RFC 9110, section 9.1), and all that exist are in capitals.
fn method(field: &Field<'_>) -> Read<String> {
    let method = field.string()?;
    if !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Ok(method.to_owned());
    }
    let message = format!("`{}` is not an HTTP method: {method:?}", field.key());
    let capitals = method.to_uppercase();
    let hint = match capitals.as_str() {
        "GET" | "HEAD" | "OPTIONS" | "POST" => format!("write it in capitals: {capitals:?}"),
        _ => "write one such as \"GET\", \"HEAD\" or \"OPTIONS\"".to_owned(),
    };
    Err(field.error(message, hint))
}

fn uri(field: &Field<'_>) -> Read<String> {
    let uri = field.string()?;
    if (uri.starts_with('/') || uri == "*") && uri.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(uri.to_owned());
    }
    let message = format!("`{}` is not the path of a request: {uri:?}", field.key());
    let hint = if uri.contains("://") {
        "leave scheme and host out: uri = \"/health\"; the name goes into `host`"
    } else {
        "begin it with `/`, without spaces or characters beyond ASCII (escape them: %20)"
    };
    Err(field.error(message, hint))
}

fn host(field: &Field<'_>) -> Read<String> {
    let host = field.string()?;
    if !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        return Ok(host.to_owned());
    }
    let message = format!("`{}` can't stand in a Host header: {host:?}", field.key());
    Err(field.error(message, "write a host name, with a port if need be: \"db.example.com\""))
}

fn statuses(field: &Field<'_>) -> Read<Vec<StatusRange>> {
    let ranges: Vec<_> = field.items().iter().map(status).collect();
    if ranges.is_empty() {
        return Err(
            field.error("`status` is empty: no answer would be good", "write [\"200-399\"]")
        );
    }
    ranges.into_iter().collect()
}

/// `200`, `"200"` or `"200-299"`.
fn status(field: &Field<'_>) -> Read<StatusRange> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    let text = match field.as_integer() {
        Some(_) => field.source(),
        None => field.string()?,
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        (Some(first), Some(last)) => {
            let message = format!("`{}` ends before it begins: {text:?}", field.key());
            Err(field.error(message, format!("did you mean \"{last}-{first}\"?")))
        }
        _ => {
            let message = format!("`{}` is not an HTTP status: {text:?}", field.key());
            let hint = "statuses are 100 to 599, alone or as a range: [\"200-299\", 404]";
            Err(field.error(message, hint))
        }
    }
}
