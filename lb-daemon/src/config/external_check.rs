//! `external_check`: a command that says how a backend is.

use super::{
    check_model::ExternalCheck,
    command,
    reader::{Field, Table},
    report::Read,
};

/// Reads the table.
pub(super) fn read(field: &Field<'_>) -> Read<ExternalCheck> {
    let hint = "write external_check = { command = \"/usr/local/bin/is-well\" }";
    field.table("external_check", hint)?.read(|table: &mut Table<'_>| {
        let hint = "write what is run: command = \"/usr/local/bin/is-well\"";
        let command = table.required("command", hint, command::read);
        let path = table.optional("path", path);
        let user = command::user(table, "user");
        Ok(ExternalCheck { command: command?, path, user })
    })
}

fn path(field: &Field<'_>) -> Read<String> {
    let path = field.string()?;
    if !path.is_empty() && !path.contains('\0') {
        return Ok(path.to_owned());
    }
    let message = format!("`{}` is not a list of directories: {path:?}", field.key());
    Err(field.error(message, "write them with colons between: \"/usr/bin:/bin\""))
}
