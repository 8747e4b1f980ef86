//! What became of the tests of a group.

/// Tests counted by outcome.
#[derive(Debug, Default)]
pub(super) struct Tally {
    passed: usize,
    /// More may have failed than have a line in `failures`.
    failed: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    /// Counts `count` tests that passed.
    pub(super) fn pass(&mut self, count: usize) {
        self.passed += count;
    }

    /// Counts one test that failed, with its name or its reason.
    pub(super) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Counts one test that was not run, with its name and the reason.
    pub(super) fn skip(&mut self, what: String) {
        self.skipped.push(what);
    }

    /// Counts what was skipped as failed.
    pub(super) fn fail_skipped(&mut self) {
        for skipped in std::mem::take(&mut self.skipped) {
            self.fail(format!("skipped: {skipped}"));
        }
    }

    /// Adds the counts of the group `name`.
    pub(super) fn add(&mut self, name: &str, other: &Self) {
        let named = |what: &String| format!("{name}: {what}");
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures.iter().map(named));
        self.skipped.extend(other.skipped.iter().map(named));
    }

    /// Whether no test ran at all.
    pub(super) fn is_empty(&self) -> bool {
        self.passed == 0 && self.failed == 0
    }

    /// How many tests failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// What failed, a line each.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// What was skipped and why, a line each.
    pub(super) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// `N passed, N failed, N skipped`
    pub(super) fn counts(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_names_the_group_of_each_line() {
        let mut group = Tally::default();
        group.pass(3);
        group.fail("a::b".to_owned());
        group.skip("c: needs a network".to_owned());

        let mut total = Tally::default();
        total.pass(1);
        total.add("unit", &group);
        assert_eq!(total.counts(), "4 passed, 1 failed, 1 skipped");
        assert_eq!(total.failures(), ["unit: a::b"]);
        assert_eq!(total.skipped(), ["unit: c: needs a network"]);
    }

    #[test]
    fn where_nothing_may_be_skipped_it_fails() {
        let mut tally = Tally::default();
        tally.skip("a: needs a network".to_owned());
        tally.fail_skipped();
        assert_eq!(tally.counts(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(tally.failures(), ["skipped: a: needs a network"]);
    }

    #[test]
    fn a_group_whose_tests_were_all_skipped_ran_nothing() {
        let mut tally = Tally::default();
        tally.skip("a".to_owned());
        assert!(tally.is_empty());
    }
}
