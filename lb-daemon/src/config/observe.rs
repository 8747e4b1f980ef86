//! What comes of failed handshakes with a backend: `observe`, `error_limit` and `on_error`.

use toml::Spanned;

use super::{
    model::{Observe, OnError},
    reader::{Field, Table},
    report::{Read, Report},
};

/// What a backend says of it, or the `server` table that it inherits from.
#[derive(Clone, Default)]
pub(super) struct ObserveKeys {
    /// Whether handshakes are observed. Kept with its place: whether there is a check may be said at
    /// another level.
    observe: Option<Spanned<bool>>,
    error_limit: Option<u32>,
    on_error: Option<OnError>,
}

impl ObserveKeys {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            observe: table.optional("observe", |field| Ok(field.spanned(is_observed(field)?))),
            error_limit: table.optional("error_limit", |field| {
                field.integer(&(1..=65_535), "this many failed handshakes in a row count")
            }),
            on_error: table.optional("on_error", |field| {
                field.choice(&OnError::ALL.map(|choice| (choice.name(), choice)))
            }),
        }
    }

    /// These keys, and where they are silent the inherited ones.
    pub(super) fn or(self, inherited: &Self) -> Self {
        Self {
            observe: self.observe.or_else(|| inherited.observe.clone()),
            error_limit: self.error_limit.or(inherited.error_limit),
            on_error: self.on_error.or(inherited.on_error),
        }
    }

    /// What comes of it for the backend of this name, HAProxy's defaults filled in.
    pub(super) fn resolve(
        self,
        backend: &str,
        is_checked: bool,
        report: &Report<'_>,
    ) -> Read<Option<Observe>> {
        let Some(place) = self.observe.filter(|observe| *observe.get_ref()) else {
            return Ok(None);
        };
        if !is_checked {
            let message = format!(
                "`observe` needs a health check, and the backend {backend:?} has none: once down, it \
                 would never come up again"
            );
            let hint = "remove `enabled = false` from its check, or give it observe = \"none\"";
            return Err(report.error(place.span(), message, hint));
        }
        Ok(Some(Observe {
            error_limit: self.error_limit.unwrap_or(10),
            on_error: self.on_error.unwrap_or(OnError::FailCheck),
        }))
    }
}

fn is_observed(field: &Field<'_>) -> Read<bool> {
    if field.string()? == "layer7" {
        let hint = "use observe = \"layer4\": nobody looks into the connections of a TCP service";
        return Err(field.error("`observe` \"layer7\" is for services in mode \"http\"", hint));
    }
    field.choice(&[("none", false), ("layer4", true)])
}
