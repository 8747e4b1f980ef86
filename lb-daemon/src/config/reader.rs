//! A typed, strict walk over a TOML document: every value that is asked for is checked where it
//! stands, every key that nobody asked for is an error, and no error ends the walk.

use std::ops::RangeInclusive;

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    report::{Read, Report, Reported, Span},
    suggest,
};

/// A table of the file, or one that could be there.
pub(super) struct Table<'a> {
    /// Its header, as an operator would write it.
    title: &'static str,
    /// Where it begins; nothing if it is not there.
    span: Option<Span>,
    entries: Option<&'a DeTable<'a>>,
    /// The keys that were asked for.
    known: Vec<&'static str>,
    report: &'a Report<'a>,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(document: &'a DeTable<'a>, report: &'a Report<'a>) -> Self {
        let title = "the file's top level";
        Self { title, span: None, entries: Some(document), known: Vec::new(), report }
    }

    /// Reads the whole table: keys that `body` does not ask for are errors.
    pub(super) fn read<T>(mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let value = body(&mut self);
        for key in self.unknown() {
            self.refuse(key);
        }
        value
    }

    /// The value of `key`; nothing if it is not there, or if `parse` reported an error (which
    /// condemns the whole file, so that the default that takes its place is never used).
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Field<'a>) -> Read<T>,
    ) -> Option<T> {
        self.maybe(key, parse).ok().flatten()
    }

    /// The value of `key`, for those who must tell one that is not there from an error.
    pub(super) fn maybe<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Field<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        self.field(key).map(|field| parse(&field)).transpose()
    }

    /// The value of `key`, which must be there; `hint` says what to write if it is not.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&Field<'a>) -> Read<T>,
    ) -> Read<T> {
        if let Some(field) = self.field(key) {
            return parse(&field);
        }
        // A typing error is one error, not a missing key and an unknown one. (No other key of a
        // table may therefore look like a required one.)
        if let Some(typo) = self.unknown().find(|typo| suggest::near(typo.get_ref(), key)) {
            return Err(self.refuse(typo));
        }
        Err(self.missing(format!("`{key}` is missing in {}", self.title), hint))
    }

    /// The table under `key`. One that is not there (or is no table, which is reported) is empty.
    pub(super) fn table(&mut self, key: &'static str, title: &'static str) -> Table<'a> {
        let absent =
            Table { title, span: None, entries: None, known: Vec::new(), report: self.report };
        let hint = format!("write a header {title}, and its keys below it");
        self.optional(key, |field| field.table(title, &hint)).unwrap_or(absent)
    }

    /// The tables under `key`, each with a header `title` such as `[[service]]`; those that are
    /// no tables are reported and left out. An error only if none is left.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        title: &'static str,
    ) -> Read<Vec<Table<'a>>> {
        let Some(field) = self.field(key) else {
            return Ok(Vec::new());
        };
        let hint = format!("write {title}, and its keys below it");
        match field.value {
            DeValue::Array(_) => {
                let items = field.items();
                let tables: Vec<_> = items.iter().map(|item| item.table(title, &hint)).collect();
                if tables.iter().any(Read::is_ok) {
                    return Ok(tables.into_iter().filter_map(Read::ok).collect());
                }
                tables.into_iter().collect()
            }
            DeValue::Table(_) => {
                let message = format!("`{key}` is a list, but this is a single table");
                Err(field.error(message, format!("write {title}, with two brackets")))
            }
            _ => Err(field.wrong_type("a list of tables", &hint)),
        }
    }

    /// Reports that something is missing in this table.
    pub(super) fn missing(&self, message: impl AsRef<str>, hint: impl AsRef<str>) -> Reported {
        self.report.missing(self.span.clone(), message, hint)
    }

    /// Whether it has no keys at all, known or not.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_none_or(DeTable::is_empty)
    }

    /// Whether `key` is there, and nothing else.
    pub(super) fn holds_only(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.len() == 1 && entries.contains_key(key))
    }

    /// The keys that are there, of those that were asked for.
    pub(super) fn present(&self) -> Vec<&'static str> {
        let there = |key: &&str| self.entries.is_some_and(|entries| entries.contains_key(*key));
        self.known.iter().copied().filter(there).collect()
    }

    /// What to point at when the table as a whole is meant.
    pub(super) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.known.push(key);
        let value = self.entries?.get(key)?;
        Some(Field::new(key, value, self.report))
    }

    /// Keys that were not asked for so far.
    fn unknown(&self) -> impl Iterator<Item = &'a Spanned<DeString<'a>>> {
        let known = &self.known;
        let keys = self.entries.into_iter().flat_map(DeTable::keys);
        keys.filter(|key| !known.contains(&key.get_ref().as_ref()))
    }

    fn refuse(&self, key: &Spanned<DeString<'_>>) -> Reported {
        let name = key.get_ref();
        let message = format!("unknown key `{}` in {}", name.escape_debug(), self.title);
        self.report.error(key.span(), message, suggest::key(name, &self.known))
    }
}

