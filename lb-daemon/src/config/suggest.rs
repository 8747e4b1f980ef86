//! What the operator may have meant: near names, and the words of HAProxy and keepalived for ours.

/// What to write instead of the unknown key `name`, where the keys `known` are allowed.
pub(super) fn key(name: &str, known: &[&str]) -> String {
    let plain = name.to_lowercase().replace('-', "_");
    match (nearest(&plain, known), familiar(&plain)) {
        (Some(near), _) if near == plain => format!("it is written `{near}`"),
        (_, Some(hint)) => hint.to_owned(),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => format!("known here: {}", known.join(", ")),
    }
}

/// What HAProxy's words, and ours in a place where they do not belong, are called here.
fn familiar(word: &str) -> Option<&'static str> {
    Some(match word {
        "weight" => {
            "weights are a backend's, or go with what a group tracks: \
                     track_script = [{ name = \"haproxy\", weight = -20 }]"
        }
        "frontend" | "listen" => "a [[service]] is what HAProxy calls a listen section",
        "backends" | "servers" => "each backend is a table of its own: [[service.backend]]",
        "default_server" => "what servers share goes into [defaults.server] or [service.server]",
        "bind" | "vip" => "the virtual address is `bind`, in [[service]]",
        "address" => "a service's address is `bind`; a backend's goes into [[service.backend]]",
        "port" => {
            "ports are written with the address, \"10.2.2.4:3306\"; a check has its own `port`"
        }
        "backup" => "write `role = \"backup\"`",
        "disabled" => "to take a backend out of use, write `weight = 0`",
        "maxconn" => {
            "`maxconn` limits the connections of a backend, of a [[service]], or of each table in \
             [global]"
        }
        "maxqueue" | "slowstart" => "it is a backend's, or that of all of them in [service.server]",
        "option" => "HAProxy's options have names of their own here, such as `allbackups = true`",
        "addr" => "the address to check is `check = { address = \"10.4.4.11\" }`",
        "health" => "health checks are set in `check`, in a backend or in [service.server]",
        "inter" | "fastinter" | "downinter" => {
            "how often to check goes into the check: `check = { inter = \"2s\", ... }`"
        }
        "rise" | "fall" => "put it into the check: `check = { rise = 2, fall = 3, ... }`",
        "tcp_check" => "what to check goes into the check: `check = { tcp_check = [...] }`",
        "httpchk" => "what to check goes into the check: `check = { httpchk = { uri = \"/\" } }`",
        "mysql_check" => "what to check goes into the check: `check = { mysql_check = {} }`",
        "expect" => "write `expect_string` for text, or `expect_regex` for an expression",
        _ => return of_keepalived(word),
    })
}

/// What keepalived's words are called here, and those of its like.
fn of_keepalived(word: &str) -> Option<&'static str> {
    Some(match word {
        "vrrp_instance" | "instance" | "carp" => {
            "a [[group]] is what keepalived calls a vrrp_instance"
        }
        "vrrp_sync_group" => "a [[group]] has the addresses of all legs, and moves as one",
        "vrrp_script" => "write [[script]]",
        "vrrp_track_process" => "write [[process]]",
        "state" => "there is no initial state: a group starts as backup; remove it",
        "nopreempt" => "write preempt = false",
        "authentication" => "write auth_pass = \"...\"",
        "vrid" => "the identifier is `virtual_router_id`, CARP's is `vhid`",
        "vips" | "addresses" | "ip" => "a group's addresses are `virtual_ipaddress`",
        "dev" => "write `interface`",
        "command" | "cmd" => "what a script runs is `script`",
        "decrement" => "write a negative `weight`",
        "init_fail" => "remove it: nothing is taken for well before it was looked at",
        "script_user" => "a script has its `user`, a group its `notify_user`",
        "garp_lower_prio_delay" | "garp_lower_prio_repeat" => {
            "after a conflict the winner announces its addresses again; remove it"
        }
        "vmac_xmit_base" => "adverts go by the group's own interface in any case; remove it",
        _ => return None,
    })
}

/// What to write instead of `word`, which should be one of `known`.
pub(super) fn word(word: &str, known: &[&str]) -> String {
    let all = known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let typed = word.to_lowercase();
    // Such as "warning" for "warn".
    let longer = known.iter().copied().find(|name| typed.starts_with(name));
    match nearest(&typed, known).or(longer) {
        Some(near) => format!("did you mean {near:?}? It can be {all}"),
        None => format!("it can be {all}"),
    }
}

/// Whether `name` may be a typing error for `known`.
pub(super) fn near(name: &str, known: &str) -> bool {
    nearest(&name.to_lowercase(), &[known]).is_some()
}

/// The name of fewest typing errors, if there are few enough for it to be meant.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let tolerated = |near: &str| (near.chars().count() / 3).max(1);
    known
        .iter()
        .map(|near| (strsim::osa_distance(name, near), *near))
        .filter(|(distance, near)| *distance <= tolerated(near))
        .min()
        .map(|(_, near)| near)
}
