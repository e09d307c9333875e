//! IQ4_NL and IQ4_XS: four bits that stand for one of sixteen codes, which lie closer together around zero.

#![allow(clippy::indexing_slicing, reason = "a block is an array, and every index is a function of constants")]

use half::f16;

use crate::TensorType;

/// What the four bits stand for: ggml's `kvalues_iq4nl`.
pub(crate) const CODES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The codes of 32 packed values: the low halves of the bytes are the first sixteen.
pub(crate) fn codes(packed: &[u8; 16]) -> [i8; 32] {
    let mut codes = [0; 32];
    for (j, byte) in packed.iter().enumerate() {
        codes[j] = CODES[usize::from(byte & 15)];
        codes[j + 16] = CODES[usize::from(byte >> 4)];
    }
    codes
}

/// The eight sub-blocks of an IQ4_XS block: their scales, and their packed values.
///
/// A scale is `d` times six bits less 32; the bits' low four are in `scales_l`, the high two in `scales_h`.
pub(crate) fn xs_subs(b: &[u8; 136]) -> impl Iterator<Item = (f32, &[u8; 16])> {
    let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
    let (scales_h, scales_l) = (u16::from_le_bytes([b[2], b[3]]), &b[4..8]);
    b[8..].as_chunks().0.iter().enumerate().map(move |(sub, packed)| {
        let low = scales_l[sub / 2] >> (sub % 2 * 4) & 15;
        let high = (scales_h >> (sub * 2) & 3) as u8;
        (d * (f32::from(low | high << 4) - 32.0), packed)
    })
}

/// IQ4_NL and IQ4_XS blocks as Q8_0, about twice as large, for programs that multiply with those alone; `None` for
/// other types, and for bytes that are not whole blocks.
///
/// The codes are whole numbers of eight bits, so that IQ4_NL becomes the same values. The scales of IQ4_XS are rounded to
/// eleven bits: its values become the same to one part in 2,048.
#[must_use]
pub fn iq4_as_q8_0(tensor_type: TensorType, bytes: &[u8]) -> Option<Vec<u8>> {
    let blocks = bytes.len() / tensor_type.block_bytes() * tensor_type.block_len() / 32;
    let mut out = Vec::with_capacity(blocks * TensorType::Q8_0.block_bytes());
    let mut put = |scale: [u8; 2], packed| {
        out.extend(scale);
        out.extend(codes(packed).map(i8::cast_unsigned));
    };
    match (tensor_type, bytes.as_chunks::<18>(), bytes.as_chunks::<136>()) {
        (TensorType::IQ4_NL, (blocks, []), _) => {
            for [d0, d1, packed @ ..] in blocks {
                put([*d0, *d1], packed);
            }
        }
        (TensorType::IQ4_XS, _, (blocks, [])) => {
            for (scale, packed) in blocks.iter().flat_map(xs_subs) {
                put(f16::from_f32(scale).to_le_bytes(), packed);
            }
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize_row;

    /// A scale of every magnitude that f16 has, subnormal ones too, before quants and sub-scales of every kind.
    fn blocks(tensor_type: TensorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        for exponent in 0..20u16 {
            let d = exponent << 10 | 0x155;
            let rest = tensor_type.block_bytes() - 2;
            bytes.extend((d | exponent << 15).to_le_bytes());
            bytes.extend((0..rest).map(|i| (i * 59 + usize::from(exponent) * 101) as u8));
        }
        bytes
    }

    fn values(tensor_type: TensorType, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; bytes.len() / tensor_type.block_bytes() * tensor_type.block_len()];
        dequantize_row(tensor_type, bytes, &mut values).unwrap();
        values
    }

    #[test]
    fn as_q8_0_the_values_are_the_same() {
        for (tensor_type, tolerance) in [(TensorType::IQ4_NL, 0.0), (TensorType::IQ4_XS, 1.0 / 2048.0)] {
            let bytes = blocks(tensor_type);
            let expected = values(tensor_type, &bytes);
            let found = values(TensorType::Q8_0, &iq4_as_q8_0(tensor_type, &bytes).unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} {expected}");
            }
        }
    }

    #[test]
    fn other_types_and_parts_of_blocks_are_not_converted() {
        assert_eq!(iq4_as_q8_0(TensorType::Q4_0, &[0; 18]), None);
        assert_eq!(iq4_as_q8_0(TensorType::IQ4_NL, &[0; 17]), None);
        assert_eq!(iq4_as_q8_0(TensorType::IQ4_XS, &[0; 137]), None);
        assert_eq!(iq4_as_q8_0(TensorType::IQ4_XS, &[]), Some(Vec::new()));
    }
}
