//! What is told is what is heard; what nobody told is refused, and does no harm.

use proptest::{collection, prelude::*, sample::select, strategy::ValueTree as _, test_runner};

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::*;
use crate::{
    core::sync::{Change, Connection, Digest, Hello, Message, Scope, Tuple},
    noise::Random,
};

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("it fits");
    bytes
}

fn socket(is_v6: bool) -> BoxedStrategy<SocketAddr> {
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
    let ip = if is_v6 { v6.boxed() } else { v4.boxed() };
    (ip, any::<u16>()).prop_map(SocketAddr::from).boxed()
}

fn tuple() -> impl Strategy<Value = Tuple> {
    any::<bool>().prop_flat_map(|is_v6| {
        let one = || socket(is_v6);
        (one(), one(), one(), one()).prop_map(|(client, bind, source, backend)| Tuple {
            client,
            bind,
            source,
            backend,
        })
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    (tuple(), any::<u8>(), any::<u32>()).prop_map(|(tuple, state, timestamp)| Connection {
        tuple,
        state,
        timestamp,
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        connection().prop_map(Change::Is),
        connection().prop_map(Change::Answered),
        tuple().prop_map(Change::Gone),
    ]
}

fn names() -> impl Strategy<Value = BTreeSet<String>> {
    collection::btree_set("\\PC{0,12}", 0..5)
}

fn range() -> impl Strategy<Value = std::ops::RangeInclusive<u16>> {
    (any::<u16>(), any::<u16>()).prop_map(|(a, b)| a.min(b)..=a.max(b))
}

fn scope() -> impl Strategy<Value = Scope> {
    let buckets = collection::btree_set(any::<u8>(), 0..20);
    (names(), buckets).prop_map(|(groups, buckets)| Scope { groups, buckets })
}

fn hello() -> impl Strategy<Value = Hello> {
    (range(), "\\PC{0,20}", "\\PC{0,20}", range(), names()).prop_map(
        |(versions, program, node, source_ports, groups)| Hello {
            versions,
            program,
            node,
            source_ports,
            groups,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let sums = || collection::vec(any::<u64>(), 256).prop_map(|all| all.try_into().expect("256"));
    prop_oneof![
        hello().prop_map(Message::Hello),
        collection::vec(change(), 0..6).prop_map(Message::Changes),
        (any::<u32>(), scope(), names()).prop_map(|(id, scope, served)| Message::TransferBegins {
            id,
            scope,
            served
        }),
        collection::vec(connection(), 0..6).prop_map(Message::Transfer),
        any::<u32>().prop_map(|id| Message::TransferEnds { id }),
        any::<u32>().prop_map(|id| Message::TransferDone { id }),
        scope().prop_map(Message::Want),
        ("\\PC{0,12}", sums())
            .prop_map(|(group, sums)| Message::Digest { group, digest: Box::new(Digest(sums)) }),
        names().prop_map(Message::Serving),
        (any::<u64>(), any::<u32>()).prop_map(|(number, refused)| Message::Ack { number, refused }),
        select(vec![Message::Alive]),
        "\\PC{0,40}".prop_map(Message::Bye),
    ]
}

proptest! {
    #[test]
    fn what_is_told_is_what_is_heard(messages in collection::vec(message(), 1..4)) {
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).expect("it fits");
        }
        let mut rest = &bytes[..];
        for message in messages {
            let (heard, length) = decode(rest).expect("a message").expect("all of it");
            prop_assert_eq!(heard, message);
            rest = &rest[length..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn a_frame_that_is_not_all_there_yet_is_waited_for(message in message()) {
        let bytes = encoded(&message);
        for length in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..length]), Ok(None), "{} bytes", length);
        }
    }

    /// The length says that the frame ends there.
    #[test]
    fn a_message_cut_short_is_refused_or_another_one(message in message()) {
        let bytes = encoded(&message);
        for length in LENGTH..bytes.len() {
            let mut cut = bytes[..length].to_vec();
            let claim = u32::try_from(length - LENGTH).expect("short");
            cut[..LENGTH].copy_from_slice(&claim.to_be_bytes());
            if let Ok(heard) = decode(&cut) {
                let (heard, took) = heard.expect("all that was promised");
                prop_assert_eq!(took, length);
                // Of a hello, fields may be left out.
                if !matches!(message, Message::Hello(_)) {
                    prop_assert_ne!(&heard, &message);
                    prop_assert_eq!(encoded(&heard), cut, "there is one way to say it");
                }
            }
        }
    }

    #[test]
    fn any_byte_may_be_wrong(message in message(), flip in 1..=u8::MAX) {
        let bytes = encoded(&message);
        for place in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[place] ^= flip;
            // The tag of a field of a hello that is empty does not matter.
            if let Ok(Some((heard, _))) = decode(&wrong)
                && !matches!(message, Message::Hello(_))
            {
                prop_assert_ne!(heard, message.clone(), "byte {} does not matter", place);
            }
        }
    }

    #[test]
    fn garbage_does_no_harm(body in collection::vec(any::<u8>(), 0..300), kind in 0..16_u8) {
        let length = u32::try_from(body.len() + 1).expect("short");
        let frame = [&length.to_be_bytes()[..], &[kind], &body].concat();
        let _ = decode(&frame);
        let _ = decode(&body);
    }
}

/// A million frames, half of them messages that were cut, grown or changed in a few bytes, most with
/// their length made right, and half noise.
#[test]
fn no_bytes_make_the_reader_panic() {
    let mut runner = test_runner::TestRunner::deterministic();
    let mut sample = || encoded(&message().new_tree(&mut runner).expect("a message").current());
    let frames: Vec<_> = (0..200).map(|_| sample()).collect();
    let mut random = Random::new();
    let mut heard = 0;
    for _ in 0..1_000_000 {
        let whole = random.pick(&frames);
        let mut frame = random.spoil(whole);
        if random.below(4) > 0 && frame.len() >= LENGTH {
            let length = u32::try_from(frame.len() - LENGTH).expect("short");
            frame[..LENGTH].copy_from_slice(&length.to_be_bytes());
        }
        if let Ok(Some((message, length))) = decode(&frame) {
            heard += 1;
            assert!(length <= frame.len());
            let again = decode(&encoded(&message)).expect("a message").expect("all of it");
            assert_eq!(again.0, message);
        }
    }
    assert!(heard > 1000, "hardly any was a message");
}

#[test]
fn the_form_is_what_the_description_says() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let tuple = Tuple {
        client: at("192.0.2.1:258"),
        bind: at("10.2.2.4:3306"),
        source: at("10.3.3.4:1025"),
        backend: at("10.3.3.10:3307"),
    };
    let connection = Connection { tuple, state: 3, timestamp: 0x0102_0304 };
    let changes = Message::Changes(vec![Change::Is(connection), Change::Gone(tuple)]);
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 56, 2,
        0, 192, 0, 2, 1, 1, 2, 10, 2, 2, 4, 12, 234, 10, 3, 3, 4, 4, 1, 10, 3, 3, 10, 12, 235,
        3, 1, 2, 3, 4,
        2, 192, 0, 2, 1, 1, 2, 10, 2, 2, 4, 12, 234, 10, 3, 3, 4, 4, 1, 10, 3, 3, 10, 12, 235,
    ];
    assert_eq!(encoded(&changes), expected);

    let hello = Message::Hello(Hello {
        versions: 1..=2,
        program: "0.1".to_owned(),
        node: "lb1".to_owned(),
        source_ports: 1024..=1279,
        groups: ["a", "b"].map(str::to_owned).into(),
    });
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 35, 1, 0, 1, 0, 2,
        1, 0, 3, b'0', b'.', b'1', 2, 0, 3, b'l', b'b', b'1', 3, 0, 4, 4, 0, 4, 255,
        4, 0, 8, 0, 2, 0, 1, b'a', 0, 1, b'b',
    ];
    assert_eq!(encoded(&hello), expected);

    let scope = Scope { groups: BTreeSet::new(), buckets: [0, 9, 255].into() };
    let mut expected = [0; 39];
    expected[3] = 35;
    expected[4] = 7;
    (expected[7], expected[8], expected[38]) = (1, 2, 128);
    assert_eq!(encoded(&Message::Want(scope)), expected);
}

