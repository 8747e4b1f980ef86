//! What keeps one service, many lines and old numbers from being in the way of others.

use super::*;
use crate::core::admission::queues::MOST_OF_SERVICE;

#[test]
fn one_service_does_not_take_all_room() {
    const OTHER: u16 = SERVICE + 1;
    let (mut queues, mut places, now) = queues(unlimited(), false);
    let both = [SERVICE, OTHER].map(|number| (number, unlimited()));
    queues.configure(both.into(), &mut places);
    for port in 0..=MOST_OF_SERVICE {
        arrive(&mut queues, &mut places, u16::try_from(port).expect("a port"), now);
    }
    assert_eq!((view(&queues, now).refused, places.refused.len()), (1, 1));
    agrees(&queues, &places, now);
    let arrival = Arrival { service: OTHER, ..places.arrival(u16::MAX) };
    queues.arrive(arrival, now, &mut places);
    assert_eq!((queues.view(now)[&OTHER].waiting, places.refused.len()), (1, 1));
}

#[test]
fn an_arrival_is_no_more_work_where_many_lines_wait() {
    const LINES: u16 = 400;
    let (mut queues, mut places, now) = queues(unlimited(), true);
    places.free = (0..LINES).map(|number| (number, 0)).collect();
    for port in 0..LINES {
        arrive(&mut queues, &mut places, port, now);
    }
    queues.call_all(&mut places);
    assert_eq!((places.waiting, places.asked.get()), (LINES.into(), LINES.into()));
}

#[test]
fn a_number_that_no_backend_has_any_more_leaves_no_line_behind() {
    let (mut queues, mut places, now) = queues(unlimited(), true);
    arrive(&mut queues, &mut places, 3, now);
    assert_eq!(view(&queues, now).bound[&11], (1, 1));
    places.free = BTreeMap::from([(10, 0)]);
    let without = Rules { backends: [10].into(), ..unlimited() };
    queues.configure(BTreeMap::from([(SERVICE, without.clone())]), &mut places);
    let found = view(&queues, now).bound;
    assert_eq!(found, BTreeMap::from([(10, (1, 1)), (11, (0, 1))]), "it may come back");
    let without = Rules { members: [10].into(), ..without };
    queues.configure(BTreeMap::from([(SERVICE, without)]), &mut places);
    assert_eq!(view(&queues, now).bound, BTreeMap::from([(10, (1, 1))]));
}
