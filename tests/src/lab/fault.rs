//! What happens to a host of a pair, and what makes up for it.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Contest;

/// What happens to the host that holds the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What elects and balances on it is killed by `SIGKILL`.
    Kill,
    /// The cable on the client's side, where the adverts are, is pulled at the switch.
    Link,
    /// It vanishes from the network, and does not come back.
    PowerOff,
    /// Its daemon is asked to end.
    Stop,
}

impl Fault {
    /// All that a host comes back from.
    pub const HEALING: [Self; 3] = [Self::Kill, Self::Link, Self::Stop];

    /// Has it happen to a host, and does not wait for what comes of it.
    pub fn strike(self, contest: &mut Contest, host: usize) -> Result<()> {
        match self {
            Self::Kill => contest.member(host).crash(),
            Self::Link => contest.twin(host).front.pull()?,
            Self::PowerOff => contest.twin(host).power_off()?,
            Self::Stop => contest.member(host).retire()?,
        }
        Ok(())
    }

    /// Brings the host back, and waits until it can have heard an advert.
    pub fn heal(self, contest: &mut Contest, host: usize) -> Result<()> {
        match self {
            Self::Kill => contest.start_again(host),
            Self::Link => {
                contest.twin(host).front.plug()?;
                contest.settle();
                Ok(())
            }
            Self::PowerOff => bail!("it has no interfaces any more"),
            Self::Stop => {
                contest.member(host).elector().wait(Duration::from_secs(10))?;
                contest.start_again(host)
            }
        }
    }
}
