//! Schema and row count of Arrow IPC, file or stream form, from the messages' headers alone: no batch is decoded, so
//! memory stays flat and hostile batches meet no parser.

use std::io::{self, Read, Seek, SeekFrom};

use arrow::{
    datatypes::Schema,
    ipc::{self, Message, MessageHeader, convert::fb_to_schema, root_as_footer, root_as_message},
};

use crate::decoder::contained;

const FILE_MAGIC: &[u8] = b"ARROW1";
/// Before each message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Largest header that is read into memory.
const HEADER_BYTES_MAX: u32 = 16 << 20;

/// Which of the two forms of Arrow IPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Magic, messages, footer, magic.
    File,
    /// Messages.
    Stream,
}

impl Form {
    /// What the first eight bytes say.
    pub(super) fn of(magic: &[u8]) -> Option<Self> {
        if magic.starts_with(FILE_MAGIC) {
            return Some(Self::File);
        }
        (magic.len() == 8 && magic.starts_with(&CONTINUATION)).then_some(Self::Stream)
    }
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) schema: Schema,
    pub(super) rows: u64,
}

/// Why it is not readable; never values.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArrowMessageError {
    #[error("it is cut short or cannot be read")]
    Read(#[from] io::Error),
    #[error("message {0} is malformed")]
    Message(u64),
    #[error("the first message is not a schema")]
    Schema,
    #[error("its schema has a type that does not exist or is not supported")]
    Unsupported,
    #[error("it does not end as an Arrow file")]
    End,
}

/// Reads schema and row count.
pub(super) fn read(form: Form, file: &mut (impl Read + Seek)) -> Result<Found, ArrowMessageError> {
    let length = file.seek(SeekFrom::End(0))?;
    match form {
        Form::File => by_footer(file, length),
        Form::Stream => by_messages(file, length),
    }
}

/// The footer has the schema and where each batch is.
fn by_footer(file: &mut (impl Read + Seek), length: u64) -> Result<Found, ArrowMessageError> {
    file.seek(SeekFrom::End(-(4 + FILE_MAGIC.len() as i64)))?;
    let (mut size, mut end) = ([0; 4], [0; FILE_MAGIC.len()]);
    file.read_exact(&mut size)?;
    file.read_exact(&mut end)?;
    let size = u32::from_le_bytes(size);
    if end != FILE_MAGIC || size > HEADER_BYTES_MAX {
        return Err(ArrowMessageError::End);
    }
    file.seek(SeekFrom::End(-(4 + FILE_MAGIC.len() as i64 + i64::from(size))))?;
    let mut footer = vec![0; size as usize];
    file.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(|_| ArrowMessageError::End)?;
    let schema = decoded(footer.schema().ok_or(ArrowMessageError::Schema)?)?;
    let mut rows = 0u64;
    for (index, block) in (0..).zip(footer.recordBatches().iter().flatten()) {
        let malformed = || ArrowMessageError::Message(index);
        let at = u64::try_from(block.offset()).map_err(|_| malformed())?;
        file.seek(SeekFrom::Start(at))?;
        let header = header(file).map_err(|error| error.map_or_else(malformed, Into::into))?;
        let header = header.ok_or_else(malformed)?;
        let message = root_as_message(&header).map_err(|_| malformed())?;
        within(length, at, &header, &message).ok_or_else(malformed)?;
        rows = batch_rows(&message).and_then(|count| rows.checked_add(count)).ok_or_else(malformed)?;
    }
    Ok(Found { schema, rows })
}

/// Walks over all messages; a stream may end without its end mark.
fn by_messages(file: &mut (impl Read + Seek), length: u64) -> Result<Found, ArrowMessageError> {
    let (mut at, mut found) = (0, None);
    for index in 0.. {
        let malformed = || ArrowMessageError::Message(index);
        if at == length {
            break;
        }
        file.seek(SeekFrom::Start(at))?;
        let header = header(file).map_err(|error| error.map_or_else(malformed, Into::into))?;
        let Some(header) = header else { break };
        let message = root_as_message(&header).map_err(|_| malformed())?;
        at = within(length, at, &header, &message).ok_or_else(malformed)?;
        match (message.header_type(), &mut found) {
            (MessageHeader::Schema, found @ None) => {
                let schema = message.header_as_schema().ok_or_else(malformed)?;
                *found = Some(Found { schema: decoded(schema)?, rows: 0 });
            }
            (MessageHeader::RecordBatch, Some(found)) => {
                let rows = batch_rows(&message).and_then(|count| found.rows.checked_add(count));
                found.rows = rows.ok_or_else(malformed)?;
            }
            (MessageHeader::DictionaryBatch, Some(_)) => {}
            (_, None) => return Err(ArrowMessageError::Schema),
            _ => return Err(malformed()),
        }
    }
    found.ok_or(ArrowMessageError::Schema)
}

fn decoded(schema: ipc::Schema<'_>) -> Result<Schema, ArrowMessageError> {
    contained(|| fb_to_schema(schema))?.ok_or(ArrowMessageError::Unsupported)
}

/// Where a message that begins at `at` ends, if that is in the file.
fn within(length: u64, at: u64, header: &[u8], message: &Message<'_>) -> Option<u64> {
    let body = u64::try_from(message.bodyLength()).ok()?;
    at.checked_add(8 + header.len() as u64)?.checked_add(body).filter(|end| *end <= length)
}

fn batch_rows(message: &Message<'_>) -> Option<u64> {
    u64::try_from(message.header_as_record_batch()?.length()).ok()
}

/// The next header, `None` at the end mark; an inner `None` is a malformed one.
fn header(file: &mut impl Read) -> Result<Option<Vec<u8>>, Option<io::Error>> {
    let (mut mark, mut size) = ([0; 4], [0; 4]);
    file.read_exact(&mut mark).and_then(|()| file.read_exact(&mut size)).map_err(Some)?;
    let size = u32::from_le_bytes(size);
    if mark != CONTINUATION || size > HEADER_BYTES_MAX {
        return Err(None);
    }
    if size == 0 {
        return Ok(None);
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(Some)?;
    Ok(Some(header))
}
