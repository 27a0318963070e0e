//! Sharing 32 secret bytes among people, so that any `threshold` of them have it and fewer have nothing: Shamir, "How
//! to share a secret", 1979, byte by byte over GF(256) with AES' polynomial.
//!
//! ```text
//! share x := f(x), x from 1;  f_i(z) = secret_i + a_i1 z + … + a_i(t-1) z^(t-1),  every a random
//! ```
//! Nothing here tells a wrong share: whoever combines shares knows the key's check value. No branch and no table
//! depends on a secret.

use zeroize::Zeroizing;

use crate::{Key, random_bytes};

/// One person's part.
#[derive(Clone)]
pub struct Share {
    /// Which: from 1.
    pub number: u8,
    pub bytes: Zeroizing<[u8; 32]>,
}

/// `count` shares of a key, any `threshold` of which give it back. `None` unless 2 ≤ threshold ≤ count.
pub fn split_key(key: &Key, threshold: u8, count: u8) -> Option<Vec<Share>> {
    if threshold < 2 || threshold > count {
        return None;
    }
    let coefficients: Vec<Zeroizing<[u8; 32]>> =
        (1..threshold).map(|_| Zeroizing::new(random_bytes())).collect();
    let share = |number: u8| {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        for (position, byte) in bytes.iter_mut().enumerate() {
            // Horner, the highest coefficient first.
            for coefficient in coefficients.iter().rev() {
                *byte = multiply(*byte ^ coefficient[position], number);
            }
            *byte ^= key.expose()[position];
        }
        Share { number, bytes }
    };
    Some((1..=count).map(share).collect())
}

/// The key that shares belong to, if there are as many as its threshold: else some other one. `None` when two have the
/// same number, one has the number 0, or there is none.
pub fn combine_shares(shares: &[Share]) -> Option<Key> {
    let repeated = |at: usize| shares[..at].iter().any(|earlier| earlier.number == shares[at].number);
    if shares.is_empty() || (0..shares.len()).any(|at| shares[at].number == 0 || repeated(at)) {
        return None;
    }
    let mut secret = Zeroizing::new([0_u8; 32]);
    for share in shares {
        // Lagrange's basis at 0. Subtraction is exclusive or.
        let others = shares.iter().filter(|other| other.number != share.number);
        let weight = others.fold(1, |weight, other| {
            multiply(weight, multiply(other.number, inverse(other.number ^ share.number)))
        });
        for (byte, part) in secret.iter_mut().zip(share.bytes.iter()) {
            *byte ^= multiply(*part, weight);
        }
    }
    Some(Key::from_bytes(*secret))
}

/// In GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197, 4.2).
const fn multiply(one: u8, other: u8) -> u8 {
    let (mut product, mut factor, mut bit) = (0_u8, one, 0);
    while bit < 8 {
        product ^= factor & 0_u8.wrapping_sub((other >> bit) & 1);
        factor = (factor << 1) ^ (0x1b & 0_u8.wrapping_sub(factor >> 7));
        bit += 1;
    }
    product
}

/// The 254th power; 0 for 0, which no caller asks.
const fn inverse(number: u8) -> u8 {
    // 254 = 2 + 4 + 8 + 16 + 32 + 64 + 128
    let (mut power, mut product, mut square) = (1_u8, number, 0);
    while square < 7 {
        product = multiply(product, product);
        power = multiply(power, product);
        square += 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// FIPS 197, 4.2: {57} • {83} = {c1}, {57} • {13} = {fe}.
    #[test]
    fn the_field_is_aes() {
        assert_eq!((multiply(0x57, 0x83), multiply(0x57, 0x13)), (0xc1, 0xfe));
        for number in 1..=255 {
            assert_eq!(multiply(number, inverse(number)), 1, "{number}");
        }
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        let key = Key::random();
        for (threshold, count) in [(0, 3), (1, 3), (4, 3)] {
            assert!(split_key(&key, threshold, count).is_none());
        }
        let shares = split_key(&key, 2, 255).unwrap();
        assert_eq!((shares.len(), shares[254].number), (255, 255));
        assert!(combine_shares(&[]).is_none());
        assert!(combine_shares(&[shares[0].clone(), shares[0].clone()]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_threshold_of_shares_is_enough_and_one_less_is_not(
            secret in any::<[u8; 32]>(),
            (threshold, count) in (2_u8..6).prop_flat_map(|t| (Just(t), t..8)),
            order in any::<prop::sample::Index>(),
        ) {
            let key = Key::from_bytes(secret);
            let mut shares = split_key(&key, threshold, count).unwrap();
            let turn = order.index(shares.len());
            shares.rotate_left(turn);
            for given in usize::from(threshold)..=usize::from(count) {
                let combined = combine_shares(&shares[..given]).unwrap();
                prop_assert_eq!(combined.expose(), &secret);
            }
            let short = combine_shares(&shares[..usize::from(threshold) - 1]).unwrap();
            prop_assert_ne!(short.expose(), &secret);
        }
    }
}
