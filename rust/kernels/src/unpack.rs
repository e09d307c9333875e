//! Any quantized type as unsigned bytes with a scale and a minimum for each sub-block: what the general kernels, and the
//! tests of the special ones, read.

#![allow(clippy::indexing_slicing, reason = "a block is an array, and every index is a function of constants")]

use half::f16;

use crate::iq4::{codes, xs_subs};
use crate::tensor_type::SUPER_BLOCK;
use crate::{Isa, Kernels, TensorType};

/// Most sub-blocks that a super-block has.
pub(crate) const MAX_SUBS: usize = 16;

/// 256 values of a row: `scale[i / sub_len] · (q[i] - offset) - min[i / sub_len]`, with the type's
/// [`sub_len`](Layout::sub_len) and [`offset`](Layout::offset).
pub(crate) struct Unpacked {
    pub(crate) q: [u8; SUPER_BLOCK],
    pub(crate) scale: [f32; MAX_SUBS],
    pub(crate) min: [f32; MAX_SUBS],
}

impl Unpacked {
    pub(crate) const ZERO: Self = Self { q: [0; SUPER_BLOCK], scale: [0.0; MAX_SUBS], min: [0.0; MAX_SUBS] };
}

/// How a type's values follow from its quants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Values that share a scale.
    pub(crate) sub_len: usize,
    /// What is subtracted from a quant.
    pub(crate) offset: i32,
    /// Whether a quant's byte is signed.
    pub(crate) signed: bool,
    /// The largest that a quant's bits can be.
    pub(crate) largest: i32,
    /// Whether sub-blocks have a minimum.
    pub(crate) has_min: bool,
}

impl TensorType {
    /// The layout of a quantized type, `None` for floats.
    pub(crate) const fn layout(self) -> Option<Layout> {
        let (sub_len, offset, largest, has_min) = match self {
            Self::F32 | Self::F16 | Self::BF16 => return None,
            Self::Q4_0 => (32, 8, 15, false),
            Self::Q5_0 => (32, 16, 31, false),
            Self::Q8_0 | Self::IQ4_NL | Self::IQ4_XS => (32, 128, 255, false),
            Self::Q4_1 | Self::Q4_K => (32, 0, 15, true),
            Self::Q5_1 | Self::Q5_K => (32, 0, 31, true),
            Self::Q2_K => (16, 0, 3, true),
            Self::Q3_K => (16, 4, 7, false),
            Self::Q6_K => (16, 32, 63, false),
        };
        Some(Layout { sub_len, offset, largest, signed: false, has_min })
    }
}

impl Kernels {
    /// The layout of a quantized type in the panels of this level, `None` for floats.
    pub(crate) fn panel_layout(self, tensor_type: TensorType) -> Option<Layout> {
        let layout = tensor_type.layout()?;
        match self.isa() {
            // They multiply signed bytes: what is unsigned by an offset only does without.
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm if layout.offset == 128 => {
                Some(Layout { offset: 0, signed: true, ..layout })
            }
            _ => Some(layout),
        }
    }
}

impl Layout {
    /// A quant without its offset.
    pub(crate) fn quant(self, byte: u8) -> i32 {
        let byte = if self.signed { i32::from(byte.cast_signed()) } else { i32::from(byte) };
        byte - self.offset
    }
}

/// Unpacks the values from `256 · block` on of a row; what lies behind the row's end is zero.
///
/// Floats are left zero: they have no quants.
pub(crate) fn unpack(tensor_type: TensorType, row: &[u8], block: usize, out: &mut Unpacked) {
    let bytes_of_256 = SUPER_BLOCK / tensor_type.block_len() * tensor_type.block_bytes();
    let bytes = row.get(block * bytes_of_256..).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(bytes_of_256)];
    match tensor_type {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => *out = Unpacked::ZERO,
        TensorType::Q4_0 => small(bytes, out, |b: &[u8; 18], q| {
            nibbles(&b[2..], q);
            (f16_at(b, 0), 0.0)
        }),
        TensorType::Q4_1 => small(bytes, out, |b: &[u8; 20], q| {
            nibbles(&b[4..], q);
            (f16_at(b, 0), -f16_at(b, 2))
        }),
        TensorType::Q5_0 => small(bytes, out, |b: &[u8; 22], q| {
            five_bits(&b[2..6], &b[6..], q);
            (f16_at(b, 0), 0.0)
        }),
        TensorType::Q5_1 => small(bytes, out, |b: &[u8; 24], q| {
            five_bits(&b[4..8], &b[8..], q);
            (f16_at(b, 0), -f16_at(b, 2))
        }),
        TensorType::Q8_0 => small(bytes, out, |b: &[u8; 34], q| {
            for (q, w) in q.iter_mut().zip(&b[2..]) {
                *q = w ^ 0x80;
            }
            (f16_at(b, 0), 0.0)
        }),
        TensorType::Q2_K => large(bytes, out, q2_k),
        TensorType::Q3_K => large(bytes, out, q3_k),
        TensorType::Q4_K => large(bytes, out, q4_k),
        TensorType::Q5_K => large(bytes, out, q5_k),
        TensorType::Q6_K => large(bytes, out, q6_k),
        TensorType::IQ4_NL => small(bytes, out, |[d0, d1, packed @ ..]: &[u8; 18], q| {
            *q = unsigned(packed);
            (f16_at(&[*d0, *d1], 0), 0.0)
        }),
        TensorType::IQ4_XS => large(bytes, out, iq4_xs),
    }
}

