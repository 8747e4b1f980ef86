//! The other host, groups, scripts and processes as TOML; see [`super::to_toml`].

use super::{
    duration,
    group_model::{
        Announce, Carp, Family, Group, GroupAddress, Hooks, Process, Protocol, Script, Track,
        Tracked, Vrrp, VrrpVersion,
    },
    model::Peer,
    to_toml::{Writer, list, quote},
};

pub(super) fn group(out: &mut Writer, group: &Group) {
    out.header("[[group]]");
    out.line("name", quote(&group.name));
    out.line("interface", quote(&group.interface));
    match &group.protocol {
        Protocol::Vrrp(each) => vrrp(out, each),
        Protocol::Carp(each) => carp(out, each),
    }
    for (key, advertised) in [("virtual_ipaddress", true), ("virtual_ipaddress_excluded", false)] {
        let addresses = group.addresses.iter().filter(|at| at.advertised == advertised);
        out.line(key, list(addresses.map(address)));
    }
    out.line("preempt", group.preempt);
    out.line("preempt_delay", quote(duration::format(group.preempt_delay)));
    track(out, &group.track);
    hooks(out, &group.hooks);
    announce(out, &group.announce);
}

fn vrrp(out: &mut Writer, vrrp: &Vrrp) {
    out.line("protocol", quote("vrrp"));
    let version = match vrrp.version {
        VrrpVersion::V2 => 2,
        VrrpVersion::V3 => 3,
    };
    out.line("version", version);
    out.line("virtual_router_id", vrrp.virtual_router_id);
    out.line("priority", vrrp.priority);
    out.line("advert_int", quote(duration::format(vrrp.advert_int)));
    let family = match vrrp.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    out.line("family", quote(family));
    let unicast = !vrrp.unicast_peers.is_empty();
    if let Some(source) = vrrp.source {
        out.line(if unicast { "unicast_src_ip" } else { "mcast_src_ip" }, quote(source));
    }
    if unicast {
        out.line("unicast_peer", list(vrrp.unicast_peers.iter().map(quote)));
    }
    match (&vrrp.auth_pass_file, &vrrp.auth_pass) {
        (Some(file), _) => out.line("auth_pass_file", quote(file.display())),
        (None, Some(password)) => out.line("auth_pass", quote(password)),
        (None, None) => {}
    }
    out.line("v3_checksum_as_v2", !vrrp.pseudo_header);
    if let Some(vmac) = &vrrp.vmac {
        out.line("use_vmac", quote(vmac));
    }
}

fn carp(out: &mut Writer, carp: &Carp) {
    out.line("protocol", quote("carp"));
    out.line("vhid", carp.vhid);
    match &carp.pass_file {
        Some(file) => out.line("pass_file", quote(file.display())),
        None => out.line("pass", quote(&carp.pass)),
    }
    out.line("advbase", carp.advbase);
    out.line("advskew", carp.advskew);
}

pub(super) fn sync(out: &mut Writer, peer: &Peer) {
    out.header("[sync]");
    out.line("listen", quote(peer.listen));
    out.line("peer", quote(peer.peer));
    match &peer.key_file {
        Some(file) => out.line("key_file", quote(file.display())),
        None => out.line("key", quote(&peer.key)),
    }
    out.line("preempt_wait", quote(duration::format(peer.preempt_wait)));
    out.line("grace", quote(duration::format(peer.grace)));
}

fn address(at: &GroupAddress) -> String {
    let address = quote(format!("{}/{}", at.ip, at.prefix));
    format!("{{ address = {address}, interface = {} }}", quote(&at.interface))
}

fn track(out: &mut Writer, track: &Track) {
    for (key, entries) in [
        ("track_interface", &track.interfaces),
        ("track_script", &track.scripts),
        ("track_process", &track.processes),
        ("track_service", &track.services),
    ] {
        let entry = |Tracked { name, weight }: &Tracked| {
            format!("{{ name = {}, weight = {weight} }}", quote(name))
        };
        out.line(key, list(entries.iter().map(entry)));
    }
}

fn hooks(out: &mut Writer, hooks: &Hooks) {
    for (key, command) in [
        ("notify_master", &hooks.notify_master),
        ("notify_backup", &hooks.notify_backup),
        ("notify_fault", &hooks.notify_fault),
        ("notify_stop", &hooks.notify_stop),
        ("notify", &hooks.notify),
    ] {
        if let Some(command) = command {
            out.line(key, list(command.iter().map(quote)));
        }
    }
    out.line("notify_user", quote(&hooks.user));
    out.line("notify_timeout", quote(duration::format(hooks.timeout)));
}

fn announce(out: &mut Writer, announce: &Announce) {
    out.line("garp_master_repeat", announce.repeat);
    out.line("garp_master_delay", quote(duration::format(announce.delay)));
    out.line("garp_master_refresh", quote(duration::format(announce.refresh)));
    out.line("garp_master_refresh_repeat", announce.refresh_repeat);
}

pub(super) fn script(out: &mut Writer, script: &Script) {
    out.header("[[script]]");
    out.line("name", quote(&script.name));
    out.line("script", list(script.command.iter().map(quote)));
    out.line("interval", quote(duration::format(script.interval)));
    out.line("timeout", quote(duration::format(script.timeout)));
    out.line("rise", script.rise);
    out.line("fall", script.fall);
    out.line("user", quote(&script.user));
}

pub(super) fn process(out: &mut Writer, process: &Process) {
    out.header("[[process]]");
    out.line("name", quote(&process.name));
    out.line("process", quote(&process.process));
    out.line("quorum", process.quorum);
    out.line("delay", quote(duration::format(process.delay)));
}
