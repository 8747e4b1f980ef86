use proptest::prelude::*;
use tokio::{io::AsyncWriteExt as _, runtime};

use super::{
    fake::{greeting, packet},
    *,
};
use crate::noise::Random;

fn sql() -> MysqlQuestion {
    MysqlQuestion::Sql { query: "SELECT 1".into(), expect: None }
}

/// Goes all the way with a server that says these bytes and closes the connection.
async fn converse(bytes: &[u8]) -> Result<String, Error> {
    let (ours, mut theirs) = duplex(PIPE);
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut session = log_in(ours, "secret", Transport::Private).await?;
    session.ask(&sql()).await
}

/// What there is to say about a server that says these bytes.
async fn complaint(bytes: &[u8]) -> String {
    converse(bytes).await.unwrap_err().to_string()
}

#[tokio::test]
async fn what_is_not_mysql_is_called_so() {
    for (said, expected) in [
        (&b""[..], "the connection was closed instead of a greeting"),
        (b"\x03\0", "the connection was closed instead of a greeting"),
        (&packet(0, b"\x0a10.11"), "this is not MySQL: a packet ends too early"),
        (&packet(0, b""), "this is not MySQL: a packet ends too early"),
        (&packet(0, b"\x09old\0"), "this is not MySQL: a greeting of protocol version 9, not 10"),
        (&packet(0, b"\xff\x01"), "this is not MySQL: an error packet without a number"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "a greeting has 4739923 bytes, and 16384 at most are read"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "a greeting has 5526600 bytes, and 16384 at most are read",
        ),
        (b"\xff\x3f\0\0\x0a", "the connection was closed instead of a greeting"),
    ] {
        assert_eq!(complaint(said).await, expected, "{}", said.escape_ascii());
    }
}

/// All that a server says in a conversation that ends well.
fn whole() -> Vec<u8> {
    [
        packet(0, &greeting("mysql_native_password")),
        packet(2, &fake::OK),
        packet(1, &[1]),
        packet(2, &[3, b'd', b'e', b'f', 0, 0, 0, 1, b'1', 0]),
        packet(3, &fake::END),
        packet(4, &[1, b'7']),
        packet(5, &fake::END),
    ]
    .concat()
}

/// A hundred thousand conversations, half of them cut, grown or changed in a few bytes, and half
/// noise.
#[tokio::test]
async fn no_bytes_make_a_reader_panic() {
    let whole = whole();
    let mut random = Random::new();
    let mut answered = 0;
    for _ in 0..100_000 {
        match converse(&random.spoil(&whole)).await {
            Ok(_) => answered += 1,
            Err(error) => assert!(!error.to_string().contains(char::is_control), "{error}"),
        }
    }
    assert!(answered > 100, "hardly any was understood");
}

#[tokio::test]
async fn every_place_that_a_conversation_can_be_cut_at_is_an_error() {
    let whole = whole();
    assert_eq!(converse(&whole).await.unwrap(), "the answer is \"7\"");
    for end in 0..whole.len() {
        let error = converse(&whole[..end]).await.unwrap_err();
        assert!(matches!(error, Error::Closed(_)), "after {end} bytes: {error}");
    }
}

#[tokio::test]
async fn a_result_cannot_have_more_than_is_to_be_expected() {
    let begin = [packet(0, &greeting("mysql_native_password")), packet(2, &fake::OK)].concat();
    for (result, expected) in [
        (packet(1, &[0xfd, 0, 0, 1]), "the result has 65536 columns, and 256 can be read"),
        (packet(1, b"\xfb/etc/passwd"), "the query asks for a file"),
        (packet(1, &[0xfc]), "this is not MySQL: a packet ends too early"),
    ] {
        assert_eq!(complaint(&[&begin[..], &result].concat()).await, expected);
    }
}

#[tokio::test]
async fn what_a_server_says_is_safe_for_a_terminal() {
    let said = [b"\xff\x15\x04\x1b[2J\r\n\xff\xfe".to_vec(), vec![b'x'; 10_000]].concat();
    let complaint = complaint(&packet(0, &said)).await;
    assert!(!complaint.contains(char::is_control), "{complaint:?}");
    assert!(complaint.len() < 300, "{complaint}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_bytes_come_the_conversation_ends(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
        greets in any::<bool>(),
        rest in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = if greets { packet(0, &greeting("caching_sha2_password")) } else { vec![] };
        for content in &packets {
            bytes.extend(packet(0, content));
        }
        bytes.extend(rest);
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        if let Err(error) = runtime.block_on(converse(&bytes)) {
            let error = error.to_string();
            prop_assert!(!error.contains(char::is_control), "{error:?}");
            prop_assert!(!error.contains("secret"), "{error}");
        }
    }
}
