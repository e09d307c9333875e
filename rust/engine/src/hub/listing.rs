//! Which of a repository's files has a quantization.

use std::path::Path;

use serde::Deserialize;

use super::layout::check_relative;
use crate::gguf::PartName;
use crate::{Error, Result};

/// More than these are not listed in a message.
const MOST_LISTED: usize = 12;

/// The part of the hub API's answer that is used here.
#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// The names of the GGUF files in an answer of the hub's API, `/api/models/OWNER/NAME/revision/REVISION`.
pub(super) fn parse(answer: &[u8], repo: &str) -> Result<Vec<String>> {
    let repository: Repository = serde_json::from_slice(answer).map_err(|error| {
        Error::download(format!(
            "the hub's list of the files in `{repo}` cannot be read: {error}; give the name of the file"
        ))
        .with_source(error)
    })?;
    let names = repository.siblings.into_iter().map(|sibling| sibling.rfilename);
    Ok(names.filter(|name| is_model(name) && check_relative("file name", name).is_ok()).collect())
}

/// The one file of `quantization` among `names`; of a split one, its first part. `place` is where the names are from.
pub(super) fn pick(names: &[String], quantization: &str, repo: &str, place: &str) -> Result<String> {
    let mut models: Vec<String> = names
        .iter()
        .filter(|name| is_model(name))
        .map(|name| PartName::parse(name).map_or_else(|| name.clone(), |part| part.with_number(1)))
        .collect();
    models.sort_unstable();
    models.dedup();
    // The full name first: some repositories name Q4_K_M just Q4_K.
    let tags = std::iter::once(quantization).chain(alias(quantization));
    for tag in tags {
        let matching: Vec<_> = models.iter().filter(|name| has_quantization(name, tag)).collect();
        match matching.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            several => {
                return Err(Error::invalid_input(format!(
                    "several files of `{repo}` have the quantization {quantization}: {}; give the name of one of them",
                    listed(several.iter().map(|name| name.as_str()))
                )));
            }
        }
    }
    if models.is_empty() {
        return Err(Error::download(format!("{place} has no GGUF file of `{repo}`")));
    }
    Err(Error::invalid_input(format!(
        "no file of `{repo}` has the quantization {quantization}; {place} has {}",
        listed(models.iter().map(String::as_str))
    )))
}

/// The other name of a quantization: some tools name the medium mixture without its suffix.
fn alias(quantization: &str) -> Option<&'static str> {
    [("Q3_K_M", "Q3_K"), ("Q4_K_M", "Q4_K"), ("Q5_K_M", "Q5_K"), ("F16", "FP16")]
        .into_iter()
        .find_map(|(name, other)| name.eq_ignore_ascii_case(quantization).then_some(other))
}

/// Whether a file is a model, and not the projector for images that goes with one.
fn is_model(name: &str) -> bool {
    let file = Path::new(name);
    file.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"))
        && !file_name(name).to_ascii_lowercase().starts_with("mmproj")
}

/// Whether a file's name ends in a quantization, as `model-Q4_K_M.gguf` and `model.Q4_K_M-00001-of-00002.gguf` do.
fn has_quantization(name: &str, quantization: &str) -> bool {
    let name = file_name(name);
    let stem = match name.rsplit_once('.') {
        Some((stem, _suffix)) => stem,
        None => name,
    };
    // The numbers of a part: `-00001-of-00002`.
    let stem = match PartName::parse(name) {
        Some(_) => stem.rsplitn(4, '-').last().unwrap_or(stem),
        None => stem,
    };
    let Some((before, end)) =
        stem.len().checked_sub(quantization.len()).and_then(|start| stem.split_at_checked(start))
    else {
        return false;
    };
    // K_M alone is not a quantization.
    let is_whole = match before.strip_suffix('_') {
        Some(name) => !begins_quantization(name.rsplit(['-', '.', '_']).next().unwrap_or_default()),
        None => before.is_empty() || before.ends_with(['-', '.']),
    };
    end.eq_ignore_ascii_case(quantization) && is_whole && is_quantization(quantization)
}

/// Whether a text can be a whole quantization: its first part has letters and a digit, as in Q4_K_M, IQ4_XS, F16,
/// MXFP4 and UD-Q4_K_XL. A fragment such as M, K_M or 4_4 has not.
fn is_quantization(text: &str) -> bool {
    let text = match text.split_at_checked(3) {
        Some((dynamic, rest)) if dynamic.eq_ignore_ascii_case("UD-") => rest,
        _ => text,
    };
    let first = text.split(['_', '-']).next().unwrap_or_default();
    first.starts_with(|c: char| c.is_ascii_alphabetic()) && first.contains(|c: char| c.is_ascii_digit())
}

