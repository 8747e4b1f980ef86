//! Whatever a MySQL says, the client comes to an end, and what it tells of it is safe for a terminal.
//!
//! `cargo fuzz run mysql`, as the target `adverts`.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use lb_daemon::{
    config::{MysqlExpect, MysqlLogin, MysqlQuestion, Password},
    mysql::{Error, Session, Transport},
};
use libfuzzer_sys::fuzz_target;
use tokio::{io, runtime};

/// A greeting of MariaDB, and its answer to a login: without them, hardly anything gets further.
const WELCOME: &[u8] =
    b"\x59\0\0\0\x0a5.5.5-10.11.6-MariaDB\0\x01\0\0\0abcdefgh\0\xff\xff\x2d\x02\0\
    \xff\xff\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0\
    \x07\0\0\x02\0\0\0\x02\0\0\0";

static LOGIN: LazyLock<MysqlLogin> = LazyLock::new(|| MysqlLogin {
    user: "check".to_owned(),
    password: Password::new("secret".to_owned()),
    password_file: None,
});

/// One of each kind.
static QUESTIONS: LazyLock<[MysqlQuestion; 4]> = LazyLock::new(|| {
    let expect = Some(MysqlExpect::Text("ready".to_owned()));
    [
        MysqlQuestion::Galera { available_when_donor: true, not_when_read_only: true },
        MysqlQuestion::Writable,
        MysqlQuestion::Replica { max_lag: Some(Duration::from_secs(10)) },
        MysqlQuestion::Sql { query: "SELECT state FROM t".to_owned(), expect },
    ]
});

static RUNTIME: LazyLock<runtime::Runtime> =
    LazyLock::new(|| runtime::Builder::new_current_thread().build().expect("a runtime"));

/// Goes all the way with a server that says this and closes the connection.
async fn converse(said: &[u8], question: &MysqlQuestion, by: Transport) -> Result<String, Error> {
    let mut session = Session::greet(io::join(said, io::sink())).await?;
    session.login(&LOGIN, by).await?;
    let answer = session.ask(question).await;
    session.quit().await;
    answer
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, said)) = bytes.split_first() else { return };
    let question = &QUESTIONS[usize::from(choice & 3)];
    let by = if choice & 4 == 0 { Transport::Public } else { Transport::Private };
    let said = if choice & 8 == 0 { &[WELCOME, said].concat() } else { said };
    let told = match RUNTIME.block_on(converse(said, question, by)) {
        Ok(answer) => answer,
        Err(error) => error.to_string(),
    };
    assert!(!told.contains(char::is_control), "{told:?}");
});
