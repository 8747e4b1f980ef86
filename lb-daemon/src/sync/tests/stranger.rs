//! Whoever else calls, or is called: peers that misbehave, and those that are none.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener as AsyncListener, TcpStream as AsyncStream},
};

use super::model::{Host, KEY, Shared, addresses, hello, pair, wait};
use crate::{
    core::{
        PeerNews,
        sync::{Message, Stage},
    },
    sync::{
        codec,
        link::Link,
        secure::{self, Channel, Key},
        socket,
    },
};

/// Accepts one caller, or calls, and has the key.
async fn accept(at: SocketAddr) -> Link {
    let (stream, channel) = accept_plain(at).await;
    Link::new(stream, Box::new(channel))
}

/// Accepts one caller, to say what no link would.
async fn accept_plain(at: SocketAddr) -> (AsyncStream, Channel) {
    let listener = AsyncListener::bind(at).await.expect("a free port");
    let (mut stream, _) = listener.accept().await.expect("a caller");
    let channel = secure::answer(&mut stream, &Key::new(KEY)).await.expect("the key");
    (stream, channel)
}

async fn call(from: SocketAddr, to: SocketAddr) -> Link {
    let mut tries = 0..100;
    let mut stream: AsyncStream = loop {
        tries.next().expect("somebody listens");
        match socket::dial(from.ip(), to).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let channel = secure::call(&mut stream, &Key::new(KEY), &(1..=1)).await.expect("the key");
    Link::new(stream, Box::new(channel))
}

/// Hears one message.
async fn hear(link: &mut Link) -> Option<Message> {
    let mut heard = Vec::new();
    while heard.is_empty() {
        link.ready().await.ok()?;
        link.hear(&mut heard).ok()?;
    }
    heard.into_iter().next()
}

#[test]
fn garbage_on_the_port_is_hung_up_on_and_counted() {
    let [mut low, mut high] = pair();
    let (peer, host) = (low.view().listen, high.view().listen);
    // From an address that is not the peer's: not a word is listened to.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let from = |ip| {
        let stranger = runtime.block_on(socket::dial(ip, host)).expect("somebody listens");
        let stranger = stranger.into_std().expect("a socket");
        stranger.set_nonblocking(false).expect("a socket");
        stranger
    };
    let mut stranger = from([127, 0, 0, 3].into());
    stranger.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let read = stranger.read(&mut [0; 100]);
    assert!(!matches!(&read, Ok(1..)), "{read:?}");
    assert!(!matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    wait("one that was refused", || high.view().refused == 1);

    // From the peer's own address.
    for (index, said) in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0xff; 5000]].iter().enumerate()
    {
        let mut stranger = from(peer.ip());
        stranger.write_all(said).expect("room");
        // A reset is as good as an end.
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty());
        wait("one more that was refused", || high.view().refused == 2 + index as u64);
    }
    low.tables.get().serves = true;
    low.tables.open(0..10);
    wait("changes", || high.tables.get().connections.len() == 10);
    for host in [&mut low, &mut high] {
        host.is_undisturbed();
    }
}

#[test]
fn garbage_of_who_has_the_key_ends_the_conversation_and_the_next_one_is_not_disturbed() {
    let [low, high] = addresses();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut host = Host::start(low, high, &Shared::default());
    let garbage = [
        ("a frame of 0 bytes", vec![0, 0, 0, 0]),
        ("a frame of 4294967295 bytes", vec![0xff; 5000]),
        ("a message of the unknown kind 99", vec![0, 0, 0, 1, 99]),
        ("a message of the kind 10 is cut short", vec![0, 0, 0, 2, 10, 1]),
    ];
    for (why, said) in garbage {
        host.news.clear();
        runtime.block_on(async {
            let (mut stream, mut channel) = accept_plain(high).await;
            let (mut plain, mut wire) = (Vec::new(), Vec::new());
            codec::encode(&Message::Hello(hello(high, low)), &mut plain).expect("it is short");
            channel.seal(&plain, &mut wire).expect("sealed");
            stream.write_all(&wire).await.expect("room");
            host.is_connected();
            wire.clear();
            channel.seal(&said, &mut wire).expect("sealed");
            stream.write_all(&wire).await.expect("room");
            host.loses(&format!("says what nobody understands: {why}"));
        });
    }
    host.news.clear();
    let mut peer = Host::start(high, low, &Shared::default());
    for host in [&mut host, &mut peer] {
        host.is_connected();
        host.is_undisturbed();
    }
}

