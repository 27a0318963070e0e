//! Integer dot products of an 8-bit query with many 8-bit codes.
//!
//! Called by [`super::Kernel::dots`] alone, which has looked at the lengths. The sums are exact integers here too, and
//! the tests hold each kernel against `scalar`. A code is as long as the query, an element a byte.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::{Instructions, code_of};

/// `out[i] = Σ u_j · query_j` over the code of `nodes[i]`, where `u_j` is its element 0 to 255. This processor has
/// the instructions.
pub(super) fn dots(instructions: Instructions, codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    match instructions {
        Instructions::Scalar => scalar(codes, query, nodes, out),
        // SAFETY: the caller is a kernel, which is only made where its instructions are.
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

fn scalar(codes: &[u8], query: &[i8], nodes: &[u32], out: &mut [i32]) {
    for (node, out) in nodes.iter().zip(out) {
        let pairs = code_of(codes, *node, query.len()).iter().zip(query);
        *out = pairs.map(|(byte, value)| i32::from(*byte) * i32::from(*value)).sum();
    }
}
