//! What the operator may have meant: near names, and HAProxy's words for ours.

/// Words of HAProxy and keepalived that people will try, and what they are called here.
const FAMILIAR: &[(&str, &str)] = &[
    ("addr", "the address to check is `check = { address = \"10.4.4.11\" }`"),
    ("address", "a service's own address is `bind`; a backend's goes into [[service.backend]]"),
    ("backends", "each backend is a table of its own: [[service.backend]]"),
    ("backup", "write `role = \"backup\"`"),
    ("bind", "the address of a service is set in its [[service]]"),
    ("default_server", "what all servers share goes into [defaults.server] or [service.server]"),
    ("disabled", "to take a backend out of use, write `weight = 0`"),
    ("downinter", "how often to check goes into the check: `check = { downinter = \"5s\" }`"),
    ("expect", "write `expect_string` for a text, or `expect_regex` for an expression"),
    ("fall", "put it into the check: `check = { fall = 3 }`"),
    ("fastinter", "how often to check goes into the check: `check = { fastinter = \"1s\" }`"),
    ("frontend", "a [[service]] holds both what clients connect to and its backends"),
    ("health", "health checks are set in `check`, in a backend or in [service.server]"),
    ("inter", "how often to check goes into the check: `check = { inter = \"2s\" }`"),
    ("listen", "a [[service]] is what HAProxy calls a listen section"),
    ("maxconn", "connections are limited for the whole node: `maxconn` in [global]"),
    ("option", "HAProxy's options have names of their own here, such as `allbackups = true`"),
    ("port", "ports are written with the address: \"10.2.2.4:3306\"; a check has its own `port`"),
    ("rise", "put it into the check: `check = { rise = 2 }`"),
    ("servers", "each backend is a table of its own: [[service.backend]]"),
    ("vip", "the virtual address is `bind`, in [[service]]"),
];

/// What to write instead of the unknown key `name`, where the keys `known` are allowed.
pub(super) fn key(name: &str, known: &[&str]) -> String {
    let plain = name.to_lowercase().replace('-', "_");
    let familiar = FAMILIAR.iter().find(|(word, _)| *word == plain);
    match (nearest(&plain, known), familiar) {
        (Some(near), _) if near == plain => format!("it is written `{near}`"),
        (_, Some((_, hint))) => (*hint).to_owned(),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => format!("known here: {}", known.join(", ")),
    }
}

/// What to write instead of `word`, which should be one of `known`.
pub(super) fn word(word: &str, known: &[&str]) -> String {
    let all = known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    match nearest(&word.to_lowercase(), known) {
        Some(near) => format!("did you mean {near:?}? It can be {all}"),
        None => format!("it can be {all}"),
    }
}

/// Whether `name` may be a typing error for `known`.
pub(super) fn near(name: &str, known: &str) -> bool {
    nearest(&name.to_lowercase(), &[known]).is_some()
}

/// The name of fewest typing errors, if there are few enough for it to be meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let tolerated = |near: &str| (near.chars().count() / 3).max(1);
    known
        .iter()
        .map(|near| (strsim::osa_distance(name, near), *near))
        .filter(|(distance, near)| *distance <= tolerated(near))
        .min()
        .map(|(_, near)| near)
}
