//! `httpchk`: an HTTP request, and what its answer must be like.

use super::{
    check_model::{HttpCheck, HttpExpect, HttpSubject, HttpVersion, StatusRange},
    pattern,
    reader::{Field, Table},
    report::Read,
};

/// Headers that have keys of their own, or that the check sets itself, and what to do instead.
const OWN_HEADERS: [(&str, &str); 4] = [
    ("host", "write it as `host = \"...\"`"),
    ("connection", "leave it out: the check says \"Connection: close\""),
    ("content-length", "leave it out: it follows from `body`"),
    ("transfer-encoding", "leave it out: `body` is sent as it is"),
];

/// Reads the table; HAProxy's defaults are `OPTIONS /`, and any status from 200 to 399.
pub(super) fn read(field: &Field<'_>) -> Read<HttpCheck> {
    let hint = "write httpchk = { method = \"GET\", uri = \"/health\" }";
    let table = field.table("httpchk", hint)?;
    Ok(table.read(|table| HttpCheck {
        method: table.optional("method", method).unwrap_or_else(|| "OPTIONS".to_owned()),
        uri: table.optional("uri", uri).unwrap_or_else(|| "/".to_owned()),
        version: table.optional("version", version).unwrap_or(HttpVersion::V11),
        host: table.optional("host", host),
        headers: table.optional("headers", headers).unwrap_or_default(),
        body: table.optional("body", |field| field.string().map(str::to_owned)).unwrap_or_default(),
        expects: expects(table),
    }))
}

/// What the answer must be like, by the keys that say so; HAProxy's default if none does.
fn expects(table: &mut Table<'_>) -> Vec<HttpExpect> {
    let string = |field: &Field<'_>| pattern::bytes(field, pattern::text(field)?);
    let status = |ranges| HttpSubject::Status(ranges);
    let (code, body) = (HttpSubject::StatusText, HttpSubject::Body);
    let expects = [
        (table.optional("status", statuses).map(status), false),
        (table.optional("not_status", statuses).map(status), true),
        (table.optional("status_regex", pattern::wanted_regex).map(code), false),
        (table.optional("not_status_regex", pattern::unwanted_regex).map(code), true),
        (table.optional("expect_string", string).map(body), false),
        (table.optional("expect_not_string", string).map(body), true),
        (table.optional("expect_regex", pattern::wanted_regex).map(body), false),
        (table.optional("expect_not_regex", pattern::unwanted_regex).map(body), true),
    ];
    let expects: Vec<_> = expects
        .into_iter()
        .filter_map(|(subject, negated)| Some(HttpExpect { subject: subject?, negated }))
        .collect();
    if expects.is_empty() {
        let subject = HttpSubject::Status(vec![StatusRange::GOOD]);
        return vec![HttpExpect { subject, negated: false }];
    }
    expects
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

/// `"1.0"` or `"1.1"`
fn version(field: &Field<'_>) -> Read<HttpVersion> {
    field.choice(&[HttpVersion::V10, HttpVersion::V11].map(|each| (each.number(), each)))
}

/// `["X-Check: tandem", "Authorization: Basic ..."]`
fn headers(field: &Field<'_>) -> Read<Vec<(String, String)>> {
    let headers: Vec<_> = field.items().iter().map(header).collect();
    headers.into_iter().collect()
}

fn header(field: &Field<'_>) -> Read<(String, String)> {
    let line = field.string()?;
    let parts = line.split_once(':').map(|(name, value)| (name, value.trim_matches([' ', '\t'])));
    let Some((name, value)) = parts.filter(|(name, value)| is_token(name) && is_value(value))
    else {
        let message = format!("`{}` has a line that is no header: {line:?}", field.key());
        return Err(field.error(message, "write name and value: [\"X-Check: tandem\"]"));
    };
    if let Some((own, hint)) = OWN_HEADERS.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
        return Err(field.error(format!("`{own}` can't be one of `{}`", field.key()), hint));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// What names of headers are made of (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_part)
}

fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}

fn statuses(field: &Field<'_>) -> Read<Vec<StatusRange>> {
    let ranges: Vec<_> = field.items().iter().map(status).collect();
    if ranges.is_empty() {
        return Err(field.error(format!("`{}` is empty", field.key()), "write [\"200-399\"]"));
    }
    ranges.into_iter().collect()
}

/// `200`, `"200"` or `"200-299"`.
fn status(field: &Field<'_>) -> Read<StatusRange> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    let text = match (field.as_integer(), field.as_text()) {
        (Some(code), _) => code.to_string(),
        (None, text) => text.unwrap_or_default().to_owned(),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
        (Some(first), Some(last)) => {
            let message = format!("`{}` ends before it begins: {text:?}", field.key());
            Err(field.error(message, format!("did you mean \"{last}-{first}\"?")))
        }
        _ => {
            let message = format!("`{}` is not an HTTP status: {}", field.key(), field.source());
            let hint = "statuses are 100 to 599, alone or as a range: [\"200-299\", 404]";
            Err(field.error(message, hint))
        }
    }
}
