//! TLS against real servers with certificates of all kinds.

mod der;
mod server;

use self::server::{Authority, NAME, fresh};
use super::*;
use crate::core::Reason;

#[tokio::test]
async fn a_good_certificate_passes() {
    let authority = Authority::new();
    let target = authority.serve(fresh(), &[]).await;
    let outcome = ask(&authority, target, &format!("sni = {NAME:?}")).await;
    assert_eq!(outcome.reason, Reason::L6Ok, "{outcome:?}");
    assert_eq!(outcome.detail, format!("TLS with {target}"));
}

#[tokio::test]
async fn without_a_name_to_ask_for_the_certificate_may_have_any() {
    let authority = Authority::new();
    let target = authority.serve(fresh(), &[]).await;
    let outcome = ask(&authority, target, "").await;
    assert_eq!(outcome.reason, Reason::L6Ok, "{outcome:?}");
}

#[tokio::test]
async fn certificates_that_are_not_good_are_told_apart() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut expired = fresh();
    expired.not_before = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let mut early = fresh();
    early.not_before = rcgen::date_time_ymd(2101, 1, 1);
    early.not_after = rcgen::date_time_ymd(2102, 1, 1);
    let other = "sni = \"other.example.com\"";
    let file = authority.file.display();
    #[rustfmt::skip]
    let table = [
        (authority.serve(expired, &[]).await, "", "the certificate has expired".to_owned()),
        (authority.serve(early, &[]).await, "", "the certificate is not valid yet".to_owned()),
        (stranger.serve(fresh(), &[]).await, "", format!("the certificate is from nobody in {file}")),
        (authority.serve(fresh(), &[]).await, other, "the certificate is not for other.example.com".to_owned()),
    ];
    for (target, keys, why) in table {
        let outcome = ask(&authority, target, keys).await;
        assert_eq!(outcome.reason, Reason::L6Response, "{outcome:?}");
        assert_eq!(outcome.detail, format!("TLS with {target}: {why}"));
        let outcome = ask(&authority, target, "verify = \"none\"").await;
        assert_eq!(outcome.reason, Reason::L6Ok, "nobody looks at it: {outcome:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_version_1_passes_where_none_is_looked_at() {
    let authority = Authority::new();
    let target = authority.serve_version_1().await;
    let outcome = ask(&authority, target, "verify = \"none\"").await;
    assert_eq!(outcome.reason, Reason::L6Ok, "{outcome:?}");
    let outcome = ask(&authority, target, "").await;
    assert_eq!(outcome.reason, Reason::L6Response, "{outcome:?}");
}

/// As `openssl req -x509` makes them: such a certificate may issue others.
#[tokio::test]
async fn a_certificate_that_its_owner_has_signed_passes_if_it_is_in_the_file() {
    let (own, stranger) = (Authority::with(fresh()), Authority::with(fresh()));
    let target = own.serve_itself().await;
    let name = format!("sni = {NAME:?}");
    for keys in ["", &name] {
        let outcome = ask(&own, target, keys).await;
        assert_eq!(outcome.reason, Reason::L6Ok, "{keys}: {outcome:?}");
        let outcome = ask(&stranger, target, keys).await;
        assert_eq!(outcome.reason, Reason::L6Response, "{keys}: {outcome:?}");
    }
    let outcome = ask(&own, target, "sni = \"other.example.com\"").await;
    assert_eq!(outcome.reason, Reason::L6Response, "{outcome:?}");
    assert!(outcome.detail.ends_with("is not for other.example.com"), "{outcome:?}");

    let mut expired = fresh();
    expired.not_before = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let expired = Authority::with(expired);
    let outcome = ask(&expired, expired.serve_itself().await, "").await;
    assert_eq!(outcome.reason, Reason::L6Response, "{outcome:?}");
    assert!(outcome.detail.ends_with("the certificate has expired"), "{outcome:?}");
}

#[tokio::test]
async fn another_certificate_that_may_issue_others_does_not_pass() {
    let authority = Authority::new();
    let mut issuing = fresh();
    issuing.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let target = authority.serve(issuing, &[]).await;
    let outcome = ask(&authority, target, "").await;
    assert_eq!(outcome.reason, Reason::L6Response, "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_fails() {
    let authority = Authority::new();
    let target = speaker(&[b"220 mail.example.com ESMTP\r\n"]).await;
    let outcome = ask(&authority, target, "").await;
    assert_eq!(outcome.reason, Reason::L6Response);
    assert_eq!(outcome.detail, format!("TLS with {target}: the backend does not speak TLS"));

    let target = speaker_that_hangs_up(b"").await;
    let outcome = ask(&authority, target, "").await;
    assert_eq!(outcome.reason, Reason::L6Response);
    let why = "the backend closed the connection in the middle of the handshake";
    assert_eq!(outcome.detail, format!("TLS with {target}: {why}"));
}

#[tokio::test]
async fn a_server_that_hangs_in_the_handshake_times_out() {
    let authority = Authority::new();
    let (_listener, target) = listen().await;
    let outcome = ask(&authority, target, "timeout = \"1s\"").await;
    assert_eq!(outcome.reason, Reason::L6Timeout);
    assert_eq!(outcome.detail, format!("TLS with {target}: no handshake within 1s"));
}

#[tokio::test]
async fn a_protocol_is_agreed_upon_or_the_check_fails() {
    let authority = Authority::new();
    for (offered, reason) in
        [("[\"h2\", \"imap\"]", Reason::L6Ok), ("\"pop3\"", Reason::L6Response)]
    {
        let target = authority.serve(fresh(), &["imap"]).await;
        let outcome = ask(&authority, target, &format!("alpn = {offered}")).await;
        assert_eq!(outcome.reason, reason, "{outcome:?}");
        if reason == Reason::L6Response {
            let why = "the backend speaks none of pop3";
            assert_eq!(outcome.detail, format!("TLS with {target}: {why}"));
        }
    }
}

#[tokio::test]
async fn what_is_asked_goes_through_tls() {
    let authority = Authority::new();
    let http = "httpchk = { method = \"GET\", expect_string = \"all is well\" }";
    let tcp = "tcp_check = [{ send = \"GET \" }, { expect_string = \"all is well\" }]";
    // It takes no leave: many do not.
    for (keys, detail) in [(http, "GET /: 200 OK"), (tcp, "2 steps done, got ")] {
        let target = authority.serve(fresh(), &[]).await;
        let outcome = ask(&authority, target, keys).await;
        assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
        assert!(outcome.detail.starts_with(detail), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_script_speaks_tls_where_it_says_so() {
    let authority = Authority::new();
    let target = authority.serve(fresh(), &[]).await;
    let steps = "ssl = false\ntcp_check = [{ connect = { ssl = true } }]";
    let outcome = ask(&authority, target, steps).await;
    assert_eq!(outcome.reason, Reason::L6Ok, "{outcome:?}");

    let target = speaker(&[b"220 smtp"]).await;
    let steps = "tcp_check = [{ connect = { ssl = false } }, { expect_string = \"220\" }]";
    let outcome = ask(&authority, target, steps).await;
    assert_eq!(outcome.reason, Reason::L7Ok, "{outcome:?}");
}

/// Checks a server with TLS, whose certificate must be from this authority, as a file with these
/// keys would have it checked.
async fn ask(authority: &Authority, target: SocketAddr, keys: &str) -> Outcome {
    let defaults = [
        ("timeout", "\"30s\"".to_owned()),
        ("ssl", "true".to_owned()),
        ("ca_file", format!("{:?}", authority.file)),
    ];
    let defaults = defaults.into_iter().filter(|(key, _)| !keys.contains(&format!("{key} = ")));
    let defaults: Vec<_> = defaults.map(|(key, value)| format!("{key} = {value}")).collect();
    let defaults = defaults.join("\n");
    let text = format!(
        "[global]
        node = \"lb1\"
        interfaces = [\"eth1\"]
        [[service]]
        name = \"web\"
        bind = \"10.2.2.5:443\"
        [[service.backend]]
        name = \"w1\"
        address = \"10.6.6.1:443\"
        [service.backend.check]
        address = \"{}\"
        port = {}
        inter = \"1m\"
        {defaults}
        {keys}",
        target.ip(),
        target.port()
    );
    let parsed = crate::config::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}"));
    let check = parsed.config.services[0].backends[0].check.clone();
    run(check.unwrap().as_ref().clone()).await
}
