//! The lab in network namespaces that the scenarios and the demo share.
//!
//! A scenario reads like a story:
//!
//! ```no_run
//! use tests::lab::{Ask, Family, IdentServer, Lab, Tandem};
//!
//! # fn story() -> anyhow::Result<()> {
//! let lab = Lab::two_arm(2)?;
//! let servers = [IdentServer::start(&lab.backends()[0], 80)?, IdentServer::start(&lab.backends()[1], 80)?];
//! let tandem = Tandem::start(&lab, "[[service]] ...")?;
//! tandem.wait_until("both up", Duration::from_secs(5), |status| {
//!     status.services[0].backends.iter().all(|backend| backend.state == State::Up)
//! })?;
//! let tally = Ask::at((lab.vip4(), 80).into()).times(100).at_once(10).from(lab.client());
//! tally.all_answered()?;
//! assert_eq!(tally.count("b1"), 50);
//! # Ok(())
//! # }
//! ```
pub mod lab;
