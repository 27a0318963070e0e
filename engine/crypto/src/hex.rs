//! Bytes as lower-case hexadecimal text and back: check values, hashes, key files, what JSON is to hold.

use std::fmt::Write;

use zeroize::Zeroizing;

/// Two digits a byte. The text of a secret is one: put it into [`Zeroizing`].
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `None` unless every two digits, upper-case or lower-case, are a byte. The bytes may be secret.
pub fn unhex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
    let pairs = text.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    for pair in pairs {
        let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(hex(&[0, 9, 0xa0, 0xff]), "0009a0ff");
        assert_eq!(unhex(b"0009A0ff").as_deref(), Some(&vec![0, 9, 0xa0, 0xff]));
        assert_eq!((hex(&[]), unhex(b"").as_deref()), (String::new(), Some(&Vec::new())));
        for text in ["0", "0g", "+1", " 1", "000", "é"] {
            assert!(unhex(text.as_bytes()).is_none(), "{text}");
        }
    }
}
