//! Rounding a rotated row to 8 bits an element: where four cannot tell the rows apart.
//!
//! A row element becomes one of the 256 levels `(u - 127.5) · step`, `u` in 0 to 255. The outermost level is the row's
//! largest element: no other step is tried, since what 8 bits lose is no more than what the query loses, which is
//! rounded to as many. Called by way of `Width`.
//!
//! Byte j of a code is element j.

use super::encode::LANES;
#[cfg(target_arch = "x86_64")]
use super::rotate::wide_registers;

/// The outermost level, in steps.
const OUTERMOST: f32 = 127.5;

/// As `encode::encode`, with levels `u - 127.5`, and as many bytes as elements.
///
/// No element is further off than half a step. Where elements are normal, the largest of 384 is about three
/// deviations: the tangent of the angle between row and levels is 0.007, a fifteenth of what it is with 4 bits. The
/// query's rounding adds as much: together about a tenth.
pub(super) fn encode(unit: &[f32], code: &mut [u8]) -> f32 {
    debug_assert_eq!(unit.len(), code.len());
    #[cfg(target_arch = "x86_64")]
    if wide_registers() {
        // SAFETY: this processor has AVX2.
        return unsafe { encode_avx2(unit, code) };
    }
    encode_plain(unit, code)
}

/// The loops of `encode_plain` compiled for 256-bit registers; same operations, same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_avx2(unit: &[f32], code: &mut [u8]) -> f32 {
    encode_plain(unit, code)
}

#[inline(always)]
pub(super) fn encode_plain(unit: &[f32], code: &mut [u8]) -> f32 {
    let largest = unit.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let per_step = if largest > 0.0 { OUTERMOST / largest } else { 0.0 };
    let mut dots = [0f32; LANES];
    for (elements, bytes) in unit.chunks_exact(LANES).zip(code.chunks_exact_mut(LANES)) {
        for ((value, byte), dot) in elements.iter().zip(bytes).zip(&mut dots) {
            let level = (value * per_step).floor().clamp(-128.0, 127.0) + 0.5;
            *byte = (level + OUTERMOST) as u8;
            *dot += level * value;
        }
    }
    if largest > 0.0 { 1.0 / dots.iter().sum::<f32>() } else { 0.0 }
}
