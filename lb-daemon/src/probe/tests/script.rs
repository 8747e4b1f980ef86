use regex::bytes::Regex;

use super::*;
use crate::{
    config::{Pattern, TcpAction, TcpExpect, TcpStep},
    core::Reason,
};

#[tokio::test]
async fn a_banner_passes() {
    let target = speaker(&[b"Galera is running.\r\n"]).await;
    let outcome = play(target, vec![expect("is running.")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok);
    assert_eq!(outcome.detail, r#"1 step done, got "Galera is running.\r\n""#);
}

#[tokio::test]
async fn a_banner_split_over_segments_passes() {
    let target = speaker(&[b"Galera is ru", b"nni", b"ng.\r\n"]).await;
    let outcome = play(target, vec![expect("is running.")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
}

#[tokio::test]
async fn a_regex_looks_anywhere_and_at_any_byte() {
    let target = speaker(&[b"\x4a\0\0\0\n10.", b"11.6-MariaDB\0\xff\xfe"]).await;
    let steps = vec![regex(r"(?-u)\d+\.\d+\.\d+-MariaDB\x00\xff")];
    let outcome = play(target, steps, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
    assert!(outcome.detail.contains(r"\n10.11.6-MariaDB\x00"), "{}", outcome.detail);
}

#[tokio::test]
async fn a_conversation_is_played_in_order_and_its_last_word_arrives() {
    let (target, heard) = server(async |mut stream: TcpStream| {
        say(&mut stream, &[b"220 mail\r\n"]).await;
        let mut hello = [0; 6];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"HELO\r\n");
        say(&mut stream, &[b"250 ok\r\n"]).await;
        read_all(&mut stream).await
    })
    .await;
    let steps =
        vec![expect("220 "), send("HELO\r\n"), expect("250 "), send("QUIT\r\n"), send("bye\r\n")];
    let outcome = play(target, steps, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
    assert_eq!(outcome.detail, "5 steps done");
    assert_eq!(heard.await.unwrap(), b"QUIT\r\nbye\r\n", "although the connection ends by RST");
}

#[tokio::test]
async fn expects_in_a_row_all_see_the_whole_answer() {
    let target = speaker(&[b"role:master mode:rw"]).await;
    let steps = vec![expect("mode:rw"), expect("role:master"), regex("^role:m")];
    let outcome = play(target, steps, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
}

#[tokio::test]
async fn a_send_forgets_what_came_before() {
    let (target, _) = server(async |mut stream: TcpStream| {
        say(&mut stream, &[b"hello"]).await;
        stream.read_u8().await.unwrap();
        say(&mut stream, &[b"world"]).await;
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let steps = vec![expect("hello"), send("?"), expect("hello")];
    let outcome = play(target, steps, AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        r#"step 3: expected "hello", got "world", then the connection was closed"#
    );
}

#[tokio::test]
async fn a_wrong_banner_fails_and_is_quoted() {
    let target = speaker_that_hangs_up(b"HTTP/1.1 503 Service Unavailable\r\n\r\ndown").await;
    let outcome = play(target, vec![send("status\n"), expect("is running.")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        "step 2: expected \"is running.\", got \
         \"HTTP/1.1 503 Service Unavailable\\r\\n\\r\\ndown\", then the connection was closed"
    );
}

#[tokio::test]
async fn a_wrong_banner_on_an_open_connection_fails_when_time_is_up() {
    let target = speaker(&[b"ERR starting"]).await;
    let outcome = play(target, vec![expect("is running.")], SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, r#"step 1: expected "is running." within 1s, got "ERR starting""#);
    assert!(outcome.took >= SCANT);
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_times_out() {
    let (_listener, target) = listen().await;
    let outcome = play(target, vec![send("PING\r\n"), regex(r"\+PONG|-NOAUTH")], SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, r"step 2: expected /\+PONG|-NOAUTH/ within 1s, got nothing");
    assert!(outcome.took >= SCANT);
}

#[tokio::test]
async fn the_timeout_is_for_the_whole_script_however_slow_the_drip() {
    let (target, _) = server(async |mut stream: TcpStream| {
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let steps = vec![expect("."), expect(".."), expect("the end")];
    let outcome = play(target, steps, SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert!(outcome.detail.starts_with(r#"step 3: expected "the end" within 1s, got ".."#));
}

#[tokio::test]
async fn a_server_that_takes_no_more_times_out_in_the_send() {
    let (_listener, target) = listen().await;
    let steps = vec![step(TcpAction::Send(vec![b'x'; 64 << 20]))];
    let outcome = play(target, steps, SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout);
    assert_eq!(outcome.detail, "step 1: could not send: not taken within 1s");
}

#[tokio::test]
async fn an_early_close_fails() {
    let target = speaker_that_hangs_up(b"").await;
    let outcome = play(target, vec![expect("220")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        r#"step 1: expected "220", got nothing, then the connection was closed"#
    );
}

#[tokio::test]
async fn a_reset_fails_and_says_so() {
    let (target, _) = server(async |mut stream: TcpStream| {
        stream.read_u8().await.unwrap();
        say(&mut stream, &[b"2"]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let outcome = play(target, vec![send("?"), expect("220")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(outcome.detail, r#"step 2: expected "220", got "2", then connection reset by peer"#);
}

#[tokio::test]
async fn endless_data_without_a_match_fails_after_16_kib() {
    let target = babbler(b"all work and no play ").await;
    let outcome = play(target, vec![expect("redrum")], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(
        outcome.detail,
        "step 1: expected \"redrum\" in the first 16384 bytes, got \
         \"all work and no play all work and no play all work and no pl…\""
    );
}

#[tokio::test]
async fn a_match_in_the_last_of_16_kib_passes_and_one_beyond_does_not() {
    for (before, reason) in [(16381, Reason::L7Ok), (16382, Reason::L7Response)] {
        let mut answer = vec![b'.'; before];
        answer.extend(b"end");
        let (target, _) = server(async move |mut stream: TcpStream| {
            stream.write_all(&answer).await.unwrap();
            read_all(&mut stream).await
        })
        .await;
        let outcome = play(target, vec![expect("end")], AMPLE).await;
        assert_eq!(outcome.reason, reason, "{before} bytes before it: {outcome:?}");
    }
}

#[tokio::test]
async fn a_script_of_no_steps_needs_only_the_connection() {
    let (_listener, target) = listen().await;
    assert_eq!(play(target, Vec::new(), AMPLE).await.reason, Reason::L7Ok);
}

#[tokio::test]
async fn what_must_not_come_fails_the_check_when_it_comes() {
    let target = speaker(&[b"-ERR load", b"ing"]).await;
    let outcome = play(target, vec![refuse("loading", None)], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response);
    assert_eq!(outcome.detail, r#"step 1: expected no "loading", got "-ERR loading""#);
}

#[tokio::test]
async fn what_must_not_come_is_waited_for_until_the_connection_is_closed() {
    let target = speaker_that_hangs_up(b"all is well").await;
    let outcome = play(target, vec![refuse("ERR", None)], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");

    let target = speaker(&[b"all is well"]).await;
    let outcome = play(target, vec![refuse("ERR", None)], SCANT).await;
    assert_eq!(outcome.reason, Reason::L7Timeout, "as in HAProxy: it might still come");
    assert_eq!(outcome.detail, r#"step 1: expected no "ERR" within 1s, got "all is well""#);
}

#[tokio::test]
async fn a_verdict_is_final_when_as_much_has_come_as_is_asked_for() {
    let target = speaker(&[b"all is", b" well"]).await;
    let outcome = play(target, vec![refuse("ERR", Some(5))], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");

    let target = speaker(&[b"starting"]).await;
    let soon = TcpExpect { min_recv: Some(5), ..anywhere("well") };
    let outcome = play(target, vec![step(TcpAction::Expect(soon))], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Response, "without waiting for the connection's end");
    assert_eq!(outcome.detail, r#"step 1: expected "well", got "starting""#);

    let target = speaker_that_hangs_up(b"up").await;
    let cut_short = TcpExpect { min_recv: Some(100), ..anywhere("up") };
    let outcome = play(target, vec![step(TcpAction::Expect(cut_short))], AMPLE).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "no more will come: {outcome:?}");
}

#[tokio::test]
async fn a_comment_says_which_step_failed() {
    let target = speaker_that_hangs_up(b"-NOAUTH").await;
    let login = TcpStep { comment: Some("log in".to_owned()), ..expect("+OK") };
    let outcome = play(target, vec![login], AMPLE).await;
    assert_eq!(
        outcome.detail,
        r#"step 1 (log in): expected "+OK", got "-NOAUTH", then the connection was closed"#
    );
}

async fn play(target: SocketAddr, steps: Vec<TcpStep>, timeout: Duration) -> Outcome {
    probe(target, CheckKind::Tcp(steps), timeout).await
}

fn send(text: &str) -> TcpStep {
    step(TcpAction::Send(text.into()))
}

fn expect(text: &str) -> TcpStep {
    step(TcpAction::Expect(anywhere(text)))
}

fn regex(pattern: &str) -> TcpStep {
    let pattern = Pattern::Regex(Regex::new(pattern).unwrap());
    step(TcpAction::Expect(TcpExpect { pattern, ..anywhere("") }))
}

/// Expects that this does not come.
fn refuse(text: &str, min_recv: Option<u16>) -> TcpStep {
    step(TcpAction::Expect(TcpExpect { negated: true, min_recv, ..anywhere(text) }))
}

fn anywhere(text: &str) -> TcpExpect {
    TcpExpect { pattern: Pattern::String(text.into()), negated: false, min_recv: None }
}

fn step(action: TcpAction) -> TcpStep {
    TcpStep { action, comment: None }
}
