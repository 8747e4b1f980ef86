use super::{
    fake::{NONCE, OK, error, greeting},
    *,
};
use crate::mysql::method::Method;

#[tokio::test]
async fn a_greeting_tells_the_version_without_the_prefix_for_replicas() {
    let greet = async |stream| Session::greet(stream).await.unwrap().version().to_owned();
    let version = meet(greet, async |mut fake| fake.say(&greeting("any")).await).await;
    assert_eq!(version, "10.11.6-MariaDB");
}

#[tokio::test]
async fn an_error_in_the_place_of_the_greeting_is_the_servers_refusal() {
    let greet = async |stream| Session::greet(stream).await.unwrap_err();
    let message = b"\xff\x69\x04Host '10.3.3.241' is blocked because of many connection errors";
    let refusal = meet(greet, async |mut fake| fake.say(message).await).await;
    let expected = "error 1129: Host '10.3.3.241' is blocked because of many connection errors";
    assert_eq!(refusal.to_string(), expected);
    assert!(matches!(refusal, Error::Refused { code: 1129, .. }));
}

#[tokio::test]
async fn a_password_is_answered_by_the_method_the_server_prefers() {
    for method in [Method::Native, Method::CachingSha2] {
        let client = async |stream| log_in(stream, "secret", Transport::Public).await.map(drop);
        let server = async |mut fake: Fake<DuplexStream>| {
            fake.say(&greeting(method.name())).await;
            let login = fake.hear().await;
            let answer = method.answer(b"secret", NONCE);
            let expected = [b"check\0".to_vec(), vec![u8::try_from(answer.len()).unwrap()], answer];
            let expected = [expected.concat(), method.name().into(), vec![0]].concat();
            assert!(login.ends_with(&expected), "{login:?}");
            assert!(!login.windows(6).any(|bytes| bytes == b"secret"));
            fake.say(&OK).await;
        };
        meet(client, server).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_may_ask_for_another_method_with_another_nonce() {
    for (method, nonce) in
        [(Method::Native, &b"another nonce of 20!\0"[..]), (Method::Ed25519, &[7; 32])]
    {
        let client = async |stream| log_in(stream, "secret", Transport::Public).await.map(drop);
        let server = async |mut fake: Fake<DuplexStream>| {
            fake.say(&greeting("caching_sha2_password")).await;
            fake.hear().await;
            fake.say(&[b"\xfe", method.name().as_bytes(), b"\0", nonce].concat()).await;
            let nonce = if nonce.len() == 21 { &nonce[..20] } else { nonce };
            assert_eq!(fake.hear().await, method.answer(b"secret", nonce));
            fake.say(&OK).await;
        };
        meet(client, server).await.unwrap();
    }
}

#[tokio::test]
async fn a_password_in_the_servers_cache_is_enough() {
    let client = async |stream| log_in(stream, "secret", Transport::Public).await.map(drop);
    let server = async |mut fake: Fake<DuplexStream>| {
        fake.say(&greeting("caching_sha2_password")).await;
        fake.hear().await;
        fake.say(&[1, 3]).await;
        fake.say(&OK).await;
    };
    meet(client, server).await.unwrap();
}

/// A server that has forgotten the password, and what it is told then.
async fn forgetful(transport: Transport) -> (Result<(), Error>, Vec<u8>) {
    let mut told = Vec::new();
    let client = async |stream| log_in(stream, "secret", transport).await.map(drop);
    let server = async |mut fake: Fake<DuplexStream>| {
        fake.say(&greeting("caching_sha2_password")).await;
        fake.hear().await;
        fake.say(&[1, 4]).await;
        told = fake.hear().await;
        fake.say(&OK).await;
    };
    let result = meet(client, server).await;
    (result, told)
}

#[tokio::test]
async fn the_password_itself_is_told_on_a_unix_socket_only() {
    let (result, told) = forgetful(Transport::Private).await;
    result.unwrap();
    assert_eq!(told, b"secret\0");

    let (result, told) = forgetful(Transport::Public).await;
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert!(!error.to_string().contains("secret"));
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_refused_login_is_told_in_the_servers_words() {
    let client = async |stream| log_in(stream, "wrong", Transport::Public).await.unwrap_err();
    let server = async |mut fake: Fake<DuplexStream>| {
        fake.say(&greeting("mysql_native_password")).await;
        fake.hear().await;
        fake.say(&error(1045, "Access denied for user 'check'@'host' (using password: YES)")).await;
    };
    let error = meet(client, server).await;
    let expected = "error 1045: Access denied for user 'check'@'host' (using password: YES)";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_method_that_is_not_known_is_named() {
    let client = async |stream| log_in(stream, "secret", Transport::Public).await.unwrap_err();
    for (request, name) in
        [(&b"\xfemysql_clear_password\0"[..], "mysql_clear_password"), (b"\xfe", "MySQL 3.x")]
    {
        let server = async |mut fake: Fake<DuplexStream>| {
            fake.say(&greeting("mysql_native_password")).await;
            fake.hear().await;
            fake.say(request).await;
            assert!(fake.hear().await.is_empty(), "the client answers");
        };
        let error = meet(client, server).await;
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_login_that_goes_round_in_circles_ends() {
    let client = async |stream| log_in(stream, "secret", Transport::Public).await.unwrap_err();
    let server = async |mut fake: Fake<DuplexStream>| {
        fake.say(&greeting("caching_sha2_password")).await;
        fake.hear().await;
        for _ in 0..100 {
            fake.say(&[1, 3]).await;
        }
    };
    let error = meet(client, server).await;
    assert!(error.to_string().contains("comes to no end"), "{error}");
}
