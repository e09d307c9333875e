//! The structs of options in the header have the options that the table gives to C, and no others.
#![allow(clippy::unwrap_used, reason = "a test stops where it is wrong")]

use std::collections::BTreeSet;

use candle_phi_engine::options::{Interface, OPTIONS, Scope};

const HEADER: &str = include_str!("../include/candle_phi.h");

/// The names of a struct's fields.
fn fields(name: &str) -> BTreeSet<String> {
    let (before, _) = HEADER.split_once(&format!("}} {name};")).unwrap();
    let (_, body) = before.rsplit_once("typedef struct {\n").unwrap();
    let is_code = |line: &&str| line.ends_with(';') && !line.trim_start().starts_with('*');
    let last_word = |line: &str| line.trim_end_matches(';').rsplit([' ', '*']).next().unwrap().to_owned();
    body.lines().filter(is_code).map(last_word).collect()
}

/// The fields that the table asks for: a unit is a part of the name here.
fn expected(scope: Scope) -> BTreeSet<String> {
    let options = OPTIONS.iter().filter(|option| option.scope == scope && option.is_in(Interface::C));
    options.map(|option| if option.name == "timeout" { "timeout_s" } else { option.name }.to_owned()).collect()
}

#[test]
fn the_structs_have_the_options_of_the_table() {
    for (scope, name, own) in [
        (
            Scope::Generation,
            "CandlePhiGenerationOptions",
            // Lengths of lists, whether there is a seed, and what no other interface has.
            &["size", "cancel", "reserved", "n_stop", "n_stop_token_ids", "n_logit_bias", "has_seed"][..],
        ),
        (Scope::Session, "CandlePhiSessionOptions", &["size"]),
        (Scope::Loading, "CandlePhiLoadOptions", &["size", "cancel"]),
    ] {
        let own: BTreeSet<String> = own.iter().map(|field| (*field).to_owned()).collect();
        let found = fields(name);
        assert!(own.is_subset(&found), "{name}: {found:?}");
        assert_eq!(&found - &own, expected(scope), "{name}");
    }
}
