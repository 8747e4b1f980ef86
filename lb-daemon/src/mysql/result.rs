//! Queries, of whose results the first row is read.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    error::{Error, readable},
    fields::Fields,
    packets::Packets,
};

const QUERY: u8 = 0x03;

const OK: u8 = 0x00;
/// The server wants a file of ours.
const LOCAL_FILE: u8 = 0xfb;
const END: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// A packet that begins with [`END`] and is longer than this is a row.
const LONGEST_END: usize = 8;

/// Rows that are read after the first, so that another query can follow. A result with more of them is
/// left unread.
const MOST_ROWS: usize = 64;

/// More columns than any table of status variables has.
const MOST_COLUMNS: u64 = 256;

/// A row of a result, as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    names: Vec<Vec<u8>>,
    /// As many as there are names, of which there is at least one.
    values: Vec<Option<String>>,
}

impl Row {
    /// The value of the nth column, counted from 0; nothing if it is `NULL` or not there.
    pub(super) fn value(&self, nth: usize) -> Option<&str> {
        self.values.get(nth)?.as_deref()
    }

    /// The place of the first column with one of these names.
    pub(super) fn place_of(&self, names: &[&str]) -> Option<usize> {
        let is = |own: &Vec<u8>| names.iter().any(|name| name.as_bytes() == own.as_slice());
        self.names.iter().position(is)
    }
}

/// Runs a query; nothing if its result has no rows, or it has no result.
pub(super) async fn first_row<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    sql: &str,
) -> Result<Option<Row>, Error> {
    packets.command(QUERY, sql.as_bytes()).await?;
    let head = packets.read("an answer to the query").await?;
    let columns = match *head.as_slice() {
        [OK, ..] => return Ok(None),
        [ERROR, ref error @ ..] => return Err(Error::from_packet(error)),
        [LOCAL_FILE, ..] => return Err(Error::Unsupported("the query asks for a file".into())),
        _ => Fields::new(&head).number()?,
    };
    if columns > MOST_COLUMNS {
        let message = format!("the result has {columns} columns, and {MOST_COLUMNS} can be read");
        return Err(Error::Malformed(message));
    }
    let mut names = Vec::new();
    for _ in 0..columns {
        names.push(column_name(&packets.read("a column of the result").await?)?);
    }
    if !is_end(&packets.read("the end of the columns").await?) {
        return Err(Error::malformed("no end of the columns of a result"));
    }
    let row = packets.read("a row of the result").await?;
    match row.as_slice() {
        row if is_end(row) => Ok(None),
        [ERROR, error @ ..] => Err(Error::from_packet(error)),
        row => {
            let values = values(row, names.len())?;
            read_on(packets).await?;
            Ok(Some(Row { names, values }))
        }
    }
}

/// Reads to the end of a result, if that is near.
async fn read_on<S: AsyncRead + AsyncWrite + Unpin>(packets: &mut Packets<S>) -> Result<(), Error> {
    for _ in 0..MOST_ROWS {
        match packets.read("the end of the result").await?.as_slice() {
            packet if is_end(packet) => break,
            [ERROR, error @ ..] => return Err(Error::from_packet(error)),
            _ => {}
        }
    }
    Ok(())
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&END) && packet.len() <= LONGEST_END
}

/// Catalogue, schema, table and its alias come before it.
fn column_name(packet: &[u8]) -> Result<Vec<u8>, Error> {
    let mut fields = Fields::new(packet);
    for _ in 0..4 {
        fields.text()?;
    }
    Ok(fields.text()?.to_vec())
}

fn values(packet: &[u8], columns: usize) -> Result<Vec<Option<String>>, Error> {
    let mut fields = Fields::new(packet);
    (0..columns).map(|_| Ok(fields.value()?.map(readable))).collect()
}
