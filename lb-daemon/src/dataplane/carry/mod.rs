//! Carrying everything over from a data plane of another layout: an upgrade, or the way back.
//!
//! Nobody but a program of its own layout can read a data plane. But who stands in for a daemon that was
//! told to end is such a program, so it tells what there is, in terms that do not depend on layouts, and
//! the next daemon makes the same of it:
//!
//! ```text
//!  stand-in (old layout)                    next daemon (new layout)
//!
//!  Exporter  ─── Account ──────────────►    Import::begin    maps filled, numbers and all
//!  (a thread)─── connections ──────────►                     entered by the adopt programs
//!            ─── what changed since ───►    Import::replace  just before the programs are replaced ...
//!            ─── what changed since ───►    Import::finish   ... and just after
//! ```
//!
//! The programs on the interfaces are replaced atomically, one interface after the other: the pins of
//! their links move from the old directory to the new one. What was established between the last two
//! times is not known to the new program for some milliseconds, in which it drops what it does not know
//! rather than answer it ([`Truce`]).
//!
//! The leases are not copied. Their map is the same in every layout, and pinned in both directories: so
//! the stand-in and the daemon pass them on in it as in any other restart.
//!
//! How the two meet is in [`meeting`], what they say in [`account`].

mod account;
mod exporter;
mod import;
mod meeting;
mod read;
mod truce;
mod walk;

pub use self::exporter::Exporter;
pub(super) use self::{import::Import, meeting::decline};

use self::truce::Truce;
