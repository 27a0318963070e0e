//! The few structures of a Parquet file that are written here, in Thrift's compact protocol.
//!
//! Called by `encode`. parquet-rs writes the others, and reads all of them: what its writer makes of the same values is
//! what the tests expect. Never reads what a file says, but for one number of a header that parquet-rs has just made.
//!
//! Source: Thrift compact protocol (apache/thrift, doc/specs); parquet.thrift (apache/parquet-format).

/// A field's first byte: how far its number is from the last one's, and its type.
const fn field(delta: u8, kind: Kind) -> u8 {
    delta << 4 | kind as u8
}

#[derive(Clone, Copy)]
enum Kind {
    True = 1,
    I32 = 5,
    I64 = 6,
    Binary = 8,
    List = 9,
    Struct = 12,
}

const STOP: u8 = 0;
/// A list of so many elements says its length in a number of its own.
const LONG_LIST: usize = 15;

/// Where a page lies, as the offset index says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PagePlace {
    pub offset: i64,
    /// With its header.
    pub bytes: i32,
    /// Of the row group.
    pub first_row: i64,
}

/// `PageHeader` of a page (version 1) of `values` PLAIN values without levels.
pub(super) fn data_page_header(values: i32, plain_bytes: i32, stored_bytes: i32) -> Vec<u8> {
    const PLAIN: i32 = 0;
    const RLE: i32 = 3;
    let mut out = Vec::with_capacity(32);
    // The type: DATA_PAGE.
    for number in [0, plain_bytes, stored_bytes] {
        out.push(field(1, Kind::I32));
        zigzag(&mut out, number.into());
    }
    // Field 5; no checksum before it.
    out.push(field(2, Kind::Struct));
    for number in [values, PLAIN, RLE, RLE] {
        out.push(field(1, Kind::I32));
        zigzag(&mut out, number.into());
    }
    out.extend([STOP, STOP]);
    out
}

/// How many bytes the page has that `page` begins with the `PageHeader` of, and that header with another such number.
/// `None`: it is not what parquet-rs writes.
pub(super) fn resized(page: &[u8], stored_bytes: impl FnOnce(usize) -> i32) -> Option<(usize, Vec<u8>)> {
    // Type, uncompressed and compressed size are the first three fields.
    let mut at = 0;
    let mut number = 0;
    let mut begins = 0;
    for _ in 0..3 {
        if *page.get(at)? != field(1, Kind::I32) {
            return None;
        }
        begins = at + 1;
        (number, at) = unsigned(page, begins)?;
    }
    // Zigzag of what is not negative.
    let bytes = usize::try_from(number / 2).ok().filter(|_| number % 2 == 0)?;
    let header = page.get(..page.len().checked_sub(bytes)?).filter(|header| header.len() >= at)?;
    let mut resized = header[..begins].to_vec();
    zigzag(&mut resized, stored_bytes(bytes).into());
    resized.extend_from_slice(&header[at..]);
    Some((header.len(), resized))
}

/// `OffsetIndex`.
pub(super) fn offset_index(pages: &[PagePlace]) -> Vec<u8> {
    let mut out = vec![field(1, Kind::List)];
    if pages.len() < LONG_LIST {
        out.push((pages.len() as u8) << 4 | Kind::Struct as u8);
    } else {
        out.push((LONG_LIST as u8) << 4 | Kind::Struct as u8);
        varint(&mut out, pages.len() as u64);
    }
    for page in pages {
        for (kind, number) in
            [(Kind::I64, page.offset), (Kind::I32, page.bytes.into()), (Kind::I64, page.first_row)]
        {
            out.push(field(1, kind));
            zigzag(&mut out, number);
        }
        out.push(STOP);
    }
    out.push(STOP);
    out
}

/// `FileCryptoMetaData`: AES-GCM, what is unique to the file, that the reader knows the rest, and which key it is.
pub(super) fn file_crypto_metadata(unique: &[u8], key_metadata: &[u8]) -> Vec<u8> {
    // A union, whose first member is AES-GCM; of that the prefix (field 1) is left out.
    let mut out = vec![field(1, Kind::Struct), field(1, Kind::Struct), field(2, Kind::Binary)];
    binary(&mut out, unique);
    out.extend([field(1, Kind::True), STOP, STOP]);
    out.push(field(1, Kind::Binary));
    binary(&mut out, key_metadata);
    out.push(STOP);
    out
}

fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn zigzag(out: &mut Vec<u8>, number: i64) {
    varint(out, (number << 1 ^ number >> 63).cast_unsigned());
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A number, and where it ends.
fn unsigned(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the protocol's text says, byte by byte.
    #[test]
    fn headers_and_indexes_are_what_the_format_says() {
        let header = data_page_header(64, 98_304, 98_336);
        let first = [0x15, 0x00, 0x15, 0x80, 0x80, 0x0c, 0x15, 0xc0, 0x80, 0x0c];
        let rest = [0x2c, 0x15, 0x80, 0x01, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x00, 0x00];
        assert_eq!(header, [&first[..], &rest].concat());
        let place = PagePlace { offset: 4, bytes: 300, first_row: 64 };
        let element = [0x16, 0x08, 0x15, 0xd8, 0x04, 0x16, 0x80, 0x01, 0x00];
        assert_eq!(offset_index(&[place]), [&[0x19, 0x1c][..], &element, &[0x00]].concat());
        let many = offset_index(&[place; 300]);
        assert_eq!(many[..4], [0x19, 0xfc, 0xac, 0x02]);
        assert_eq!(many.len(), 4 + 300 * element.len() + 1);
        let crypto = file_crypto_metadata(&[9; 3], &[7; 2]);
        assert_eq!(crypto, [0x1c, 0x1c, 0x28, 3, 9, 9, 9, 0x11, 0, 0, 0x18, 2, 7, 7, 0]);
    }

    #[test]
    fn a_header_says_another_size_and_is_otherwise_the_same() {
        for (plain, stored) in [(1, 33), (63, 95), (64, 96), (100_000, 100_032)] {
            let header = data_page_header(1, 5, plain);
            let page = [&header[..], &vec![0xab; plain as usize]].concat();
            let expected = data_page_header(1, 5, stored);
            let found = resized(&page, |bytes| bytes as i32 + 32);
            assert_eq!(found, Some((header.len(), expected)), "{plain}");
        }
        // What has no page behind it, or less than it says.
        let header = data_page_header(1, 5, 10);
        assert_eq!(resized(&header[..header.len() - 6], |_| 0), None);
        assert_eq!(resized(&header[..3], |_| 0), None);
        assert_eq!(resized(&[], |_| 0), None);
        assert_eq!(resized(&[0xff; 40], |_| 0), None);
        // Without the first field, and with one of another kind.
        let page = [&header[..], &[0xab; 10]].concat();
        assert!(resized(&page, |_| 0).is_some());
        assert_eq!(resized(&page[2..], |_| 0), None);
        let mut other = page;
        other[2] = field(2, Kind::I32);
        assert_eq!(resized(&other, |_| 0), None);
    }
}
