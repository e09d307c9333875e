//! Which model a name that is none may have meant.

/// ` Did you mean ...?` with one or two of `names`, or nothing.
pub(super) fn did_you_mean(given: &str, names: &[&'static str], guess: bool) -> String {
    let near: Vec<_> = nearest(given, names, guess).into_iter().take(2).map(|name| format!("`{name}`")).collect();
    if near.is_empty() { String::new() } else { format!(" Did you mean {}?", near.join(" or ")) }
}

/// The `names` that someone may have meant, the likeliest first. Without `guess` only those that are the same
/// model's name written otherwise, or its beginning, or longer.
fn nearest(given: &str, names: &[&'static str], guess: bool) -> Vec<&'static str> {
    let wanted = plain(given);
    let mut near: Vec<(f64, &str)> = names
        .iter()
        .filter_map(|listed| {
            let name = plain(listed);
            let likeness = strsim::jaro_winkler(&wanted, &name);
            let known = |longer: &str, shorter: &str| shorter.len() > 3 && longer.starts_with(shorter);
            let rank = if name == wanted {
                4.0
            } else if known(&name, &wanted) {
                // Of several with the same beginning the list's first is the usual one.
                3.0
            } else if known(&wanted, &name) {
                1.0 + likeness
            } else if guess && likeness > 0.8 {
                likeness
            } else {
                return None;
            };
            Some((rank, *listed))
        })
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, name)| name).collect()
}

/// A name without what is written now this way, now that: owner, capitals, separators, and the words that all of them have.
fn plain(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let letters: String = name.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '_' | '.')).collect();
    ["microsoft", "instruct", "gguf"].iter().fold(letters, |name, word| name.replace(word, ""))
}

#[cfg(test)]
mod tests {
    use crate::hub::resolve;

    fn refusal(name: &str) -> String {
        resolve(name, None, None, None).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_name_gets_the_nearest_ones() {
        for (given, meant) in [
            ("phi3", "phi-3-mini-4k"),
            ("phi-3", "phi-3-mini-4k"),
            ("Phi 3 mini", "phi-3-mini-4k"),
            ("phi-3-mini-4k-instruct", "phi-3-mini-4k"),
            ("phi-3-mini-128k-instruct", "phi-3-mini-4k"),
            ("phi3.5", "phi-3.5-mini"),
            ("phi-3.5", "phi-3.5-mini"),
            ("Phi-3.5-mini-instruct", "phi-3.5-mini"),
            ("phi4", "phi-4"),
            ("phi_4", "phi-4"),
            ("phi-4-reasoning", "phi-4"),
            ("phi4mini", "phi-4-mini"),
            ("Phi-4-mini-instruct", "phi-4-mini"),
            ("phi-4-mini-reasoning", "phi-4-mini"),
            ("microsoft_Phi-4-mini-instruct-GGUF", "phi-4-mini"),
            ("phi2", "phi-2"),
            ("pih-2", "phi-2"),
        ] {
            let error = refusal(given);
            assert!(error.contains(&format!("Did you mean `{meant}`")), "{given}: {error}");
            assert!(error.contains("Named models: phi-3-mini-4k, "), "{error}");
        }
        for (given, meant) in [
            ("microsoft/phi-4", "phi-4"),
            ("microsoft/Phi-4-mini-instruct", "phi-4-mini"),
            ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini-4k"),
        ] {
            let error = refusal(given);
            assert!(
                error.contains(&format!("Did you mean `{meant}`")) && error.contains("name of the file"),
                "{error}"
            );
        }
        for given in ["gpt2", "", "-", "any/repo", "owner/gguf", "microsoft/GRIN-MoE"] {
            assert!(!refusal(given).contains("Did you mean"), "{given}");
        }
    }
}
