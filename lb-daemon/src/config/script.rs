//! `[[script]]` and `[[process]]`: what groups can track besides interfaces and services.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    command, duration,
    group_model::{Process, Script},
    names::Names,
    node,
    reader::{Field, Table},
    report::Read,
};

/// What the times of scripts and processes may be.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);
/// `NAME_MAX` of the kernel.
const LONGEST_FILE_NAME: usize = 255;

/// Every `[[script]]`; enters their names.
pub(super) fn scripts(root: &mut Table<'_>, names: &mut Names) -> Read<Vec<Arc<Script>>> {
    each(root.tables("script", "[[script]]"), names, script)
}

/// Every `[[process]]`; enters their names.
pub(super) fn processes(root: &mut Table<'_>, names: &mut Names) -> Read<Vec<Arc<Process>>> {
    each(root.tables("process", "[[process]]"), names, process)
}

fn each<'a, T>(
    tables: Read<Vec<Table<'a>>>,
    names: &mut Names,
    mut read: impl FnMut(Table<'a>, &mut Names) -> Read<T>,
) -> Read<Vec<Arc<T>>> {
    if tables.is_err() {
        names.incomplete();
    }
    let all: Vec<_> = tables?.into_iter().map(|table| read(table, names).map(Arc::new)).collect();
    all.into_iter().collect()
}

fn script(table: Table<'_>, names: &mut Names) -> Read<Script> {
    table.read(|table| {
        let name = table.required("name", "give the script a name: name = \"haproxy\"", |field| {
            Ok(field.spanned(node::name(field)?))
        });
        names.enter(&name, table.report());
        let hint = "write what is run: script = \"/usr/local/bin/is-well\"";
        let command = table.required("script", hint, command::read);
        let time = |field: &Field<'_>| duration::with_unit(field, &TIMES);
        let interval = table.optional("interval", time).unwrap_or(Duration::from_secs(1));
        let timeout = table.optional("timeout", |field| {
            let timeout = time(field)?;
            if timeout > interval {
                let (long, short) = (duration::format(timeout), duration::format(interval));
                let message = format!("`timeout`, {long}, is longer than `interval`, {short}");
                let hint = "a run that hangs delays the next one; lower `timeout` or raise \
                            `interval`";
                field.report().warning(Some(field.span()), message, hint);
            }
            Ok(timeout)
        });
        let count = |field: &Field<'_>| {
            field.integer(&(1..=255), "this many runs in a row change the state")
        };
        let [rise, fall] = ["rise", "fall"].map(|key| table.optional(key, count).unwrap_or(1));
        let user = command::user(table, "user");
        Ok(Script {
            name: name?.into_inner(),
            command: command?,
            interval,
            timeout: timeout.unwrap_or(interval),
            rise,
            fall,
            user,
        })
    })
}

fn process(table: Table<'_>, names: &mut Names) -> Read<Process> {
    table.read(|table| {
        let name = table.required("name", "give the entry a name: name = \"haproxy\"", |field| {
            Ok(field.spanned(node::name(field)?))
        });
        names.enter(&name, table.report());
        let hint = "write the name of its program: process = \"haproxy\"";
        let process = table.required("process", hint, program);
        let quorum = table
            .optional("quorum", |field| field.integer(&(1..=65_535), "this many must be running"));
        let delay = table.optional("delay", |field| duration::with_unit_or_zero(field, &TIMES));
        Ok(Process {
            name: name?.into_inner(),
            process: process?,
            quorum: quorum.unwrap_or(1),
            delay: delay.unwrap_or(Duration::ZERO),
        })
    })
}

fn program(field: &Field<'_>) -> Read<String> {
    let name = field.string()?;
    let usable = (1..=LONGEST_FILE_NAME).contains(&name.len())
        && !name.contains(|c: char| c == '/' || c.is_control());
    if usable {
        return Ok(name.to_owned());
    }
    let base = name.rsplit('/').next().filter(|base| !base.is_empty()).unwrap_or("haproxy");
    let hint = format!("write the name of its program without a path: process = {base:?}");
    Err(field.error(format!("no process can be called {name:?}"), hint))
}
