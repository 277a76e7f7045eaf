//! The archive: exactly three USTAR entries, each header a function of name and size alone.
//!
//! A reader rebuilds the header it expects and compares all 512 bytes, so there is nothing to interpret: no other
//! types, paths, owners, times or extensions.

use std::io::{ErrorKind, Read, Write};

use super::SealedError;

/// Size of a tar block in bytes.
pub(super) const BLOCK: usize = 512;
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// Sizes from here on do not fit eleven octal digits and take the base-256 form.
const OCTAL_LIMIT: u64 = 1 << 33;
const SIZE_FIELD: usize = 124;
const CHECKSUM_FIELD: usize = 148;

type Block = [u8; BLOCK];

fn put(block: &mut Block, offset: usize, bytes: &[u8]) {
    for (slot, byte) in block.iter_mut().skip(offset).zip(bytes) {
        *slot = *byte;
    }
}

/// The one header that an entry of this name and size has.
pub(super) fn header(name: &str, size: u64) -> Block {
    let mut block = [0; BLOCK];
    put(&mut block, 0, name.as_bytes());
    put(&mut block, 100, b"0000644\0");
    put(&mut block, 108, b"0000000\0");
    put(&mut block, 116, b"0000000\0");
    put(&mut block, SIZE_FIELD, &size_field(size));
    put(&mut block, 136, b"00000000000\0");
    put(&mut block, CHECKSUM_FIELD, b"        ");
    put(&mut block, 156, b"0");
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 329, b"0000000\0");
    put(&mut block, 337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut block, CHECKSUM_FIELD, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn size_field(size: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if size < OCTAL_LIMIT {
        for (slot, digit) in field.iter_mut().zip(format!("{size:011o}").bytes()) {
            *slot = digit;
        }
    } else {
        for (slot, byte) in field.iter_mut().skip(4).zip(size.to_be_bytes()) {
            *slot = byte;
        }
        field[0] = 0x80;
    }
    field
}

fn parse_size(block: &Block) -> Option<u64> {
    let field = block.get(SIZE_FIELD..SIZE_FIELD + 12)?;
    match field.split_first()? {
        (0x80, rest) => rest.get(3..)?.try_into().ok().map(u64::from_be_bytes),
        _ => u64::from_str_radix(std::str::from_utf8(field.get(..11)?).ok()?, 8).ok(),
    }
}

/// Zero bytes after an entry of `size` bytes up to the next block.
fn padding(size: u64) -> &'static [u8] {
    let used = (size % BLOCK as u64) as usize;
    ZEROS.get(..(BLOCK - used) % BLOCK).unwrap_or_default()
}

/// Size of the whole archive whose entries have these sizes.
pub(super) fn archive_bytes(sizes: [u64; 3]) -> u64 {
    sizes.iter().map(|size| entry_bytes(*size)).sum::<u64>() + ZEROS.len() as u64
}

/// Size of an entry of `size` bytes with its header and padding.
pub(super) fn entry_bytes(size: u64) -> u64 {
    BLOCK as u64 + size + padding(size).len() as u64
}

pub(super) fn write_header(out: &mut impl Write, name: &str, size: u64) -> Result<(), SealedError> {
    out.write_all(&header(name, size)).map_err(SealedError::Write)
}

pub(super) fn write_padding(out: &mut impl Write, size: u64) -> Result<(), SealedError> {
    out.write_all(padding(size)).map_err(SealedError::Write)
}

pub(super) fn write_end(out: &mut impl Write) -> Result<(), SealedError> {
    out.write_all(&ZEROS).map_err(SealedError::Write)
}

/// Fills `buf`; an archive that ends earlier is refused as cut short.
pub(super) fn read_exact(
    reader: &mut impl Read,
    buf: &mut [u8],
    entry: &'static str,
) -> Result<(), SealedError> {
    reader.read_exact(buf).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => SealedError::Tar { entry, problem: "is cut short" },
        _ => SealedError::Read(error),
    })
}

/// Reads one header, which must be exactly that of `entry`; returns its size.
pub(super) fn read_header(reader: &mut impl Read, entry: &'static str) -> Result<u64, SealedError> {
    let mut block = [0; BLOCK];
    read_exact(reader, &mut block, entry)?;
    let refuse = |problem| Err(SealedError::Tar { entry, problem });
    let Some(size) = parse_size(&block) else { return refuse("has no valid size") };
    let want = header(entry, size);
    if block.get(..100) != want.get(..100) {
        return refuse("is missing: another entry stands in its place");
    }
    if block != want {
        return refuse("does not have the one allowed header: a regular file, mode 0644, owner and time 0");
    }
    Ok(size)
}

pub(super) fn read_padding(
    reader: &mut impl Read,
    size: u64,
    entry: &'static str,
) -> Result<(), SealedError> {
    let mut block = [0; BLOCK];
    let buf = block.get_mut(..padding(size).len()).unwrap_or_default();
    read_exact(reader, buf, entry)?;
    if buf.iter().any(|byte| *byte != 0) {
        return Err(SealedError::Tar { entry, problem: "is not followed by zero bytes" });
    }
    Ok(())
}

/// Two zero blocks and then nothing.
pub(super) fn read_end(reader: &mut impl Read) -> Result<(), SealedError> {
    let mut end = [0; 2 * BLOCK];
    read_exact(reader, &mut end, "end")?;
    if end != ZEROS {
        return Err(SealedError::Tar {
            entry: "end",
            problem: "is not two zero blocks: more entries follow",
        });
    }
    let mut one = [0];
    loop {
        match reader.read(&mut one) {
            Ok(0) => return Ok(()),
            Ok(_) => return Err(SealedError::Tar { entry: "end", problem: "is followed by more bytes" }),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SealedError::Read(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_on_both_sides_of_the_octal_limit_read_back() {
        for size in [0, 1, 511, 512, OCTAL_LIMIT - 1, OCTAL_LIMIT, 1 << 40] {
            let block = header("data", size);
            assert_eq!(read_header(&mut &block[..], "data").unwrap(), size);
        }
    }

    #[test]
    fn one_size_has_one_form() {
        let index = include_str!("../../../test/vectors/sealed-dataset/index.json");
        let index: serde_json::Value = serde_json::from_str(index).unwrap();
        let cases = index["headers"].as_array().unwrap();
        assert!(
            cases.iter().any(|case| case["size"].is_u64()) && cases.iter().any(|case| case["size"].is_null())
        );
        for case in cases {
            let bytes = hex::decode(case["header"].as_str().unwrap()).unwrap();
            let size = read_header(&mut &bytes[..], "data");
            assert_eq!(size.as_ref().ok().copied(), case["size"].as_u64(), "{}", case["about"]);
            if let Err(error) = size {
                assert_eq!(error.layer(), "tar", "{}", case["about"]);
            }
        }
    }

    #[test]
    fn every_header_bit_counts() {
        let block = header("data", 5);
        for bit in 0..BLOCK * 8 {
            let mut changed = block;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read_header(&mut &changed[..], "data").is_err(), "bit {bit}");
        }
    }
}
