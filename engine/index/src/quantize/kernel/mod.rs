//! Integer dot products of an 8-bit query with many codes, for whatever processor this is.
//!
//! The hot loop of a graph search: one call a hop, with all unvisited neighbours. The sums are exact
//! integers, so every kernel gives the same answer; the tests hold each one against `scalar`. Here are those for codes
//! of 4 bits an element, whose bytes are drawn in `encode`; `eight` has those for 8. Which width it is, is asked once a
//! call.

mod eight;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use super::Width;
use super::encode::{LINE_BYTES, LINE_ELEMENTS};

/// 255 · 127 · 16,128 elements stay inside an i32, and so does three times that: `Codec::score` needs as much.
const _: () = assert!(255 * 127 * (sepal_types::limits::MAX_DIMENSIONS as i64 + 128) < i32::MAX as i64 / 4);

/// A set of instructions that this processor has, for codes of a width. Cannot be made for one it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    instructions: Instructions,
    width: Width,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    Scalar,
    /// `vpmaddubsw`
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vpdpbusd` on 256 bits: client processors since Alder Lake
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// `vpdpbusd` on 512 bits: servers since Ice Lake and Zen 4
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// `smlal`: every aarch64
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// `sdot`: servers since Neoverse N1 and Graviton2, Apple's since M1
    #[cfg(target_arch = "aarch64")]
    NeonDotProduct,
}

impl Kernel {
    /// The fastest one here.
    pub(crate) fn best(width: Width) -> Self {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        let best = || Instructions::available().into_iter().next_back().unwrap_or(Instructions::Scalar);
        Self { instructions: *BEST.get_or_init(best), width }
    }

    /// All that run here, slowest first.
    #[cfg(test)]
    pub(crate) fn available(width: Width) -> Vec<Self> {
        Instructions::available().into_iter().map(|instructions| Self { instructions, width }).collect()
    }

    /// `out[i] = Σ u_j · query_j` over the code of `nodes[i]`, where `u_j` is its element, 0 to 15 or 0 to 255. Those
    /// of the query are -127 to 127.
    ///
    /// `codes` holds whole codes of `query.len() / 2` or `query.len()` bytes, a multiple of 64; `out` is as long as
    /// `nodes`.
    ///
    /// # Panics
    /// When the lengths do not fit, or a node has no code: a bug here, for both are checked on build and
    /// open.
    pub(crate) fn dots(self, codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
        assert!(
            query.len().is_multiple_of(LINE_ELEMENTS) && !query.is_empty() && out.len() == nodes.len(),
            "a query of {} elements and {} results for {} nodes",
            query.len(),
            out.len(),
            nodes.len()
        );
        match self.width {
            Width::Four => self.four(codes, query, nodes, out),
            Width::Eight => eight::dots(self.instructions, codes, query, nodes, out),
        }
    }

    /// [`Kernel::dots`], which has looked at the lengths.
    #[inline(always)]
    fn four(self, codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
        match self.instructions {
            Instructions::Scalar => scalar(codes, query, nodes, out),
            // SAFETY: a kernel is only made where its instructions are; the assertion in `dots` is what they ask.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { x86::avx2(codes, query, nodes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => unsafe { x86::avx_vnni(codes, query, nodes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { x86::avx512_vnni(codes, query, nodes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe { neon::long_products(codes, query, nodes, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonDotProduct => unsafe { neon::dot_products(codes, query, nodes, out) },
        }
    }
}

impl Instructions {
    /// All that run here, slowest first.
    fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                available.push(Self::Avx2);
                if is_x86_feature_detected!("avxvnni") {
                    available.push(Self::AvxVnni);
                }
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                available.push(Self::Avx512Vnni);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            available.push(Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                available.push(Self::NeonDotProduct);
            }
        }
        available
    }
}

#[inline(always)]
fn code_of(codes: &[u8], node: u32, stride: usize) -> &[u8] {
    &codes[node as usize * stride..][..stride]
}

fn scalar(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    for (node, out) in nodes.iter().zip(out) {
        let code = code_of(codes, *node, query.len() / 2);
        let mut sum = 0i32;
        for (line, query) in code.chunks_exact(LINE_BYTES).zip(query.chunks_exact(LINE_ELEMENTS)) {
            let (low, high) = query.split_at(LINE_BYTES);
            for ((byte, low), high) in line.iter().zip(low).zip(high) {
                sum += i32::from(byte & 15) * i32::from(*low) + i32::from(byte >> 4) * i32::from(*high);
            }
        }
        *out = sum;
    }
}
