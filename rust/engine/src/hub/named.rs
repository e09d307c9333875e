//! The table of models: short names, repositories, and what their files are called.

use super::suggest::did_you_mean;
use crate::{Error, Result};

pub(super) const DEFAULT_REVISION: &str = "main";

/// A model with a short name, and where its GGUF files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel {
    /// The short name.
    pub name: &'static str,
    /// The repository of the GGUF files.
    pub repo: &'static str,
    /// Files known to be there; the first is the default.
    pub files: &'static [KnownFile],
    /// How the repository names its other files, with `{}` for the quantization. `None`: it has no such rule.
    pub pattern: Option<&'static str>,
    /// Quantizations that the repository publishes under that rule besides the usual ones.
    pub also: &'static [&'static str],
    /// The revision that is taken unless one is given.
    pub revision: &'static str,
    /// A repository with the model's `tokenizer.json`, where one is known.
    pub tokenizer_repo: Option<&'static str>,
    /// `general.architecture` of the files.
    pub architecture: &'static str,
    /// The model in a few words.
    pub description: &'static str,
}

/// A file of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// Its quantization, by the name that llama.cpp's tools give it.
    pub quantization: &'static str,
    /// Its name in the repository.
    pub name: &'static str,
    /// Its size in bytes, rounded to two digits or to 100 MB: a repository may replace a file by a slightly larger one.
    pub about_bytes: Option<u64>,
}

const fn file(quantization: &'static str, name: &'static str, about_gigabytes_by_ten: u64) -> KnownFile {
    KnownFile { quantization, name, about_bytes: Some(about_gigabytes_by_ten * 100_000_000) }
}

const fn file_of_unknown_size(quantization: &'static str, name: &'static str) -> KnownFile {
    KnownFile { quantization, name, about_bytes: None }
}

/// What bartowski's repositories publish besides the usual quantizations.
const BARTOWSKI: &[&str] = &["Q2_K_L", "Q3_K_XL", "IQ4_XS", "IQ4_NL", "Q4_K_L", "Q5_K_L", "Q6_K_L"];
/// The same, where there is no IQ4_NL.
const BARTOWSKI_OF_2024: &[&str] = &["Q2_K_L", "Q3_K_XL", "IQ4_XS", "Q4_K_L", "Q5_K_L", "Q6_K_L"];

const NAMED: &[NamedModel] = &[
    NamedModel {
        name: "phi-3-mini-4k",
        repo: "microsoft/Phi-3-mini-4k-instruct-gguf",
        files: &[
            file("Q4_K_M", "Phi-3-mini-4k-instruct-q4.gguf", 24),
            file("F16", "Phi-3-mini-4k-instruct-fp16.gguf", 76),
        ],
        pattern: None,
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: Some("microsoft/Phi-3-mini-4k-instruct"),
        architecture: "phi3",
        description: "Phi-3 mini instruct, 3.8 billion parameters, context 4096",
    },
    NamedModel {
        name: "phi-3.5-mini",
        repo: "bartowski/Phi-3.5-mini-instruct-GGUF",
        files: &[file("Q4_K_M", "Phi-3.5-mini-instruct-Q4_K_M.gguf", 24)],
        pattern: Some("Phi-3.5-mini-instruct-{}.gguf"),
        also: BARTOWSKI_OF_2024,
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "phi-4",
        repo: "microsoft/phi-4-gguf",
        // The repository's Q4_K, Q5_K and its first upload, q4, are what llama.cpp calls Q4_K_M and Q5_K_M.
        files: &[
            file("Q4_K_M", "phi-4-q4.gguf", 91),
            file("IQ4_XS", "phi-4-IQ4_XS.gguf", 80),
            file("IQ4_NL", "phi-4-IQ4_NL.gguf", 84),
            file("Q5_K_M", "phi-4-Q5_K.gguf", 106),
            file("Q6_K", "phi-4-Q6_K.gguf", 120),
            file("Q8_0", "phi-4-Q8_0.gguf", 156),
        ],
        pattern: None,
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "phi-4-mini",
        repo: "bartowski/microsoft_Phi-4-mini-instruct-GGUF",
        files: &[file("Q4_K_M", "microsoft_Phi-4-mini-instruct-Q4_K_M.gguf", 25)],
        pattern: Some("microsoft_Phi-4-mini-instruct-{}.gguf"),
        also: BARTOWSKI,
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "phi-2",
        repo: "TheBloke/phi-2-GGUF",
        files: &[file("Q4_K_M", "phi-2.Q4_K_M.gguf", 18)],
        pattern: Some("phi-2.{}.gguf"),
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi2",
        description: "Phi-2, 2.7 billion parameters, context 2048, a base model without a chat format",
    },
];

