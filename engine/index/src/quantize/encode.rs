//! Rounding: a rotated row to 4 bits an element, a rotated query to 8.
//!
//! A row element becomes one of the 16 levels `(u - 7.5) · step`, `u` in 0 to 15. Which step is best depends
//! on the row, so nine are tried and the one whose levels point most nearly the row's way is kept (the idea
//! of "extended RaBitQ", Gao et al. 2024, with a short list in place of its search: encoding is 20 times
//! faster).
//!
//! Bytes of a code, 64 for every 128 elements, so that one 512-bit load and two masks give them all:
//! ```text
//! byte j of line i:   bits 0-3  element 128 i + j        bits 4-7  element 128 i + 64 + j
//! ```

#[cfg(target_arch = "x86_64")]
use super::rotate::wide_registers;

/// Elements that one line of a code holds.
pub(crate) const LINE_ELEMENTS: usize = 128;
/// Bytes of a line: one cache line.
pub(crate) const LINE_BYTES: usize = 64;

/// Steps to try, in units of the elements' standard deviation. 0.335 is best for normal ones (Max 1960). What lies past
/// 3.84 deviations is past the last level of all of them, yet wider ones would not help: rotations leave few such
/// elements, none past 5.2 deviations even where a row was an axis (128 to 1,536 dimensions, all axes), and of those
/// rows, too, no levels would lose 6 % less.
pub(super) const STEPS: [f32; 9] = [0.24, 0.27, 0.30, 0.32, 0.34, 0.36, 0.39, 0.43, 0.48];
/// Sums run in this many lanes: without a fixed order the compiler could not use wide registers.
pub(super) const LANES: usize = 16;

/// Writes the code of `unit`, a rotated vector of length 1 (or 0) with a multiple of 128 elements, to `code`.
///
/// Returns `1 / <unit, levels>` with levels `u - 7.5`: times a query's dot product with the levels, it
/// estimates the query's dot product with `unit`, without bias over the choice of rotation. 0 for a vector of
/// zeros.
///
/// Where elements are normal, the levels lose 1.1 % of the row's square: the tangent of the angle between both is
/// 0.104, and the estimate's error near normal with a deviation of that, times the lengths of row and query,
/// `/ √elements`. Of no row at all do they lose more than `Σ max(step / 2, |element| - 7.5 step)²`, with that one of the steps for
/// which this is least.
pub(crate) fn encode(unit: &[f32], code: &mut [u8]) -> f32 {
    debug_assert_eq!(unit.len(), code.len() * 2);
    #[cfg(target_arch = "x86_64")]
    if wide_registers() {
        // SAFETY: this processor has AVX2.
        return unsafe { encode_avx2(unit, code) };
    }
    encode_plain(unit, code)
}

/// Rounds a rotated query to `-127..=127`. Returns the size of one unit, 0 when all are zero.
pub(crate) fn round_query(values: &[f32], out: &mut [i8]) -> f32 {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    if largest == 0.0 {
        out.fill(0);
        return 0.0;
    }
    let scale = 127.0 / largest;
    for (value, rounded) in values.iter().zip(out) {
        // Half away from zero by hand: `round` is a call on processors without SSE 4.1.
        let scaled = value * scale;
        *rounded = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i8;
    }
    largest / 127.0
}

/// The loops of `encode_plain` compiled for 256-bit registers; same operations, same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn encode_avx2(unit: &[f32], code: &mut [u8]) -> f32 {
    encode_plain(unit, code)
}

#[inline(always)]
pub(super) fn encode_plain(unit: &[f32], code: &mut [u8]) -> f32 {
    let deviations = (unit.len() as f32).sqrt();
    let mut best = (0f32, 0f32, 0f32);
    for step in STEPS {
        let per_step = deviations / step;
        let (dot, square) = fit(unit, per_step);
        // The cosine between levels and row, without the row's constant length.
        let cosine = dot / square.sqrt();
        if cosine > best.0 {
            best = (cosine, per_step, dot);
        }
    }
    let (cosine, per_step, dot) = best;
    for (elements, line) in unit.chunks_exact(LINE_ELEMENTS).zip(code.chunks_exact_mut(LINE_BYTES)) {
        let (low, high) = elements.split_at(LINE_BYTES);
        for ((low, high), byte) in low.iter().zip(high).zip(line) {
            *byte = (level(*low, per_step) + 7.5) as u8 | ((level(*high, per_step) + 7.5) as u8) << 4;
        }
    }
    if cosine > 0.0 { 1.0 / dot } else { 0.0 }
}

/// The level that `value` is rounded to, in steps: -7.5 to 7.5.
#[inline(always)]
fn level(value: f32, per_step: f32) -> f32 {
    (value * per_step).floor().clamp(-8.0, 7.0) + 0.5
}

/// `(<unit, levels>, <levels, levels>)`
#[inline(always)]
fn fit(unit: &[f32], per_step: f32) -> (f32, f32) {
    let mut dots = [0f32; LANES];
    let mut squares = [0f32; LANES];
    for elements in unit.chunks_exact(LANES) {
        for ((value, dot), square) in elements.iter().zip(&mut dots).zip(&mut squares) {
            let level = level(*value, per_step);
            *dot += level * value;
            *square += level * level;
        }
    }
    (dots.iter().sum(), squares.iter().sum())
}
