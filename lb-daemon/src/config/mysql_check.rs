//! `mysql_check`: a conversation with MySQL, up to the greeting, a login or the answer to a question.

use std::{ops::RangeInclusive, time::Duration};

use regex::bytes::Regex;
use toml::Spanned;

use super::{
    duration,
    mysql_model::{MysqlCheck, MysqlExpect, MysqlLogin, MysqlQuestion, Password},
    reader::{Field, Table},
    report::Read,
    secret, suggest,
};

/// More than any server takes.
const LONGEST_USER: usize = 128;
const LONGEST_QUERY: usize = 4096;
const PASSWORD: RangeInclusive<usize> = 1..=512;
const LAG: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(20 * 86_400);

/// The questions that have names; anything else is SQL.
const NAMES: [&str; 3] = ["galera", "writable", "replica"];

/// The keys that only some questions have.
#[derive(Default)]
struct Details {
    expect: Option<MysqlExpect>,
    max_lag: Option<Duration>,
    available_when_donor: Option<bool>,
    not_when_read_only: Option<bool>,
}

/// Reads the table; empty, it asks for the greeting.
pub(super) fn read(field: &Field<'_>) -> Read<MysqlCheck> {
    let hint = "write mysql_check = { user = \"tandem\", password_file = \
                \"/etc/tandem/mysql.password\", query = \"galera\" }";
    let table = field.table("mysql_check", hint)?;
    table.read(|table| {
        let user = table.maybe("user", user);
        let hint = "a password has 1 to 512 bytes; leave it out for a user without one";
        let password = secret::read(table, ["password", "password_file"], &PASSWORD, hint);
        let question = question(table);
        let (user, password, question) = (user?, password?, question?);
        let Some(user) = user else {
            return match table.present()[..] {
                [] => Ok(MysqlCheck::default()),
                [key, ..] => {
                    let message = format!("`{key}` is there, but no `user` to log in");
                    let hint = "add user = \"tandem\", or leave all out to wait for the greeting";
                    Err(field.error(message, hint))
                }
            };
        };
        let password = password.map(Spanned::into_inner);
        let (password, password_file) =
            password.map(|secret| (secret.text, secret.file)).unwrap_or_default();
        let login = MysqlLogin { user, password: Password::new(password), password_file };
        Ok(MysqlCheck { login: Some(login), question })
    })
}

fn user(field: &Field<'_>) -> Read<String> {
    let user = field.string()?;
    if (1..=LONGEST_USER).contains(&user.len()) && !user.contains(char::is_control) {
        return Ok(user.to_owned());
    }
    let message = format!("`{}` is no user of MySQL: {user:?}", field.key());
    Err(field.error(message, "write the name as in CREATE USER, without @ and the host"))
}

fn question(table: &mut Table<'_>) -> Read<Option<MysqlQuestion>> {
    let query = table.maybe("query", query);
    let details = Details {
        expect: expect(table),
        max_lag: table.optional("max_lag", |field| duration::with_unit(field, &LAG)),
        available_when_donor: table.optional("available_when_donor", Field::boolean),
        not_when_read_only: table.optional("not_when_read_only", Field::boolean),
    };
    let query = query?;
    check_details(table, query.as_deref());
    let Details { expect, max_lag, available_when_donor, not_when_read_only } = details;
    Ok(query.map(|query| match query.as_str() {
        "galera" => MysqlQuestion::Galera {
            available_when_donor: available_when_donor.unwrap_or(false),
            not_when_read_only: not_when_read_only.unwrap_or(false),
        },
        "writable" => MysqlQuestion::Writable,
        "replica" => MysqlQuestion::Replica { max_lag },
        _ => MysqlQuestion::Sql { query, expect },
    }))
}

/// A name, or SQL, which has at least two words.
fn query(field: &Field<'_>) -> Read<String> {
    let query = field.string()?;
    let is_sql = query.trim().contains(char::is_whitespace);
    if !NAMES.contains(&query) && !is_sql {
        let message = format!("`{}` is neither a known question nor SQL: {query:?}", field.key());
        return Err(field.error(message, suggest::word(query, &NAMES)));
    }
    if query.len() > LONGEST_QUERY || query.contains('\0') {
        let message = format!("`{}` is no query that a server would take", field.key());
        let hint = format!("it has at most {LONGEST_QUERY} bytes, and no zero byte");
        return Err(field.error(message, hint));
    }
    Ok(query.to_owned())
}

fn expect(table: &mut Table<'_>) -> Option<MysqlExpect> {
    let text = table.optional("expect", |field| Ok(MysqlExpect::Text(field.string()?.to_owned())));
    let regex = table.optional("expect_regex", |field| {
        Regex::new(field.string()?).map(MysqlExpect::Regex).map_err(|error| {
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("`{}` is not a regular expression: {why}", field.key());
            let hint =
                "put a backslash before a character that is meant literally, or use `expect`";
            field.error(message, hint)
        })
    });
    if let (Some(_), Some(_)) = (&text, &regex) {
        let message = "there are both `expect` and `expect_regex`";
        table.report().missing(table.span(), message, "keep one of the two");
    }
    text.or(regex)
}

/// Keys that the question has no use for are errors: they would be believed to be in force.
fn check_details(table: &Table<'_>, query: Option<&str>) {
    let fits = |key: &str| match key {
        "expect" | "expect_regex" => query.is_some_and(|query| !NAMES.contains(&query)),
        "max_lag" => query == Some("replica"),
        "available_when_donor" | "not_when_read_only" => query == Some("galera"),
        _ => true,
    };
    for key in table.present().into_iter().filter(|key| !fits(key)) {
        let (message, hint) = match key {
            "expect" | "expect_regex" => ("is for a query in SQL", "write query = \"SELECT ...\""),
            "max_lag" => ("is for query = \"replica\"", "remove it, or ask that"),
            _ => ("is for query = \"galera\"", "remove it, or ask that"),
        };
        table.report().missing(table.span(), format!("`{key}` {message}"), hint);
    }
}