#[test]
fn a_peer_that_accepts_and_never_speaks_is_given_up() {
    let [low, high] = addresses();
    let listener = TcpListener::bind(high).expect("a free port");
    let mut host = Host::start(low, high, &Shared::default());
    let begun = Instant::now();
    let accepted = listener.accept().expect("a caller");
    host.fails("says nothing");
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
    drop((accepted, listener));
    let mut peer = Host::start(high, low, &Shared::default());
    host.is_connected();
    peer.is_connected();
}

#[test]
fn a_peer_that_says_no_more_is_given_up() {
    let [low, high] = addresses();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut host = Host::start(low, high, &Shared::default());
    runtime.block_on(async {
        let mut link = accept(high).await;
        assert!(matches!(hear(&mut link).await, Some(Message::Hello(_))));
        link.say(&[Message::Hello(hello(high, low))]).expect("sealed");
        link.flush().expect("room");
        host.is_connected();
        let begun = Instant::now();
        host.hears("an end", |news| matches!(news, PeerNews::Lost { .. }));
        let took = begun.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(10)).contains(&took), "{took:?}");
    });
    assert_eq!(host.view().conversation.state, Stage::Disconnected);
}

#[test]
fn a_peer_that_does_not_read_is_not_waited_for() {
    // More than the kernel buffers; and so few that even a busy machine is done before the link counts
    // as dead.
    const MANY: u32 = 150_000;
    let [low, high] = addresses();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut host = Host::start(low, high, &Shared::default());
    host.tables.get().serves = true;
    runtime.block_on(async {
        let mut link = accept(high).await;
        link.say(&[Message::Hello(hello(high, low))]).expect("sealed");
        link.flush().expect("room");
        host.is_connected();
        // It is alive, but reads nothing.
        for first in (0..MANY).step_by(10_000) {
            host.tables.open(first..first + 10_000);
            link.say(&[Message::Alive]).expect("sealed");
            // If that fails, it will be in the news.
            let _ = link.flush();
            let begun = Instant::now();
            wait("the reports to be taken", || host.tables.get().reports.is_empty());
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        // Then it does, and what it is told is still in order.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            let mut heard = Vec::new();
            while link.hear(&mut heard).is_ok_and(|has_more| has_more) {}
            link.say(&[Message::Alive]).expect("sealed");
            let _ = link.flush();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // As long as the link is there.
        host.is_undisturbed();
    });
}

#[test]
fn a_peer_that_calls_anew_replaces_its_old_call() {
    let [low, high] = addresses();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // The test is the caller.
    let mut host = Host::start(high, low, &Shared::default());
    runtime.block_on(async {
        let mut links = Vec::new();
        for _ in 0..3 {
            let mut link = call(low, high).await;
            link.say(&[Message::Hello(hello(low, high))]).expect("sealed");
            link.flush().expect("room");
            assert!(matches!(hear(&mut link).await, Some(Message::Hello(_))));
            host.is_connected();
            host.news.clear();
            links.push(link);
        }
        let mut last = links.pop().expect("three");
        for mut old in links {
            while let Some(message) = hear(&mut old).await {
                assert!(!matches!(message, Message::Hello(_)));
            }
        }
        // The last one is still there.
        let end = Instant::now() + Duration::from_millis(1500);
        let mut heard = 0;
        while Instant::now() < end {
            last.say(&[Message::Alive]).expect("sealed");
            last.flush().expect("room");
            let one = tokio::time::timeout(Duration::from_millis(200), hear(&mut last)).await;
            heard += usize::from(one.is_ok_and(|message| message.is_some()));
        }
        assert!(heard > 0);
    });
}

/// A listener may be there before its address is.
#[tokio::test]
async fn a_host_waits_for_calls_at_an_address_that_it_has_not_yet() {
    for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
        let listener = socket::listen(address.parse().expect("an address"));
        listener.expect("it does not matter that it is not ours");
    }
    let nobody = "192.0.2.78:9".parse().expect("an address");
    let from = "192.0.2.77".parse().expect("an address");
    let error = socket::dial(from, nobody).await.expect_err("it is not ours");
    assert_eq!(error.to_string(), "this host has not the address 192.0.2.77 ([sync] listen)");
}
