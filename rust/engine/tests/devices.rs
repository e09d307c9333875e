//! The table of devices, held against the files that cannot read it.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use candle_phi_engine::DeviceKind;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn every_feature_of_a_device_is_declared_and_checked_where_it_is_not_at_hand() {
    let features: Vec<&str> = DeviceKind::all().iter().filter_map(|kind| kind.feature).collect();
    assert!(!features.is_empty());
    let script = read("tools/check_gpu_features.sh");
    let of_all = script.lines().find(|line| line.starts_with("[ $# -gt 0 ] || set -- ")).unwrap();
    for feature in features {
        for manifest in ["rust/engine/Cargo.toml", "rust/bindings/Cargo.toml"] {
            let declared = read(manifest).lines().any(|line| line.starts_with(&format!("{feature} = [")));
            assert!(declared, "{manifest} does not declare the feature {feature}");
        }
        assert!(of_all.split_whitespace().any(|word| word == feature), "{of_all} does not have {feature}");
    }
}
