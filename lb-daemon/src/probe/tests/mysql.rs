use super::*;
use crate::{
    config::{MysqlCheck, MysqlLogin, MysqlQuestion, Password},
    core::Reason,
    mysql::tests::fake::{END, Fake, error, greeting},
};

fn greeted() -> CheckKind {
    CheckKind::Mysql(MysqlCheck::default())
}

fn writable() -> CheckKind {
    let password = Password::new("secret".into());
    let login = MysqlLogin { user: "check".into(), password, password_file: None };
    CheckKind::Mysql(MysqlCheck { login: Some(login), question: Some(MysqlQuestion::Writable) })
}

/// A MySQL whose first client meets this.
async fn mysql<F: Future<Output: Send> + Send + 'static>(
    serve: impl FnOnce(Fake<TcpStream>) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<F::Output>) {
    server(move |stream| serve(Fake::new(stream))).await
}

#[tokio::test]
async fn a_greeting_passes_with_the_version() {
    let (target, _) = mysql(async |mut fake: Fake<TcpStream>| {
        fake.say(&greeting("mysql_native_password")).await;
        fake.hear().await
    })
    .await;
    let outcome = probe(target, greeted(), AMPLE).await;
    assert_eq!((outcome.reason, outcome.detail.as_str()), (Reason::L7Ok, "10.11.6-MariaDB"));
}

#[tokio::test]
async fn a_server_that_does_not_want_to_talk_to_us_fails_in_its_own_words() {
    let (target, _) = mysql(async |mut fake: Fake<TcpStream>| {
        fake.say(b"\xff\x69\x04Host '10.3.3.241' is blocked").await;
        fake.hear().await
    })
    .await;
    let outcome = probe(target, greeted(), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Status);
    assert_eq!(outcome.detail, "greeting: error 1129: Host '10.3.3.241' is blocked");
}

#[tokio::test]
async fn what_is_no_mysql_fails() {
    let outcome = probe(speaker(&[b"SSH-2.0-OpenSSH_9.2\r\n"]).await, greeted(), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    let outcome = probe(speaker_that_hangs_up(b"").await, greeted(), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    let why = "greeting: the connection was closed instead of a greeting";
    assert_eq!(outcome.detail, why);
}

#[tokio::test]
async fn a_server_that_hangs_times_out_at_the_step_it_hangs_at() {
    let (_listener, target) = listen().await;
    let outcome = probe(target, writable(), SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, "greeting: no answer within 1s");

    let (target, _) = mysql(async |mut fake: Fake<TcpStream>| {
        fake.let_in().await;
        fake.hear().await;
        fake.hear().await
    })
    .await;
    let outcome = probe(target, writable(), SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, "query: no answer within 1s");
}

#[tokio::test]
async fn a_login_that_is_refused_fails_without_the_password() {
    let (target, _) = mysql(async |mut fake: Fake<TcpStream>| {
        fake.say(&greeting("mysql_native_password")).await;
        fake.hear().await;
        fake.say(&error(1045, "Access denied for user 'check'")).await;
        fake.hear().await
    })
    .await;
    let outcome = probe(target, writable(), AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Status);
    assert_eq!(outcome.detail, "login: error 1045: Access denied for user 'check'");
    assert!(!format!("{:?}", writable()).contains("secret"));
}

#[tokio::test]
async fn an_answer_decides_and_the_server_is_left_with_a_farewell() {
    for (value, reason, detail) in
        [("0", Reason::L7Ok, "read_only is 0"), ("1", Reason::L7Status, "query: read_only is 1")]
    {
        let (target, end) = mysql(async move |mut fake: Fake<TcpStream>| {
            fake.let_in().await;
            fake.answer(&["@@global.read_only"], &[&[Some(value)]]).await;
            fake.hear().await
        })
        .await;
        let outcome = probe(target, writable(), AMPLE).await;
        assert_eq!((outcome.reason, outcome.detail.as_str()), (reason, detail));
        assert_eq!(end.await.unwrap(), [1], "no COM_QUIT");
    }
}

#[tokio::test]
async fn a_result_that_is_no_result_fails() {
    let (target, _) = mysql(async |mut fake: Fake<TcpStream>| {
        fake.let_in().await;
        fake.hear().await;
        fake.say(&END).await;
        fake.hear().await
    })
    .await;
    assert_eq!(probe(target, writable(), AMPLE).await.reason, Reason::L7Response);
}
