//! Whatever comes to `tandem probe mysql`, its reader of requests returns, and knows a `HEAD`.
//!
//! `cargo fuzz run probe_request`, as the target `adverts`.
#![no_main]

use std::sync::LazyLock;

use lb_daemon::responder;
use libfuzzer_sys::fuzz_target;
use tokio::runtime;

static RUNTIME: LazyLock<runtime::Runtime> = LazyLock::new(|| {
    runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
});

fuzz_target!(|bytes: &[u8]| {
    let wants_body = RUNTIME.block_on(responder::read_request(&mut &bytes[..]));
    assert_eq!(wants_body, !bytes.starts_with(b"HEAD "));
});