/// As a later version may say it.
#[test]
fn a_hello_may_have_fields_that_nobody_knows_yet() {
    #[rustfmt::skip]
    let frame = [
        0, 0, 0, 18, 1, 0, 7, 0, 9, 200, 0, 3, 1, 2, 3, 3, 0, 4, 0, 1, 0, 2,
    ];
    let Ok(Some((Message::Hello(hello), _))) = decode(&frame) else { panic!("it is a hello") };
    assert_eq!((hello.versions, hello.source_ports), (7..=9, 1..=2));
}

#[test]
fn what_a_hello_must_not_say_is_refused() {
    let bad = |what| Err(Malformed::Value(kind::HELLO, what));
    let frame = |body: &[u8]| {
        let length = u32::try_from(body.len() + 1).expect("short");
        [&length.to_be_bytes()[..], &[kind::HELLO], body].concat()
    };
    let ports = [3, 0, 4, 0, 1, 0, 2];
    assert_eq!(decode(&frame(&[0, 2, 0, 1])), bad("range of versions"));
    assert_eq!(decode(&frame(&[0, 1, 0, 1])), bad("range of ports"), "there is none");
    assert_eq!(decode(&frame(&[0, 1, 0, 1, 3, 0, 4, 0, 2, 0, 1])), bad("range of ports"));
    let twice = [&[0, 1, 0, 1][..], &ports, &ports].concat();
    assert_eq!(decode(&frame(&twice)), bad("field"));
}

