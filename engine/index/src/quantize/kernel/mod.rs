//! Integer dot products of an 8-bit query with many 4-bit codes, for whatever processor this is.
//!
//! The hot loop of a graph search: one call a hop, with all unvisited neighbours. The sums are exact
//! integers, so every kernel gives the same answer; the tests hold each one against `scalar`. The bytes of a
//! code are drawn in `encode`.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use super::encode::{LINE_BYTES, LINE_ELEMENTS};

/// 15 · 127 · 16,384 elements stay far inside an i32.
const _: () = assert!(15 * 127 * (sepal_types::limits::MAX_DIMENSIONS as i64 + 128) < i32::MAX as i64 / 4);

/// A set of instructions that this processor has. Cannot be made for one it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel(Instructions);

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
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST
            .get_or_init(|| Self::available().into_iter().next_back().unwrap_or(Kernel(Instructions::Scalar)))
    }

    /// All that run here, slowest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut kernels = vec![Kernel(Instructions::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Kernel(Instructions::Avx2));
                if is_x86_feature_detected!("avxvnni") {
                    kernels.push(Kernel(Instructions::AvxVnni));
                }
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Kernel(Instructions::Avx512Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            kernels.push(Kernel(Instructions::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                kernels.push(Kernel(Instructions::NeonDotProduct));
            }
        }
        kernels
    }

    /// `out[i] = Σ u_j · query_j` over the code of `nodes[i]`, where `u_j` is its element 0 to 15.
    ///
    /// `codes` holds whole codes of `query.len() / 2` bytes, a multiple of 64; `out` is as long as `nodes`.
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
        match self.0 {
            Instructions::Scalar => scalar(codes, query, nodes, out),
            // SAFETY: a kernel is only made where its instructions are; the assertion above is what they ask.
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