/// A value of the file, and the key it belongs to.
pub(super) struct Field<'a> {
    key: &'static str,
    span: Span,
    value: &'a DeValue<'a>,
    report: &'a Report<'a>,
}

impl<'a> Field<'a> {
    fn new(key: &'static str, value: &'a Spanned<DeValue<'a>>, report: &'a Report<'a>) -> Self {
        Self { key, span: value.span(), value: value.get_ref(), report }
    }

    pub(super) fn key(&self) -> &'static str {
        self.key
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The value as the operator wrote it, fit for a message: one line, not too long, no password.
    pub(super) fn source(&self) -> String {
        const LONGEST: usize = 60;
        if self.report.is_concealed(&self.span) {
            return "...".to_owned();
        }
        let source = self.report.source(&self.span);
        let line = source.lines().next().unwrap_or_default();
        let mut shown: String = line.chars().take(LONGEST).collect();
        if shown.len() < source.len() {
            shown.push_str(" ...");
        }
        shown
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// `value` together with its place, for what can only be checked later.
    pub(super) fn spanned<T>(&self, value: T) -> Spanned<T> {
        Spanned::new(self.span(), value)
    }

    pub(super) fn string(&self) -> Read<&'a str> {
        match self.value {
            DeValue::String(text) => Ok(text),
            DeValue::Array(_) | DeValue::Table(_) => {
                Err(self.wrong_type("text", "write one value in quotes"))
            }
            _ => Err(self.wrong_type("text", &format!("put it in quotes: \"{}\"", self.source()))),
        }
    }

    /// A whole number; `hint` says more about its range.
    pub(super) fn integer(&self, range: &RangeInclusive<u32>, hint: &str) -> Read<u32> {
        let DeValue::Integer(integer) = self.value else {
            let hint = match self.value {
                DeValue::String(text) if text.parse::<u32>().is_ok() => {
                    format!("remove the quotes: {} = {text}", self.key)
                }
                _ => format!("write a number from {} to {}", range.start(), range.end()),
            };
            return Err(self.wrong_type("a whole number", &hint));
        };
        match u32::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let (low, high) = (range.start(), range.end());
                let message =
                    format!("`{}` is {}, but must be {low} to {high}", self.key, self.source());
                Err(self.error(message, hint))
            }
        }
    }

    /// A whole number that can be negative; `hint` says more about its range.
    pub(super) fn signed(&self, range: &RangeInclusive<i16>, hint: &str) -> Read<i16> {
        let (low, high) = (range.start(), range.end());
        let Some(integer) = self.as_integer() else {
            return Err(
                self.wrong_type("a whole number", &format!("write a number from {low} to {high}"))
            );
        };
        match i16::try_from(integer) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => {
                let message =
                    format!("`{}` is {}, but must be {low} to {high}", self.key, self.source());
                Err(self.error(message, hint))
            }
        }
    }

    /// The text, for what can be written in other ways, too.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// The whole number, for what can be written in other ways, too.
    pub(super) fn as_integer(&self) -> Option<i64> {
        let DeValue::Integer(integer) = self.value else {
            return None;
        };
        // A number beyond this is beyond whatever it is used for, too.
        Some(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX))
    }

    pub(super) fn boolean(&self) -> Read<bool> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false", "write true or false, without quotes")),
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Read<T> {
        let word = self.as_text().unwrap_or_default();
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Ok(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let message = format!("`{}` can't be {}", self.key, self.source());
        Err(self.error(message, suggest::word(word, &names)))
    }

    /// The elements of a list; nothing if it is no list.
    pub(super) fn as_list(&self) -> Option<Vec<Field<'a>>> {
        self.value.is_array().then(|| self.items())
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// The elements of a list; a single value counts as a list of one.
    pub(super) fn items(&self) -> Vec<Field<'a>> {
        match self.value {
            DeValue::Array(items) => {
                items.iter().map(|item| Field::new(self.key, item, self.report)).collect()
            }
            value => vec![Field { key: self.key, span: self.span(), value, report: self.report }],
        }
    }

    /// A table; `title` is how messages name it, `hint` what to write instead of another type.
    pub(super) fn table(&self, title: &'static str, hint: &str) -> Read<Table<'a>> {
        let DeValue::Table(entries) = self.value else {
            return Err(self.wrong_type("a table", hint));
        };
        Ok(Table {
            title,
            span: Some(self.span()),
            entries: Some(entries),
            known: Vec::new(),
            report: self.report,
        })
    }

    pub(super) fn error(&self, message: impl AsRef<str>, hint: impl AsRef<str>) -> Reported {
        self.report.error(self.span(), message, hint)
    }

    fn wrong_type(&self, expected: &str, hint: &str) -> Reported {
        let found = match self.value {
            DeValue::String(_) => "text in quotes",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("`{}` must be {expected}, not {found}", self.key), hint)
    }
}
