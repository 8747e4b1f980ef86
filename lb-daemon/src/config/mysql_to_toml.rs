//! MySQL checks of the effective configuration as TOML.

use super::{
    check_to_toml::Inline,
    duration,
    mysql_model::{MysqlCheck, MysqlExpect, MysqlLogin, MysqlQuestion},
    to_toml::quote,
};

/// The table of a check, on one line.
pub(super) fn check(check: &MysqlCheck) -> String {
    let mut out = Inline::default();
    if let Some(each) = &check.login {
        login(&mut out, each);
    }
    if let Some(each) = &check.question {
        question(&mut out, each);
    }
    out.close()
}

fn login(out: &mut Inline, login: &MysqlLogin) {
    out.key("user", &quote(&login.user));
    match &login.password_file {
        Some(file) => out.key("password_file", &quote(file.display())),
        None if login.password.reveal().is_empty() => {}
        None => out.key("password", &quote(login.password.reveal())),
    }
}

fn question(out: &mut Inline, question: &MysqlQuestion) {
    match question {
        MysqlQuestion::Galera { available_when_donor, not_when_read_only } => {
            out.key("query", &quote("galera"));
            out.key("available_when_donor", &available_when_donor.to_string());
            out.key("not_when_read_only", &not_when_read_only.to_string());
        }
        MysqlQuestion::Writable => out.key("query", &quote("writable")),
        MysqlQuestion::Replica { max_lag } => {
            out.key("query", &quote("replica"));
            if let Some(lag) = max_lag {
                out.key("max_lag", &quote(duration::format(*lag)));
            }
        }
        MysqlQuestion::Sql { query, expect } => {
            out.key("query", &quote(query));
            match expect {
                None => {}
                Some(MysqlExpect::Text(text)) => out.key("expect", &quote(text)),
                Some(MysqlExpect::Regex(regex)) => out.key("expect_regex", &quote(regex)),
            }
        }
    }
}
