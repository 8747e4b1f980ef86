//! The keys of a `[[group]]` that speaks CARP.

use std::ops::RangeInclusive;

use toml::Spanned;

use super::{group_model::Carp, reader::Table, report::Read, secret};

/// These keys, and what VRRP has instead.
pub(super) const KEYS: [(&str, &str); 5] = [
    ("vhid", "VRRP's identifier is `virtual_router_id`"),
    ("pass", "VRRP's password is `auth_pass`"),
    ("pass_file", "VRRP's password is in `auth_pass_file`"),
    ("advbase", "VRRP's interval is `advert_int`"),
    ("advskew", "VRRP's preference is `priority`, the higher the better"),
];

/// `CARP_KEY_LEN`
const PASSWORD: RangeInclusive<usize> = 0..=20;

/// The settings, and the place of the identifier.
pub(super) fn read(table: &mut Table<'_>) -> Read<(Carp, Spanned<u8>)> {
    let hint = "write the identifier that both hosts use: vhid = 4";
    let vhid = table.required("vhid", hint, |field| {
        let vhid = field.integer(&(1..=255), "it must be the same on both hosts")?;
        Ok(field.spanned(u8::try_from(vhid).expect("within its range")))
    });
    let hint = "it has at most 20 bytes";
    let secret = secret::read(table, ["pass", "pass_file"], &PASSWORD, hint).ok().flatten();
    let advbase = table.optional("advbase", |field| {
        field.integer(&(1..=255), "it is the time between adverts, in seconds")
    });
    let advskew = table.optional("advskew", |field| {
        field.integer(&(0..=254), "it is in 256ths of a second; the host with the lowest is master")
    });
    let [advbase, advskew] = [advbase.unwrap_or(1), advskew.unwrap_or(0)]
        .map(|number| u8::try_from(number).expect("within its range"));

    let vhid = vhid?;
    let (pass, pass_file) = secret
        .map(Spanned::into_inner)
        .map_or((String::new(), None), |secret| (secret.text, secret.file));
    Ok((Carp { vhid: *vhid.get_ref(), pass, pass_file, advbase, advskew }, vhid))
}