/// Other repositories of the family whose files are known: with them a file name may be left out.
const REPOSITORIES: &[NamedModel] = &[
    NamedModel {
        name: "bartowski/phi-4-GGUF",
        repo: "bartowski/phi-4-GGUF",
        files: &[file("Q4_K_M", "phi-4-Q4_K_M.gguf", 91)],
        pattern: Some("phi-4-{}.gguf"),
        also: BARTOWSKI,
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "unsloth/phi-4-GGUF",
        repo: "unsloth/phi-4-GGUF",
        files: &[
            file_of_unknown_size("Q4_K_M", "phi-4-Q4_K_M.gguf"),
            file_of_unknown_size("Q8_0", "phi-4-Q8_0.gguf"),
        ],
        pattern: Some("phi-4-{}.gguf"),
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        // Converted from a checkpoint of Llama's layout.
        architecture: "llama",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "unsloth/Phi-4-mini-instruct-GGUF",
        repo: "unsloth/Phi-4-mini-instruct-GGUF",
        files: &[
            file("Q4_K_M", "Phi-4-mini-instruct-Q4_K_M.gguf", 25),
            file("Q2_K", "Phi-4-mini-instruct-Q2_K.gguf", 17),
            file("Q3_K_M", "Phi-4-mini-instruct-Q3_K_M.gguf", 21),
            file("Q5_K_M", "Phi-4-mini-instruct-Q5_K_M.gguf", 28),
            file("Q6_K", "Phi-4-mini-instruct-Q6_K.gguf", 32),
            file("Q8_0", "Phi-4-mini-instruct.Q8_0.gguf", 41),
        ],
        pattern: None,
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "QuantFactory/Phi-3.5-mini-instruct-GGUF",
        repo: "QuantFactory/Phi-3.5-mini-instruct-GGUF",
        files: &[
            file_of_unknown_size("Q4_K_M", "Phi-3.5-mini-instruct.Q4_K_M.gguf"),
            file_of_unknown_size("Q5_K_M", "Phi-3.5-mini-instruct.Q5_K_M.gguf"),
            file_of_unknown_size("Q8_0", "Phi-3.5-mini-instruct.Q8_0.gguf"),
        ],
        pattern: Some("Phi-3.5-mini-instruct.{}.gguf"),
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "lmstudio-community/Phi-3.5-mini-instruct-GGUF",
        repo: "lmstudio-community/Phi-3.5-mini-instruct-GGUF",
        files: &[file_of_unknown_size("Q8_0", "Phi-3.5-mini-instruct-Q8_0.gguf")],
        pattern: Some("Phi-3.5-mini-instruct-{}.gguf"),
        also: &[],
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
];

/// The usual quantizations: those that llama.cpp's tools name in file names and this engine reads.
const QUANTIZATIONS: &[&str] = &[
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M",
    "Q6_K", "Q8_0",
];

/// The models that have a short name.
#[must_use]
pub fn named_models() -> &'static [NamedModel] {
    NAMED
}

/// The model of that short name, however it is capitalised.
#[must_use]
pub fn find_named(name: &str) -> Option<&'static NamedModel> {
    NAMED.iter().find(|model| model.name.eq_ignore_ascii_case(name.trim()))
}

/// The entry of a short name or of a repository, however it is capitalised.
pub(super) fn find(name_or_repo: &str) -> Option<&'static NamedModel> {
    let is_its_repo = |model: &&NamedModel| model.repo.eq_ignore_ascii_case(name_or_repo);
    find_named(name_or_repo).or_else(|| NAMED.iter().chain(REPOSITORIES).find(is_its_repo))
}

/// The repositories whose `tokenizer.json` is fetched with a model of `repo`.
pub(super) fn tokenizer_repos(repo: &str) -> impl Iterator<Item = &'static str> {
    NAMED
        .iter()
        .chain(REPOSITORIES)
        .filter(move |model| model.repo == repo)
        .filter_map(|model| model.tokenizer_repo)
}