#[test]
fn lengths_that_are_none_are_refused_at_once() {
    let most = u32::try_from(FRAME - LENGTH).expect("small");
    for length in [0, most + 1, u32::MAX] {
        assert_eq!(decode(&length.to_be_bytes()), Err(Malformed::Frame(length)));
    }
    assert_eq!(decode(&most.to_be_bytes()), Ok(None));
    assert_eq!(decode(&[0, 0, 0, 1, 99]), Err(Malformed::Kind(99)));
    assert_eq!(decode(&[0, 0, 0, 2, kind::ALIVE, 0]), Err(Malformed::Long(kind::ALIVE)));
    // More names than there are bytes for.
    let serving = [0, 0, 0, 3, kind::SERVING, 0xff, 0xff];
    assert_eq!(decode(&serving), Err(Malformed::Short(kind::SERVING)));
}

#[test]
fn what_does_not_fit_is_not_told_in_part() {
    let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let v6 = at("[2001:db8::1]:1");
    let tuple = Tuple { client: v6, bind: v6, source: v6, backend: v6 };
    let one = Connection { tuple, state: 0, timestamp: 0 };
    let mut out = vec![1, 2, 3];
    let result = encode(&Message::Transfer(vec![one; CONNECTIONS + 1]), &mut out);
    assert_eq!((result, &out[..]), (Err(Unfit::TooLong), &[1, 2, 3][..]));
    encode(&Message::Transfer(vec![one; CONNECTIONS]), &mut out).expect("so many fit");

    let mixed = Tuple { source: at("192.0.2.1:1"), ..tuple };
    let result = encode(&Message::Changes(vec![Change::Gone(mixed)]), &mut Vec::new());
    assert_eq!(result, Err(Unfit::Families));
    assert!(encode(&Message::Bye("!".repeat(FRAME)), &mut Vec::new()).is_err());
}
