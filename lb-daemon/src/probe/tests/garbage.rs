use proptest::prelude::*;
use regex::bytes::Regex;
use tokio::runtime;

use super::*;
use crate::{
    config::{Pattern, TcpAction, TcpExpect, TcpStep},
    core::Reason,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_bytes_come_the_outcome_is_a_failure_in_plain_text(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..4),
    ) {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for kind in [script(), http::get("/")] {
            let outcome = runtime.block_on(ask_a_server_that_says(&pieces, kind));
            prop_assert_eq!(outcome.reason, Reason::L7Response);
            prop_assert!(!outcome.detail.chars().any(char::is_control), "{}", outcome.detail);
            prop_assert!(outcome.detail.len() < 250, "{}", outcome.detail);
        }
    }
}

/// Can't pass, but does not know before the end.
fn script() -> CheckKind {
    let pattern = Pattern::Regex(Regex::new(r"^(?s-u:.*)\z\b up").unwrap());
    let action = TcpAction::Expect(TcpExpect { pattern, negated: false, min_recv: None });
    CheckKind::Tcp(vec![TcpStep { action, comment: None }])
}

async fn ask_a_server_that_says(pieces: &[Vec<u8>], kind: CheckKind) -> Outcome {
    let pieces = pieces.to_vec();
    let (target, served) = server(async move |mut stream: TcpStream| {
        for piece in &pieces {
            // The probe may have heard enough already, and be gone.
            let _ = stream.write_all(piece).await;
        }
        let _ = stream.shutdown().await;
        read_all(&mut stream).await
    })
    .await;
    let outcome = probe(target, kind, AMPLE).await;
    served.await.unwrap();
    outcome
}
