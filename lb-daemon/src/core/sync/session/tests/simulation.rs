//! Two hosts, their tables and their clients: under random schedules, in virtual time.
//!
//! One seed makes one world. The ordinary run takes [`STEPS`] steps, always the same. Variables of the
//! environment: `TANDEM_REPLICA_STEPS`, how many steps instead; `TANDEM_REPLICA_SEED`, which seed to
//! begin with. A failure prints its own.

use std::env;

use super::world::World;

/// Steps of the ordinary run.
const STEPS: u64 = 100_000;
/// Steps of one world, in between two times of quiet.
const LIFE: u64 = 1000;

#[test]
fn both_tables_become_equal_and_nothing_known_is_lost_whatever_happens() {
    let number =
        |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("it is a number"));
    let steps = number("TANDEM_REPLICA_STEPS").unwrap_or(STEPS);
    let mut seed = number("TANDEM_REPLICA_SEED").unwrap_or(0);
    let mut tally = super::watch::Tally::default();
    while tally.steps < steps {
        let mut world = World::new(seed);
        world.watch.tally = tally;
        for _ in 0..2 {
            for _ in 0..LIFE {
                world.step();
            }
            world.calm_down();
        }
        tally = world.watch.tally;
        seed += 1;
    }
    println!("{tally:?}");
    if steps >= STEPS {
        tally.expect_everything();
    }
}
