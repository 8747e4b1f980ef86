//! Queries, and the rows of their results.

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

/// A row of a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// As many as there are columns, of which there is at least one.
    values: Vec<Option<Vec<u8>>>,
}

impl Row {
    /// The value of the nth column, counted from 0; nothing if it is `NULL` or not there.
    pub(super) fn value(&self, nth: usize) -> Option<&[u8]> {
        self.values.get(nth)?.as_deref()
    }

    /// The beginning of the same, safe for a terminal, a log and a line of the status.
    pub(super) fn text(&self, nth: usize) -> Option<String> {
        self.value(nth).map(readable)
    }
}

/// A result, whose rows are read one after the other.
#[derive(Debug)]
pub(super) struct Rows<'a, S> {
    packets: &'a mut Packets<S>,
    names: Vec<Vec<u8>>,
    is_over: bool,
}

/// Runs a query; nothing if it has no result.
pub(super) async fn query<'a, S: AsyncRead + AsyncWrite + Unpin>(
    packets: &'a mut Packets<S>,
    sql: &str,
) -> Result<Option<Rows<'a, S>>, Error> {
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
    Ok(Some(Rows { packets, names, is_over: false }))
}

/// Runs a query; nothing if its result has no rows, or it has no result.
pub(super) async fn first_row<S: AsyncRead + AsyncWrite + Unpin>(
    packets: &mut Packets<S>,
    sql: &str,
) -> Result<Option<Row>, Error> {
    let Some(mut rows) = query(packets, sql).await? else { return Ok(None) };
    let row = rows.next().await?;
    rows.read_on().await?;
    Ok(row)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Rows<'_, S> {
    /// The place of the first column with one of these names.
    pub(super) fn place_of(&self, names: &[&str]) -> Option<usize> {
        let is = |own: &Vec<u8>| names.iter().any(|name| name.as_bytes() == own.as_slice());
        self.names.iter().position(is)
    }

    /// The next row; nothing after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Row>, Error> {
        if self.is_over {
            return Ok(None);
        }
        match self.packets.read_row("a row of the result").await?.as_slice() {
            end if is_end(end) => {
                self.is_over = true;
                Ok(None)
            }
            [ERROR, error @ ..] => Err(Error::from_packet(error)),
            row => Ok(Some(Row { values: values(row, self.names.len())? })),
        }
    }

    /// Reads to the end of the result, if that is near.
    async fn read_on(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_ROWS {
            if self.next().await?.is_none() {
                break;
            }
        }
        Ok(())
    }
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

fn values(packet: &[u8], columns: usize) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut fields = Fields::new(packet);
    (0..columns).map(|_| Ok(fields.value()?.map(<[u8]>::to_vec))).collect()
}
