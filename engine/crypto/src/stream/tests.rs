//! The blob format as golden bytes, and what a damaged, cut, reordered or moved blob does.

use super::*;
use crate::hex;
use crate::sha256;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position % 251) as u8).collect()
}

/// Made with Python's `cryptography`; the second one spans three chunks, of which the hash is given.
#[test]
fn format_is_golden() {
    let key = Key::from_bytes([5; 32]);
    let small = seal_with_salt(&key, &[6; 32], b"index", b"a small blob");
    assert_eq!(
        hex(&small),
        concat!(
            "736570616c626c01000000000000000c0606060606060606060606060606060606060606060606060606060606060606",
            "28476a4c7755545cef4de51740146ece7943fc7c0f3fb49f4e3259459fbb21210fab139be3307fc3dfd3f998",
        )
    );
    assert_eq!(open_blob(&key, b"index", &small).unwrap(), b"a small blob");

    let plain = pattern(2 * CHUNK_BYTES + 77);
    let large = seal_with_salt(&key, &[6; 32], b"index", &plain);
    assert_eq!(hex(&sha256(&large)), "1754b66c7f808607719a6a2d342e1862db1546b58d84c911c6845b6c1f8cefa4");
    assert_eq!(open_blob(&key, b"index", &large).unwrap(), plain);
}

#[test]
fn lengths_around_the_chunk_border() {
    let key = Key::random();
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
        let plain = pattern(length);
        let sealed = seal_blob(&key, b"", &plain);
        assert_eq!(sealed.len(), 64 + length + 16 * length.div_ceil(CHUNK_BYTES).max(1));
        assert!(open_blob(&key, b"", &sealed).unwrap() == plain, "{length} bytes");
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let key = Key::random();
    let mut sealed = seal_blob(&key, b"here", &pattern(300));
    for position in 0..sealed.len() {
        for bit in 0..8 {
            sealed[position] ^= 1 << bit;
            assert!(open_blob(&key, b"here", &sealed).is_err(), "byte {position} bit {bit}");
            sealed[position] ^= 1 << bit;
        }
    }
    assert!(open_blob(&key, b"here", &sealed).is_ok());
}

#[test]
fn cut_extended_reordered_or_moved_is_refused() {
    let key = Key::random();
    let sealed = seal_blob(&key, b"here", &pattern(3 * CHUNK_BYTES));
    let chunk = CHUNK_BYTES + TAG_BYTES;
    for length in [0, 8, 63, 64, 79, 80, 64 + chunk, 64 + 2 * chunk, sealed.len() - 1] {
        assert!(open_blob(&key, b"here", &sealed[..length]).is_err(), "{length} bytes opened");
    }
    assert_eq!(open_blob(&key, b"here", &[sealed.as_slice(), &[0]].concat()), Err(OpenError::Malformed));

    // A forger who also mends the length in the header still lacks the final flag.
    let mut cut = sealed[..64 + 2 * chunk].to_vec();
    cut[LENGTH_AT..SALT_AT].copy_from_slice(&(2 * CHUNK_BYTES as u64).to_be_bytes());
    assert_eq!(open_blob(&key, b"here", &cut), Err(OpenError::NotAuthentic));

    let mut swapped = sealed.clone();
    let (one, two) = swapped[64..64 + 2 * chunk].split_at_mut(chunk);
    one.swap_with_slice(two);
    assert_eq!(open_blob(&key, b"here", &swapped), Err(OpenError::NotAuthentic));

    assert_eq!(open_blob(&key, b"there", &sealed), Err(OpenError::NotAuthentic));
    assert_eq!(open_blob(&Key::random(), b"here", &sealed), Err(OpenError::WrongKey));
}

/// A huge length in the header is refused before memory is asked for.
#[test]
fn absurd_length_allocates_nothing() {
    let key = Key::random();
    let mut sealed = seal_blob(&key, b"", b"x");
    sealed[LENGTH_AT..SALT_AT].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(open_blob(&key, b"", &sealed), Err(OpenError::Malformed));
    sealed[LENGTH_AT..SALT_AT].copy_from_slice(&(1u64 << 60).to_be_bytes());
    assert!(matches!(open_blob(&key, b"", &sealed), Err(OpenError::TooShort { .. })));
}

/// Sealed in pieces of any size it is the same blob, and its chunks open one by one, in any order.
#[test]
fn pieces_make_the_same_blob() {
    let key = Key::from_bytes([5; 32]);
    for length in [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 77] {
        let plain = pattern(length);
        let whole = seal_with_salt(&key, &[6; 32], b"index", &plain);
        for piece in [1_000, CHUNK_BYTES - 1, 3 * CHUNK_BYTES] {
            let mut sealer =
                BlobSealer::with_salt(&key, &[6; 32], b"index", length as u64, Vec::new()).unwrap();
            plain.chunks(piece).for_each(|piece| sealer.write_all(piece).unwrap());
            assert!(sealer.finish().unwrap() == whole, "{length} bytes by {piece}");
        }
        let opener = BlobOpener::new(&key, b"index", whole.first_chunk().unwrap(), whole.len()).unwrap();
        assert_eq!((opener.length(), opener.chunks()), (length, length.div_ceil(CHUNK_BYTES).max(1)));
        for index in (0..opener.chunks()).rev() {
            let mut opened = vec![0; opener.chunk_bytes(index)];
            opener.open(index, &whole[opener.place(index)], &mut opened).unwrap();
            assert!(opened == plain[index * CHUNK_BYTES..][..opened.len()]);
        }
    }
}

#[test]
fn another_length_than_announced_is_refused() {
    let key = Key::random();
    for announced in [0, 4, 6] {
        let mut sealer = BlobSealer::new(&key, b"", announced, Vec::new()).unwrap();
        let written = sealer.write_all(b"bytes");
        assert_eq!(written.is_err(), announced < 5);
        assert_eq!(sealer.finish().is_err(), announced > 0, "nothing came of what was refused");
    }
    assert!(BlobSealer::new(&key, b"", u64::MAX, Vec::new()).is_err());
}
