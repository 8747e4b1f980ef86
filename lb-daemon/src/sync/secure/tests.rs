//! Who has the key is let in, and nobody else; what is changed on the way is noticed.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const WIRE: usize = 1 << 20;
const KEY: &str = "0123456789abcdef0123456789abcdef";

async fn meet(ours: &str, theirs: &str) -> (Result<Channel, Failure>, Result<Channel, Failure>) {
    let (mut near, mut far) = duplex(WIRE);
    let (ours, theirs) = (Key::new(ours), Key::new(theirs));
    tokio::join!(
        async {
            let result = call(&mut near, &ours, &(1..=1)).await;
            drop(near);
            result
        },
        async {
            let result = answer(&mut far, &theirs).await;
            drop(far);
            result
        }
    )
}

async fn channels() -> (Channel, Channel) {
    let (near, far) = meet(KEY, KEY).await;
    (near.expect("the same key"), far.expect("the same key"))
}

#[test]
fn the_key_is_made_of_the_text_and_of_what_it_is_for() {
    // As sha256sum(1) has it.
    assert_eq!(Key::new("x").0[..8], 0xfbf8_e8bf_d857_6cc5_u64.to_be_bytes());
    assert_ne!(Key::new("x"), Key::new("y"));
    assert_eq!(format!("{:?}", Key::new("x")), "Key");
}

#[tokio::test]
async fn what_one_seals_the_other_opens() {
    let (mut near, mut far) = channels().await;
    let text: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for _ in 0..3 {
        for (from, to) in [(&mut near, &mut far)] {
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            from.seal(&text, &mut wire).expect("sealed");
            assert!(wire.windows(16).all(|part| part != &text[..16]), "it can be read");
            // It comes in parts.
            let mut taken = 0;
            for end in (0..wire.len()).step_by(40_000).chain([wire.len()]) {
                taken += to.open(&wire[taken..end], &mut plain).expect("as sealed");
            }
            assert_eq!(taken, wire.len());
            assert!(plain == text);
        }
        std::mem::swap(&mut near, &mut far);
    }
}

#[tokio::test]
async fn what_was_changed_on_the_way_or_said_before_is_refused() {
    let (mut near, _) = channels().await;
    let mut wire = Vec::new();
    near.seal(b"hello", &mut wire).expect("sealed");
    for place in LENGTH..wire.len() {
        let (mut near, mut far) = channels().await;
        let mut wire = Vec::new();
        near.seal(b"hello", &mut wire).expect("sealed");
        wire[place] ^= 1;
        let mut plain = Vec::new();
        assert!(matches!(far.open(&wire, &mut plain), Err(Failure::Garbled)), "byte {place}");
        assert!(plain.is_empty());
    }
    let (mut near, mut far) = channels().await;
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    near.seal(b"hello", &mut wire).expect("sealed");
    assert_eq!(far.open(&wire, &mut plain).expect("the first time"), wire.len());
    assert!(matches!(far.open(&wire, &mut plain), Err(Failure::Garbled)));
    assert!(matches!(far.open(&[0, 16], &mut plain), Err(Failure::Garbled)), "empty");
}

#[tokio::test]
async fn another_key_is_told_to_both() {
    let (near, far) = meet(KEY, "another").await;
    for side in [near, far] {
        let failure = side.expect_err("another key");
        assert_eq!(failure.to_string(), "has another key ([sync] key)");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_told() {
    async fn answered(said: &[u8]) -> (Failure, Vec<u8>) {
        let (mut near, mut far) = duplex(WIRE);
        near.write_all(said).await.expect("room");
        let failure = answer(&mut far, &Key::new(KEY)).await.expect_err("no caller");
        drop(far);
        let mut reply = Vec::new();
        near.read_to_end(&mut reply).await.expect("all of it");
        (failure, reply)
    }
    let (failure, reply) = answered(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(matches!(failure, Failure::Stranger), "{failure}");
    assert!(reply.is_empty(), "{reply:?}");
    let (failure, reply) = answered(b"tandem sync\x09\0\x01\0\x01").await;
    assert!(matches!(failure, Failure::Form), "{failure}");
    assert_eq!(reply, [2]);

    for (reply, expected) in [(1, "another key"), (2, "another version"), (72, "is it Tandem?")] {
        let (mut near, mut far) = duplex(WIRE);
        far.write_u8(reply).await.expect("room");
        let failure = call(&mut near, &Key::new(KEY), &(1..=1)).await.expect_err("refused");
        assert!(failure.to_string().contains(expected), "{reply}: {failure}");
    }
}

/// Time passes at once when nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_for_long() {
    let key = Key::new(KEY);
    for said in [&b""[..], b"tandem sync\x01\0\x01\0\x01"] {
        let (mut near, mut far) = duplex(WIRE);
        near.write_all(said).await.expect("room");
        let begun = tokio::time::Instant::now();
        let failure = answer(&mut far, &key).await.expect_err("nobody calls");
        assert!(matches!(failure, Failure::Silent), "{failure}");
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
    let (mut near, _far) = duplex(WIRE);
    let failure = call(&mut near, &key, &(1..=1)).await.expect_err("nobody answers");
    assert!(matches!(failure, Failure::Silent), "{failure}");
    let (mut near, far) = duplex(WIRE);
    drop(far);
    let failure = call(&mut near, &key, &(1..=1)).await.expect_err("nobody is there");
    assert!(matches!(failure, Failure::Io(_) | Failure::Closed), "{failure}");
}

/// Else whoever has heard one could make this host forget the caller that it has.
#[tokio::test(start_paused = true)]
async fn a_recording_of_a_caller_is_not_let_in() {
    async fn relay(from: &mut DuplexStream, to: &mut DuplexStream, bytes: usize) -> Vec<u8> {
        let mut heard = vec![0; bytes];
        from.read_exact(&mut heard).await.expect("so many");
        to.write_all(&heard).await.expect("room");
        heard
    }
    let key = Key::new(KEY);
    let (mut caller, mut near) = duplex(WIRE);
    let (mut far, mut answering) = duplex(WIRE);
    let versions = 1..=1;
    let (answering, said, heard) = tokio::join!(
        answer(&mut answering, &key),
        async {
            let mut said = relay(&mut near, &mut far, 64).await;
            relay(&mut far, &mut near, 49).await;
            said.extend(relay(&mut near, &mut far, 16).await);
            said
        },
        call(&mut caller, &key, &versions),
    );
    answering.expect("the caller itself");
    heard.expect("the called one itself");
    let (mut far, mut answering) = duplex(WIRE);
    far.write_all(&said).await.expect("room");
    let begun = Instant::now();
    let failure = answer(&mut answering, &key).await.expect_err("a recording");
    assert!(matches!(failure, Failure::Garbled), "{failure} after {:?}", begun.elapsed());
}

/// What stands before the handshake is protected by it.
#[tokio::test]
async fn the_versions_cannot_be_changed_on_the_way() {
    let key = Key::new(KEY);
    let (mut caller, mut near) = duplex(WIRE);
    let (mut far, mut answering) = duplex(WIRE);
    let versions = 1..=3;
    let (answering, caller, ()) =
        tokio::join!(answer(&mut answering, &key), call(&mut caller, &key, &versions), async {
            let mut said = [0; 64];
            near.read_exact(&mut said).await.expect("so many");
            assert_eq!(said[..16], *b"tandem sync\x01\0\x01\0\x03");
            said[15] = 2;
            far.write_all(&said).await.expect("room");
            let answer = far.read_u8().await.expect("an answer");
            near.write_u8(answer).await.expect("room");
        });
    assert!(answering.is_err());
    assert!(caller.is_err());
}
