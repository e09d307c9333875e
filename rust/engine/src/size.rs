//! Sizes for people.

/// `2.39 GB`, `512 bytes`: in powers of ten, as the hub and disks show sizes.
pub(crate) fn size_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.2} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let texts = [0, 999, 1_500, 2_393_231_072].map(size_text);
        assert_eq!(texts, ["0 bytes", "999 bytes", "1.50 kB", "2.39 GB"]);
    }
}
