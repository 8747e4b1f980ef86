//! Who goes to another backend than its own, because too many wait for that.

use super::*;

/// Both backends have room for one to wait.
fn one_each() -> Rules {
    Rules { rooms: BTreeMap::from([(10, 1), (11, 1)]), ..unlimited() }
}

#[test]
fn where_too_many_wait_for_a_backend_the_next_one_goes_to_another() {
    let (mut queues, mut places, now) = queues(one_each(), true);
    places.free(11, 2);
    // The second time it is the same client, who goes on waiting for its own.
    for port in [2, 4, 2, 6] {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!(places.redispatched, [(4, 11), (6, 11)]);
    assert_eq!((places.waiting, places.refused.len()), (1, 0));
    arrive(&mut queues, &mut places, 8, now);
    assert_eq!(places.refused, [8], "no backend has a place for it");
    agrees(&queues, &places, now);
}

#[test]
fn nobody_goes_to_another_backend_ahead_of_those_that_wait_for_that() {
    for (places_free, served, refused) in [(1, &[5][..], &[4][..]), (2, &[5, 4], &[])] {
        let (mut queues, mut places, now) = queues(one_each(), true);
        for port in [2, 5] {
            arrive(&mut queues, &mut places, port, now);
        }
        places.free(11, places_free);
        arrive(&mut queues, &mut places, 4, now);
        assert_eq!((places.served.as_slice(), places.refused.as_slice()), (served, refused));
        agrees(&queues, &places, now);
    }
}

#[test]
fn who_goes_to_another_backend_takes_turns_of_those_that_have_a_place() {
    let rules = Rules { backends: [10, 11, 12, 13].into(), ..one_each() };
    let (mut queues, mut places, now) = queues(rules, true);
    places.free.extend([(12, 9), (13, 9)]);
    for port in [4, 8, 12, 16, 20] {
        arrive(&mut queues, &mut places, port, now);
    }
    let number_of = |number| places.redispatched.iter().filter(|(_, to)| *to == number).count();
    assert_eq!((places.redispatched.len(), places.free[&10]), (4, 0));
    assert!(number_of(12) > 0 && number_of(13) > 0, "{:?}", places.redispatched);
}

#[test]
fn who_finds_the_place_of_another_backend_taken_meanwhile_goes_to_a_third_one() {
    let rules = Rules { backends: [10, 11, 12, 13].into(), ..one_each() };
    let (mut queues, mut places, now) = queues(rules, true);
    // Of 12, it is always said that it has a place, and it never has.
    places.free.insert(13, 4);
    for port in [3, 6, 9, 12, 15] {
        arrive(&mut queues, &mut places, port, now);
    }
    assert_eq!((places.refused.len(), places.free[&13]), (0, 0), "{:?}", places.redispatched);
    agrees(&queues, &places, now);
}
