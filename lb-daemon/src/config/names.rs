//! Names that are unique in the file, and those that something else refers to.

use std::collections::{BTreeMap, HashSet};

use toml::Spanned;

use super::{
    report::{Read, Report, Span},
    suggest,
};

/// The names of one kind of tables, such as `[[script]]`.
pub(super) struct Names {
    /// What such a table describes, for messages: one of them, and several.
    what: (&'static str, &'static str),
    places: BTreeMap<String, Span>,
    /// Whether there is one whose name could not be read.
    incomplete: bool,
    referred_to: HashSet<String>,
    /// Whether something refers to one that is not there.
    dangling: bool,
}

impl Names {
    pub(super) fn new(singular: &'static str, plural: &'static str) -> Self {
        Self {
            what: (singular, plural),
            places: BTreeMap::new(),
            incomplete: false,
            referred_to: HashSet::new(),
            dangling: false,
        }
    }

    /// Enters what could be read as a name; false if nothing could, or if it is there already.
    pub(super) fn enter(&mut self, name: &Read<Spanned<String>>, report: &Report<'_>) -> bool {
        let Ok(name) = name else {
            self.incomplete = true;
            return false;
        };
        if let Some(first) = self.places.get(name.get_ref()) {
            let message = format!("there are two {} called {:?}", self.what.1, name.get_ref());
            let hint = format!("rename one; the other is in line {}", report.line(first));
            report.error(name.span(), message, hint);
            return false;
        }
        self.places.insert(name.get_ref().clone(), name.span());
        true
    }

    /// Notes that there are some that could not be read.
    pub(super) fn incomplete(&mut self) {
        self.incomplete = true;
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Reports a reference to something that is not there; all names are entered by now.
    pub(super) fn refer(&mut self, name: &Spanned<String>, report: &Report<'_>) {
        if self.places.contains_key(name.get_ref()) {
            self.referred_to.insert(name.get_ref().clone());
            return;
        }
        self.dangling = true;
        if !self.incomplete {
            let what = self.what.0;
            let known: Vec<_> = self.places.keys().map(String::as_str).collect();
            let message = format!("there is no {what} called {:?}", name.get_ref());
            let hint = if known.is_empty() {
                format!("add a [[{what}]] with that name")
            } else {
                suggest::word(name.get_ref(), &known)
            };
            report.error(name.span(), message, hint);
        }
    }

    /// Warns of those that nobody refers to, unless a reference that is wrong may have meant them.
    pub(super) fn warn_of_unused(&self, report: &Report<'_>, why: &str, hint: &str) {
        if self.dangling {
            return;
        }
        for (name, place) in &self.places {
            if !self.referred_to.contains(name) {
                let message = format!("the {} {name:?} {why}", self.what.0);
                report.warning(Some(place.clone()), message, hint);
            }
        }
    }
}