/// Up to eight blocks of 32.
fn small<const BYTES: usize>(
    bytes: &[u8],
    out: &mut Unpacked,
    block: impl Fn(&[u8; BYTES], &mut [u8; 32]) -> (f32, f32),
) {
    *out = Unpacked::ZERO;
    for (sub, (bytes, q)) in bytes.as_chunks().0.iter().zip(out.q.as_chunks_mut().0).enumerate() {
        (out.scale[sub], out.min[sub]) = block(bytes, q);
    }
}

fn large<const BYTES: usize>(bytes: &[u8], out: &mut Unpacked, block: impl Fn(&[u8; BYTES], &mut Unpacked)) {
    match bytes.first_chunk() {
        Some(bytes) => block(bytes, out),
        None => *out = Unpacked::ZERO,
    }
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn nibbles(packed: &[u8], q: &mut [u8; 32]) {
    for (j, byte) in packed.iter().enumerate() {
        q[j] = byte & 15;
        q[j + 16] = byte >> 4;
    }
}

fn five_bits(high: &[u8], low: &[u8], q: &mut [u8; 32]) {
    nibbles(low, q);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= (high[i / 8] >> (i % 8) & 1) << 4;
    }
}

fn q2_k(b: &[u8; 84], out: &mut Unpacked) {
    let (scales, qs) = (&b[..16], &b[16..80]);
    let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
    for (i, q) in out.q.iter_mut().enumerate() {
        *q = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    }
    for (sub, scale) in scales.iter().enumerate() {
        out.scale[sub] = d * f32::from(scale & 15);
        out.min[sub] = dmin * f32::from(scale >> 4);
    }
}

fn q3_k(b: &[u8; 110], out: &mut Unpacked) {
    let (hmask, qs, packed) = (&b[..32], &b[32..96], &b[96..108]);
    let d = f16_at(b, 108);
    for (i, q) in out.q.iter_mut().enumerate() {
        let low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *q = low | (hmask[i % 32] >> (i / 32) & 1) << 2;
    }
    for sub in 0..16 {
        let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
        let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
        out.scale[sub] = d * (f32::from(low | high << 4) - 32.0);
        out.min[sub] = 0.0;
    }
}

/// Scales and minimums out of the twelve packed bytes of Q4_K and Q5_K.
pub(crate) fn scales_and_mins(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for sub in 0..4 {
        scales[sub] = packed[sub] & 63;
        mins[sub] = packed[sub + 4] & 63;
        scales[sub + 4] = packed[sub + 8] & 15 | packed[sub] >> 6 << 4;
        mins[sub + 4] = packed[sub + 8] >> 4 | packed[sub + 4] >> 6 << 4;
    }
    (scales, mins)
}

fn scale_and_min_of_subs(b: &[u8], out: &mut Unpacked) {
    let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
    let (scales, mins) = scales_and_mins(&b[4..16]);
    for sub in 0..8 {
        out.scale[sub] = d * f32::from(scales[sub]);
        out.min[sub] = dmin * f32::from(mins[sub]);
    }
}

fn q4_k(b: &[u8; 144], out: &mut Unpacked) {
    scale_and_min_of_subs(b, out);
    for (i, q) in out.q.iter_mut().enumerate() {
        *q = b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    }
}

fn q5_k(b: &[u8; 176], out: &mut Unpacked) {
    scale_and_min_of_subs(b, out);
    for (i, q) in out.q.iter_mut().enumerate() {
        let low = b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        *q = low | (b[16 + i % 32] >> (i / 32) & 1) << 4;
    }
}

fn q6_k(b: &[u8; 210], out: &mut Unpacked) {
    let (ql, qh, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = f16_at(b, 208);
    for (i, q) in out.q.iter_mut().enumerate() {
        let (half, quarter, place) = (i / 128, i % 128 / 32, i % 32);
        let low = ql[half * 64 + quarter % 2 * 32 + place] >> (quarter / 2 * 4) & 15;
        *q = low | (qh[half * 32 + place] >> (quarter * 2) & 3) << 4;
    }
    for (sub, scale) in scales.iter().enumerate() {
        out.scale[sub] = d * f32::from(scale.cast_signed());
        out.min[sub] = 0.0;
    }
}

/// Codes of eight bits with a sign, as those of Q8_0.
fn unsigned(packed: &[u8; 16]) -> [u8; 32] {
    codes(packed).map(|code| code.cast_unsigned() ^ 0x80)
}

fn iq4_xs(b: &[u8; 136], out: &mut Unpacked) {
    for (sub, ((scale, packed), q)) in xs_subs(b).zip(out.q.as_chunks_mut().0).enumerate() {
        *q = unsigned(packed);
        out.scale[sub] = scale;
        out.min[sub] = 0.0;
    }
}