impl NamedModel {
    /// The quantizations that the model can be had in: those of its known files first.
    pub fn quantizations(&self) -> impl Iterator<Item = &'static str> {
        let known = self.files.iter().map(|file| file.quantization);
        let by_rule = self.by_rule().filter(|name| self.files.iter().all(|file| file.quantization != *name));
        known.chain(by_rule)
    }

    /// Those whose files are named by the rule, if the repository has one.
    fn by_rule(&self) -> impl Iterator<Item = &'static str> {
        let usual = if self.pattern.is_some() { QUANTIZATIONS } else { &[] };
        usual.iter().chain(self.also).copied()
    }

    /// The quantization that is meant, the default one if none is given, and the name of its file.
    pub(super) fn file(&self, quantization: Option<&str>) -> Result<(&'static str, String)> {
        let known = match quantization {
            None => self.files.first(),
            Some(wanted) => self.files.iter().find(|file| file.quantization.eq_ignore_ascii_case(wanted)),
        };
        if let Some(file) = known {
            return Ok((file.quantization, file.name.to_owned()));
        }
        let wanted = quantization.unwrap_or_default();
        if let (Some(pattern), Some(name)) =
            (self.pattern, self.by_rule().find(|name| name.eq_ignore_ascii_case(wanted)))
        {
            return Ok((name, pattern.replace("{}", name)));
        }
        let known: Vec<_> = match self.pattern {
            Some(_) => self.by_rule().collect(),
            None => self.quantizations().collect(),
        };
        Err(Error::invalid_input(format!(
            "`{}` has no quantization `{}` that this package knows and runs; known: {}. For any other file, give the \
             repository and the file's name",
            self.name,
            wanted.escape_default(),
            known.join(", ")
        ))
        .about("quantization"))
    }
}

/// The short names.
pub(super) fn names() -> Vec<&'static str> {
    NAMED.iter().map(|model| model.name).collect()
}

/// The error for a name that is not in the table, with the nearest ones first.
pub(super) fn unknown(given: &str) -> Error {
    Error::invalid_input(format!(
        "there is no model named `{}`.{} Named models: {}. Any repository works as well: `owner/repo:Q4_K_M`, or \
         `owner/repo` and a file name.",
        given.escape_default(),
        did_you_mean(given, &names(), true),
        names().join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::resolve;

    #[test]
    fn every_entry_of_the_tables_is_consistent() {
        for model in NAMED.iter().chain(REPOSITORIES) {
            let request = resolve(model.name, None, None, None).unwrap();
            assert_eq!((request.repo.as_str(), request.revision.as_str()), (model.repo, "main"));
            assert_eq!(request.file.as_deref(), Some(model.files[0].name));
            for known in model.files {
                let found = resolve(model.name, None, Some(known.quantization), None).unwrap();
                assert_eq!(found.file.as_deref(), Some(known.name));
                if let Some(pattern) = model.pattern {
                    assert_eq!(
                        pattern.replace("{}", known.quantization),
                        known.name,
                        "the pattern is that of the known file"
                    );
                }
            }
            assert!(model.pattern.is_some() || model.also.is_empty());
            let mut all: Vec<_> = model.quantizations().collect();
            for quantization in &all {
                assert!(resolve(model.name, None, Some(quantization), None).is_ok(), "{quantization}");
            }
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "no quantization is listed twice");
        }
        assert!(NAMED.iter().all(|model| model.files[0].about_bytes.is_some()), "each default has a size");
    }

    #[test]
    fn quantizations_follow_a_repositorys_own_rule_or_are_refused() {
        let file = |name, quantization| resolve(name, None, Some(quantization), None).unwrap().file.unwrap();
        assert_eq!(file("phi-3.5-mini", "q5_k_m"), "Phi-3.5-mini-instruct-Q5_K_M.gguf");
        assert_eq!(file("phi-2", "Q8_0"), "phi-2.Q8_0.gguf");
        for (name, quantization, known) in [
            ("phi-3-mini-4k", "Q5_K_M", "Q4_K_M, F16"),
            ("phi-3.5-mini", "IQ1_S", "Q6_K"),
            ("phi-2", "IQ4_XS", "Q6_K"),
        ] {
            let error = resolve(name, None, Some(quantization), None).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidOption);
            assert!(error.to_string().contains(known), "{error}");
        }
    }

    #[test]
    fn published_quantizations_beyond_the_usual_ones_are_known() {
        let file = |name, quantization| resolve(name, None, Some(quantization), None).unwrap().file.unwrap();
        assert_eq!(file("phi-4", "Q4_K_M"), "phi-4-q4.gguf");
        assert_eq!(file("phi-4", "iq4_xs"), "phi-4-IQ4_XS.gguf");
        assert_eq!(file("phi-4-mini", "IQ4_NL"), "microsoft_Phi-4-mini-instruct-IQ4_NL.gguf");
        assert_eq!(file("phi-4-mini", "q4_k_l"), "microsoft_Phi-4-mini-instruct-Q4_K_L.gguf");
        assert_eq!(file("phi-3.5-mini", "IQ4_XS"), "Phi-3.5-mini-instruct-IQ4_XS.gguf");
        assert_eq!(file("unsloth/Phi-4-mini-instruct-GGUF", "Q8_0"), "Phi-4-mini-instruct.Q8_0.gguf");
    }
}
