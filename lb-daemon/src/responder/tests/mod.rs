//! Those who ask, each by its own manners, before a MySQL of our own making.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};

use super::{Arguments, Database, MysqlLogin, MysqlQuestion, Source, arguments::Server, client};
use crate::{config::Password, mysql::tests::fake::Fake};

/// For what must come.
const AMPLE: Duration = Duration::from_secs(30);
/// For what must not.
const SCANT: Duration = Duration::from_millis(300);

const GOOD: &str = "<html><body>MySQL is running.</body></html>";

/// A MySQL that is in this state, and how often it was asked.
async fn node(state: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut fake = Fake::new(stream);
            fake.let_in().await;
            count.fetch_add(1, Relaxed);
            // Long enough for others to come meanwhile.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let row = [Some("wsrep_local_state"), Some(state)];
            fake.answer(&["Variable_name", "Value"], &[&row]).await;
            fake.hear().await;
        }
    });
    (address, asked)
}

/// A path where nothing is.
fn nothing(name: &str) -> PathBuf {
    env::temp_dir().join(format!("tandem-responder-{}-{name}", process::id()))
}

fn source(server: SocketAddr, fail_file: PathBuf, timeout: Duration, cache: Duration) -> Source {
    let question = MysqlQuestion::Galera { available_when_donor: false, not_when_read_only: false };
    let login =
        MysqlLogin { user: "check".into(), password: Password::default(), password_file: None };
    let database = Database { server: Server::Tcp(server), login, question, timeout };
    Source::new(fail_file, database, cache)
}

/// A source that is patient, and asks whenever somebody comes.
fn plain(server: SocketAddr) -> Source {
    source(server, nothing("plain"), AMPLE, Duration::ZERO)
}

/// What a client gets that behaves like this.
async fn answer(source: &Source, client: impl AsyncFnOnce(&mut DuplexStream)) -> String {
    let (mut ours, theirs) = duplex(64 * 1024);
    let ask = async {
        client(&mut ours).await;
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let both = async { tokio::join!(ask, client::serve(theirs, source)).0 };
    timeout(AMPLE, both).await.expect("an answer in time")
}

async fn get(source: &Source) -> String {
    answer(source, async |stream| stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap()).await
}

#[tokio::test]
async fn a_request_is_answered_by_the_state() {
    let (server, _) = node("4").await;
    let answer = get(&plain(server)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(GOOD), "{answer}");

    let (server, _) = node("2").await;
    let answer = get(&plain(server)).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("wsrep_local_state is 2 (donor, or desynced)\r\n"), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_is_answered_too() {
    let (server, _) = node("4").await;
    let answer = answer(&plain(server), async |_| {}).await;
    assert!(answer.ends_with(GOOD), "{answer}");
}

#[tokio::test]
async fn who_has_closed_its_half_is_answered_too() {
    let (server, _) = node("4").await;
    let answer = answer(&plain(server), async |stream| stream.shutdown().await.unwrap()).await;
    assert!(answer.ends_with(GOOD), "{answer}");
}

#[tokio::test]
async fn whatever_is_asked_the_answer_is_the_same_but_for_a_head() {
    let (server, _) = node("4").await;
    let source = plain(server);
    for request in
        [&b"OPTIONS / HTTP/1.0\r\n\r\n"[..], b"GET /x\n\n", b"\0\xff\r\n\r\n", b"PING\r\n"]
    {
        let answer = answer(&source, async |stream| stream.write_all(request).await.unwrap()).await;
        assert!(answer.ends_with(GOOD), "{answer}");
    }
    let head = async |stream: &mut DuplexStream| {
        stream.write_all(b"HEAD / HT").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(b"TP/1.1\r\n\r\n").await.unwrap();
    };
    let answer = answer(&source, head).await;
    assert!(answer.ends_with("Connection: close\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_endless_request_is_answered() {
    let (server, _) = node("4").await;
    let babble = async |stream: &mut DuplexStream| {
        let _ = stream.write_all(&vec![b'x'; 20_000]).await;
    };
    assert!(answer(&plain(server), babble).await.ends_with(GOOD));
}

#[tokio::test]
async fn who_does_not_leave_is_left() {
    let (server, _) = node("4").await;
    let source = plain(server);
    let (_kept, theirs) = duplex(1024);
    timeout(AMPLE, client::serve(theirs, &source)).await.expect("it is left");
}

#[tokio::test]
async fn a_storm_is_one_question() {
    let (server, asked) = node("4").await;
    let source = Arc::new(plain(server));
    let mut clients = JoinSet::new();
    for _ in 0..200 {
        let source = source.clone();
        clients.spawn(async move { get(&source).await });
    }
    for answer in clients.join_all().await {
        assert!(answer.ends_with(GOOD), "{answer}");
    }
    // A few may have come after the first answer, on a machine that is short of breath.
    let asked = asked.load(Relaxed);
    assert!((1..20).contains(&asked), "{asked} questions");
}

#[tokio::test]
async fn an_answer_is_given_again_while_it_is_fresh() {
    let (server, asked) = node("4").await;
    let fresh = source(server, nothing("fresh"), AMPLE, AMPLE);
    for _ in 0..3 {
        get(&fresh).await;
    }
    assert_eq!(asked.load(Relaxed), 1);

    let stale = plain(server);
    for _ in 0..3 {
        get(&stale).await;
    }
    assert_eq!(asked.load(Relaxed), 4);
}

#[tokio::test]
async fn the_file_forces_a_failure_at_once_whatever_is_known() {
    let (server, asked) = node("4").await;
    let file = nothing("proxyoff");
    let source = source(server, file.clone(), AMPLE, AMPLE);
    assert!(get(&source).await.ends_with(GOOD));

    fs::write(&file, "").unwrap();
    let forced = get(&source).await;
    fs::remove_file(&file).unwrap();
    assert!(forced.starts_with("HTTP/1.1 503 "), "{forced}");
    assert!(forced.contains(&format!("{} is there", file.display())), "{forced}");

    assert!(get(&source).await.ends_with(GOOD));
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn a_file_that_can_not_be_looked_for_is_a_failure() {
    let (server, _) = node("4").await;
    let file = "/proc/self/\0".into();
    let forced = get(&source(server, file, AMPLE, AMPLE)).await;
    assert!(forced.contains("can't be seen"), "{forced}");
}

#[tokio::test]
async fn a_mysql_that_hangs_is_a_failure_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let answer = get(&source(server, nothing("hangs"), SCANT, Duration::ZERO)).await;
    assert!(answer.contains(&format!("MySQL at {server}: no answer within 300ms")), "{answer}");
}

#[tokio::test]
async fn a_mysql_that_is_not_there_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    drop(listener);
    let answer = get(&plain(server)).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("cannot connect"), "{answer}");
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for line in [
        "--listen localhost:9200",
        "--listen 70000",
        "--server mysqld.sock",
        "--server db1:3306",
        "--timeout 2m",
        "--cache soon",
        "--clients 0",
        "--password secret",
    ] {
        let words = ["mysql"].into_iter().chain(line.split(' '));
        assert!(Line::try_parse_from(words).is_err(), "{line}");
    }
    let line = "mysql --listen [::1]:80 --server 127.0.0.1:3306 --timeout 2s --cache 0";
    let line = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string()).unwrap();
    assert_eq!(line.arguments.timeout, Duration::from_secs(2));
    assert_eq!(line.arguments.cache, Duration::ZERO);
}
