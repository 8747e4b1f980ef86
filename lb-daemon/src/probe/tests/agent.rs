//! Asking agents.

use super::*;
use crate::core::{AgentRequest, Reason};

async fn ask(target: SocketAddr, send: &str, timeout: Duration) -> Result<String, Outcome> {
    let id = ProbeId(9);
    let request = AgentRequest { id, target, send: send.to_owned(), timeout };
    let (answered, heard) = crate::probe::ask_agent(request).await;
    assert_eq!(answered, id);
    heard
}

#[tokio::test]
async fn the_first_line_is_the_answer_whatever_segments_it_comes_in() {
    const WHOLE: &[&[u8]] = &[b"75% up\n"];
    const SPLIT: &[&[u8]] = &[b"75", b"% u", b"p", b"\r\n"];
    const MORE: &[&[u8]] = &[b"75% up\rdown\n"];
    for pieces in [WHOLE, SPLIT, MORE] {
        let heard = ask(speaker(pieces).await, "", AMPLE).await;
        assert_eq!(heard.unwrap(), "75% up", "{pieces:?}");
    }
    assert_eq!(ask(speaker(&[b"\n"]).await, "", AMPLE).await.unwrap(), "");
}

#[tokio::test]
async fn what_is_to_be_sent_is_sent_as_it_is() {
    let (target, heard) = server(async |mut stream: TcpStream| {
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.unwrap();
        say(&mut stream, &[b"ready\n"]).await;
        read_all(&mut stream).await;
        question
    })
    .await;
    assert_eq!(ask(target, "db1\n", AMPLE).await.unwrap(), "ready");
    assert_eq!(&heard.await.unwrap(), b"db1\n");
}

#[tokio::test]
async fn an_agent_that_answers_without_listening_is_heard() {
    let target = speaker_that_hangs_up(b"drain\n").await;
    assert_eq!(ask(target, "a question\n", AMPLE).await.unwrap(), "drain");
}

#[tokio::test]
async fn a_line_without_an_end_is_no_answer() {
    let failure = ask(speaker_that_hangs_up(b"down").await, "", AMPLE).await.unwrap_err();
    assert_eq!(failure.reason, Reason::L7Response);
    assert!(failure.detail.contains("got \"down\""), "{}", failure.detail);
    let failure = ask(babbler(b"up ").await, "", AMPLE).await.unwrap_err();
    assert_eq!(failure.reason, Reason::L7Response, "{}", failure.detail);
    let failure = ask(speaker(&[b"up"]).await, "", SCANT).await.unwrap_err();
    assert_eq!(failure.reason, Reason::L7Timeout);
}

#[tokio::test]
async fn a_port_that_refuses_is_silence() {
    let (listener, target) = listen().await;
    drop(listener);
    let failure = ask(target, "", AMPLE).await.unwrap_err();
    assert_eq!(failure.reason, Reason::L4Connection);
}

#[tokio::test]
async fn control_characters_do_not_get_through() {
    let target = speaker(&[b"down # \x1b[2J\xff\x07\n"]).await;
    let line = ask(target, "", AMPLE).await.unwrap();
    assert!(!line.chars().any(char::is_control), "{line:?}");
}
