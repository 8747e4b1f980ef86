//! Whatever the peer says, the reader of messages returns, and what it took for a message is one.
//!
//! `cargo fuzz run sync`, as the target `adverts`.
#![no_main]

use lb_daemon::sync::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((message, length))) = codec::decode(rest) {
        let mut again = Vec::new();
        if codec::encode(&message, &mut again).is_err() {
            // A hello as long as a frame that left something out.
            return;
        }
        let same = codec::decode(&again).expect("a message").expect("all of it");
        assert_eq!(same, (message, again.len()));
        rest = &rest[length..];
    }
});