/// Whether a word is the first part of a quantization: Q4, IQ4, TQ1.
fn begins_quantization(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = word.strip_suffix(digits).unwrap_or_default();
    letters.to_ascii_uppercase().ends_with('Q') && digits.len() == 1
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let shown: Vec<_> = names.take(MOST_LISTED).map(|name| name.escape_default().to_string()).collect();
    let more = if count > MOST_LISTED { format!(" and {} more", count - MOST_LISTED) } else { String::new() };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn picked(names: &[&str], quantization: &str) -> Result<String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        pick(&names, quantization, "any/repo", "the repository")
    }

    #[test]
    fn the_file_of_a_quantization_is_found_by_the_end_of_its_name() {
        let names = [
            "README.md",
            "mmproj-model-Q4_K_M.gguf",
            "model-Q4_K_M.gguf",
            "model-Q4_K_S.gguf",
            "model.IQ4_XS.gguf",
            "Q8_0/model_Q8_0-00002-of-00002.gguf",
            "Q8_0/model_Q8_0-00001-of-00002.gguf",
            "model-fp16.gguf",
            "xQ5_0.gguf",
            "Q6_K.gguf",
        ];
        for (quantization, file) in [
            ("q4_k_m", "model-Q4_K_M.gguf"),
            ("IQ4_XS", "model.IQ4_XS.gguf"),
            ("Q8_0", "Q8_0/model_Q8_0-00001-of-00002.gguf"),
            ("F16", "model-fp16.gguf"),
            ("Q6_K", "Q6_K.gguf"),
        ] {
            assert_eq!(picked(&names, quantization).unwrap(), file);
        }
        for quantization in ["Q4_K", "Q5_0", "K_M", "Q4_K_M_and_much_more_than_any_of_the_names_is_long"] {
            let error = picked(&names, quantization).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOption);
            assert!(error.to_string().contains("model-Q4_K_S.gguf"), "{error}");
        }
    }

    #[test]
    fn a_fragment_is_not_a_quantization() {
        let names = [
            "model-M.gguf",
            "model.4_4.gguf",
            "x-UD-Q4_K_XL.gguf",
            "x-MXFP4.gguf",
            "x-MXFP4_MOE.gguf",
            "x-TQ1_0.gguf",
        ];
        for (quantization, file) in [
            ("UD-Q4_K_XL", "x-UD-Q4_K_XL.gguf"),
            ("ud-q4_k_xl", "x-UD-Q4_K_XL.gguf"),
            ("MXFP4", "x-MXFP4.gguf"),
            ("MXFP4_MOE", "x-MXFP4_MOE.gguf"),
            ("TQ1_0", "x-TQ1_0.gguf"),
        ] {
            assert_eq!(picked(&names, quantization).unwrap(), file);
        }
        for fragment in ["M", "4_4", "MOE", "XL", "UD-"] {
            assert_eq!(picked(&names, fragment).unwrap_err().kind(), ErrorKind::InvalidOption, "{fragment}");
        }
    }

    #[test]
    fn a_plain_name_stands_for_the_middle_mixture_unless_that_is_there() {
        assert_eq!(picked(&["x-Q4_K.gguf", "x-Q4_K_S.gguf"], "Q4_K_M").unwrap(), "x-Q4_K.gguf");
        assert_eq!(picked(&["x-Q4_K.gguf", "x-Q4_K_M.gguf"], "Q4_K_M").unwrap(), "x-Q4_K_M.gguf");
    }

    #[test]
    fn several_candidates_and_none_are_listed() {
        let error = picked(&["a/x-Q4_K_M.gguf", "b/x-UD-Q4_K_M.gguf", "x-Q8_0.gguf"], "Q4_K_M").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
        assert!(error.to_string().contains("a/x-Q4_K_M.gguf, b/x-UD-Q4_K_M.gguf;"), "{error}");
        assert_eq!(picked(&["model.safetensors"], "Q4_K_M").unwrap_err().kind(), ErrorKind::Download);
        let many: Vec<_> = (0..20).map(|number| format!("x{number:02}-Q8_0.gguf")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(picked(&many, "Q4_K_M").unwrap_err().to_string().ends_with(" and 8 more"));
    }

    #[test]
    fn an_answer_of_the_api() {
        let names = parse(
            br#"{"sha": "c", "siblings": [{"rfilename": "a.gguf", "size": null}, {"rfilename": "README.md"},
                {"rfilename": "../b.gguf"}]}"#,
            "any/repo",
        );
        assert_eq!(names.unwrap(), ["a.gguf"]);
        for page in [&b"<html>"[..], br#"{"siblings": [1]}"#] {
            assert_eq!(parse(page, "any/repo").unwrap_err().kind(), ErrorKind::Download);
        }
    }
}
