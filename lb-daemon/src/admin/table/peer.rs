//! The peer in `tandem status`: whether the two keep their connections equal.

use super::{
    grid::{Cell, Grid, Tone},
    units,
};
use crate::core::{
    Status, SyncStatus,
    group::Role,
    sync::{Stage, Totals},
};

/// The conversation with the peer, if there is to be one.
pub(super) fn section(status: &Status) -> Option<Grid> {
    let SyncStatus { peer, conversation: view, .. } = status.sync.as_ref()?;
    let (state, tone) = match view.state {
        Stage::Disconnected => ("not connected", Tone::Bad),
        Stage::Greeting => ("greeting", Tone::Warn),
        Stage::Transferring => ("transferring", Tone::Warn),
        Stage::InSync => ("in sync", Tone::Good),
        Stage::Refused => ("refused", Tone::Bad),
    };
    let node = view.peer.as_ref().map(|peer| format!(" ({})", peer.node)).unwrap_or_default();
    let since = units::duration(view.since_seconds);
    let mut grid = Grid::new(&[]);
    grid.free([
        Cell::new("PEER", Tone::Bold),
        Cell::from(format!("  {peer}{node}  ")),
        Cell::new(state, tone),
        Cell::from(format!(" {since}")),
    ]);
    let Totals { changes_sent, changes_received, transfers_sent, transfers_received, .. } =
        view.totals;
    let lag = view.lag.last_seconds.map_or_else(String::new, |seconds| {
        format!(", the last one in {:.1} ms", seconds * 1000.0)
    });
    grid.free([Cell::from(format!(
        "  changes: {} sent{lag}, {} waiting, {} received; transfers: {} sent, {} received",
        units::exact(changes_sent),
        units::exact(view.queue.changes),
        units::exact(changes_received),
        units::exact(transfers_sent),
        units::exact(transfers_received),
    ))]);
    if let Some(differences) = differences(&view.totals) {
        grid.free(differences);
    }
    let Totals { held, unacknowledged, .. } = view.totals;
    let unheld = unacknowledged + status.unheld;
    if held + unheld > 0 {
        let behind = if view.is_holding { "" } else { "; clients do not wait for the peer now" };
        let tone = if view.is_holding { Tone::Plain } else { Tone::Warn };
        let text = format!(
            "  synchronous: {} clients waited for the peer, {} were told before it knew{behind}",
            units::exact(held),
            units::exact(unheld),
        );
        grid.free([Cell::new(&text, tone)]);
    }
    if !view.why.is_empty() {
        grid.free([Cell::from(format!("  └ {}", view.why))]);
    }
    // A host that is master of everything has nothing to take back.
    let is_backup = status.groups.iter().any(|group| group.role != Role::Master);
    if let Some(not_ready) = view.not_ready.as_ref().filter(|_| is_backup) {
        let at_most = units::duration(not_ready.at_most_seconds);
        let text = format!(
            "  └ waits {at_most} more for the peer's connections before it takes a group back without them"
        );
        grid.free([Cell::new(&text, Tone::Warn)]);
    }
    for notice in &view.notices {
        grid.free([Cell::new(format!("  └ {notice}"), Tone::Warn)]);
    }
    Some(grid)
}

/// What comparing the tables has shown, if they ever differed. Not at the end of the line above: that
/// one may be as long as a line can be.
fn differences(totals: &Totals) -> Option<[Cell; 1]> {
    let Totals { mismatches, repaired, .. } = *totals;
    let plural = if mismatches == 1 { "" } else { "s" };
    (mismatches > 0).then(|| {
        let (mismatches, repaired) = (units::exact(mismatches), units::exact(repaired));
        [Cell::from(format!("  compared: {mismatches} difference{plural}, {repaired} repaired"))]
    })
}

#[cfg(test)]
mod tests {
    use crate::{
        admin::{sample, table::render},
        core::{
            SyncStatus,
            sync::{NotReady, PeerView, Stage, View},
        },
    };

    fn shown(conversation: View) -> String {
        let mut status = sample::healthy();
        status.sync = Some(SyncStatus {
            listen: "10.4.4.1:5405".parse().expect("an address"),
            peer: "10.4.4.2:5405".parse().expect("an address"),
            refused: 0,
            conversation,
        });
        render(&status, false, None)
    }

    #[test]
    fn the_peer_is_there_or_it_says_why_not() {
        assert!(!render(&sample::healthy(), false, None).contains("PEER"));

        let peer = PeerView { node: "lb2".to_owned(), ..PeerView::default() };
        let mut view = View { state: Stage::InSync, peer: Some(peer), ..View::default() };
        view.ready = true;
        view.since_seconds = 7;
        view.lag.last_seconds = Some(0.001_25);
        view.queue.changes = 3;
        view.totals.changes_sent = 12_345;
        view.notices = vec!["only this host has the groups b".to_owned()];
        let text = shown(view.clone());
        for expected in [
            "PEER  10.4.4.2:5405 (lb2)  in sync 7s\n",
            "changes: 12,345 sent, the last one in 1.2 ms, 3 waiting, 0 received; transfers: 0 sent, 0 received\n",
            "only this host has the groups b",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("difference"), "{text}");

        view.state = Stage::Disconnected;
        view.ready = false;
        let why = "the peer at 10.4.4.2:5405 has another key ([sync] key)";
        why.clone_into(&mut view.why);
        view.not_ready = Some(NotReady { why: String::new(), at_most_seconds: 42 });
        let text = shown(view);
        assert!(
            text.contains("not connected 7s\n") && text.contains(&format!("  └ {why}\n")),
            "{text}"
        );
        assert!(text.contains("waits 42s more"), "{text}");
        let problem = "connections are on one host only, and would end with it, for 7s:";
        assert!(text.contains(&format!(" ! {problem}\n     {why}\n")), "{text}");
    }
    #[test]
    fn what_differed_in_the_tables_is_shown_once_something_did() {
        let mut view = View { state: Stage::InSync, ready: true, ..View::default() };
        for (mismatches, repaired, expected) in [
            (1, 0, "  compared: 1 difference, 0 repaired\n"),
            (1_002, 2, "  compared: 1,002 differences, 2 repaired\n"),
        ] {
            (view.totals.mismatches, view.totals.repaired) = (mismatches, repaired);
            let text = shown(view.clone());
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
    }
}
