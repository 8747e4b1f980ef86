//! Two and three hosts on a network that loses, delays, doubles, reorders and parts (also in one
//! direction alone), with daemons
//! that stall, die and start again, whose clocks don't run alike, and whose standing changes: under
//! random schedules, in virtual time.
//!
//! One seed makes one world: protocol, hosts, priorities, and all that happens. The ordinary run
//! takes [`STEPS`] steps, always the same. Variables of the environment:
//!
//! - `TANDEM_PAIR_STEPS`: how many steps instead.
//! - `TANDEM_PAIR_SEED`: which seed to begin with. A failure prints its own; with it, the failing
//!   world is the first.

use std::env;

mod host;
mod random;
mod rank;
mod watch;
mod world;

use watch::Tally;
use world::World;

/// Steps of the ordinary run.
const STEPS: u64 = 300_000;

/// Steps of one world.
const LIFE: u64 = 3_000;

#[test]
fn no_group_is_served_twice_nor_by_nobody_whatever_happens() {
    let number = |name: &str| {
        env::var(name).ok().map(|text| {
            text.parse().unwrap_or_else(|_| panic!("{name} has to be a number, not «{text}»"))
        })
    };
    let steps: u64 = number("TANDEM_PAIR_STEPS").unwrap_or(STEPS);
    let first: u64 = number("TANDEM_PAIR_SEED").unwrap_or(0);

    let mut tally = Tally::default();
    let mut seed = first;
    while tally.steps < steps {
        let mut world = World::new(seed);
        world.live(LIFE);
        tally.add(&world.watch.tally);
        seed += 1;
    }
    println!("{tally:?}");
    if steps >= STEPS {
        tally.expect_everything();
    }
}
