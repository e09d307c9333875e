//! Scalar dequantization of a row of blocks: the reference for every kernel, and fast enough for embedding rows.
//!
//! The formats are those of ggml's `ggml-quants.c`; a block's fields are named as there.

#![allow(clippy::indexing_slicing, reason = "a block is an array, and every index is a function of constants")]

use half::{bf16, f16};

use crate::TensorType;
use crate::iq4::{codes, xs_subs};
use crate::tensor_type::SUPER_BLOCK;

/// The bytes and the values of a row do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthError {
    /// Type of the row.
    pub tensor_type: TensorType,
    /// Values that were asked for.
    pub len: usize,
    /// Bytes that were given.
    pub bytes: usize,
}

impl std::fmt::Display for LengthError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tensor_type, len, bytes } = self;
        write!(f, "a row of {len} values of type {} cannot have {bytes} bytes", tensor_type.name())
    }
}

impl std::error::Error for LengthError {}

/// Writes the values of a row of blocks into `out`.
///
/// # Errors
/// [`LengthError`] if `bytes` is not exactly a row of `out.len()` values.
pub fn dequantize_row(tensor_type: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<(), LengthError> {
    if tensor_type.row_bytes(out.len()) != Some(bytes.len()) {
        return Err(LengthError { tensor_type, len: out.len(), bytes: bytes.len() });
    }
    match tensor_type {
        TensorType::F32 => each_block(bytes, out, |b: &[u8; 4], x: &mut [f32; 1]| x[0] = f32::from_le_bytes(*b)),
        TensorType::F16 => each_block(bytes, out, |b: &[u8; 2], x: &mut [f32; 1]| x[0] = f16_at(b, 0)),
        TensorType::BF16 => {
            each_block(bytes, out, |b: &[u8; 2], x: &mut [f32; 1]| x[0] = bf16::from_le_bytes(*b).to_f32());
        }
        TensorType::Q4_0 => each_block(bytes, out, q4_0),
        TensorType::Q4_1 => each_block(bytes, out, q4_1),
        TensorType::Q5_0 => each_block(bytes, out, q5_0),
        TensorType::Q5_1 => each_block(bytes, out, q5_1),
        TensorType::Q8_0 => each_block(bytes, out, q8_0),
        TensorType::Q2_K => each_block(bytes, out, q2_k),
        TensorType::Q3_K => each_block(bytes, out, q3_k),
        TensorType::Q4_K => each_block(bytes, out, q4_k),
        TensorType::Q5_K => each_block(bytes, out, q5_k),
        TensorType::Q6_K => each_block(bytes, out, q6_k),
        TensorType::IQ4_NL => each_block(bytes, out, iq4_nl),
        TensorType::IQ4_XS => each_block(bytes, out, iq4_xs),
    }
    Ok(())
}

fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (bytes, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for (j, q) in b[2..].iter().enumerate() {
        out[j] = d * (f32::from(q & 15) - 8.0);
        out[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    for (j, q) in b[4..].iter().enumerate() {
        out[j] = d * f32::from(q & 15) + m;
        out[j + 16] = d * f32::from(q >> 4) + m;
    }
}

/// The low four bits are packed as in Q4, the fifth bits of the 32 values stand in one little-endian word.
fn five_bits(high: &[u8], low: &[u8], mut put: impl FnMut(usize, f32)) {
    for (j, q) in low.iter().enumerate() {
        let fifth = |i: usize| (high[i / 8] >> (i % 8) & 1) << 4;
        put(j, f32::from(q & 15 | fifth(j)));
        put(j + 16, f32::from(q >> 4 | fifth(j + 16)));
    }
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    five_bits(&b[2..6], &b[6..], |j, q| out[j] = d * (q - 16.0));
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    five_bits(&b[4..8], &b[8..], |j, q| out[j] = d * q + m);
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for (x, q) in out.iter_mut().zip(&b[2..]) {
        *x = d * f32::from(q.cast_signed());
    }
}

/// 16 sub-blocks of 16; scale and minimum have four bits each; a byte holds the same place of four sub-block pairs.
fn q2_k(b: &[u8; 84], out: &mut [f32; SUPER_BLOCK]) {
    let (scales, qs) = (&b[..16], &b[16..80]);
    let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
    for (i, x) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let q = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *x = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

/// As Q2_K with a third bit in `hmask` (set: nothing to subtract) and six-bit signed scales.
fn q3_k(b: &[u8; 110], out: &mut [f32; SUPER_BLOCK]) {
    let (hmask, qs, packed) = (&b[..32], &b[32..96], &b[96..108]);
    let d = f16_at(b, 108);
    let scale = |sub: usize| {
        let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
        let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
        f32::from(low | high << 4) - 32.0
    };
    for (i, x) in out.iter_mut().enumerate() {
        let low = qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let high = hmask[i % 32] >> (i / 32) & 1;
        *x = d * scale(i / 16) * (f32::from(low | high << 2) - 4.0);
    }
}

/// Scale and minimum of sub-block `sub` (0 to 7) out of the twelve packed bytes of Q4_K and Q5_K.
fn scale_min(packed: &[u8], sub: usize) -> (f32, f32) {
    let (scale, min) = if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        let (low, high_scale, high_min) = (packed[sub + 4], packed[sub - 4] >> 6, packed[sub] >> 6);
        (low & 15 | high_scale << 4, low >> 4 | high_min << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(b: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin, packed, qs) = (f16_at(b, 0), f16_at(b, 2), &b[4..16], &b[16..]);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(packed, sub);
        for (i, x) in out.iter_mut().enumerate() {
            let q = qs[sub / 2 * 32 + i] >> (sub % 2 * 4) & 15;
            *x = d * scale * f32::from(q) - dmin * min;
        }
    }
}

fn q5_k(b: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin, packed, qh, qs) = (f16_at(b, 0), f16_at(b, 2), &b[4..16], &b[16..48], &b[48..]);
    for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(packed, sub);
        for (i, x) in out.iter_mut().enumerate() {
            let low = qs[sub / 2 * 32 + i] >> (sub % 2 * 4) & 15;
            let high = qh[i] >> sub & 1;
            *x = d * scale * f32::from(low | high << 4) - dmin * min;
        }
    }
}

fn q6_k(b: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let (ql, qh, scales) = (&b[..128], &b[128..192], &b[192..208]);
    let d = f16_at(b, 208);
    for (i, x) in out.iter_mut().enumerate() {
        let (half, quarter, place) = (i / 128, i % 128 / 32, i % 32);
        let low = ql[half * 64 + quarter % 2 * 32 + place] >> (quarter / 2 * 4) & 15;
        let high = qh[half * 32 + place] >> (quarter * 2) & 3;
        *x = d * f32::from(scales[i / 16].cast_signed()) * (f32::from(low | high << 4) - 32.0);
    }
}

fn iq4_nl([d0, d1, packed @ ..]: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16::from_le_bytes([*d0, *d1]).to_f32();
    *out = codes(packed).map(|code| d * f32::from(code));
}

fn iq4_xs(b: &[u8; 136], out: &mut [f32; SUPER_BLOCK]) {
    for ((scale, packed), out) in xs_subs(b).zip(out.as_chunks_mut().0) {
        *out = codes(packed).map(|code| scale * f32::from(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_wrong_length_is_refused() {
        let error = dequantize_row(TensorType::Q8_0, &[0; 33], &mut [0.0; 32]).unwrap_err();
        assert_eq!(error, LengthError { tensor_type: TensorType::Q8_0, len: 32, bytes: 33 });
        for value in ["Q8_0", "32", "33"] {
            assert!(error.to_string().contains(value), "{error}");
        }
        assert!(dequantize_row(TensorType::Q8_0, &[0; 34], &mut [0.0; 31]).is_err());
    }

    #[test]
    fn q8_0_scales_signed_bytes() {
        let mut block = [0; 34];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2] = 2;
        block[33] = 0x80;
        let mut out = [9.0; 32];
        dequantize_row(TensorType::Q8_0, &block, &mut out).unwrap();
        assert_eq!((out[0], out[1], out[31]), (1.0, 0.0, -64.0));
    }
}
