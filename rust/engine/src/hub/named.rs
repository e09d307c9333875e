//! What a person may call a model, and the repository and file that it means.

use super::layout::{check_relative, check_repo};
use super::suggest::did_you_mean;
use crate::{Error, Result};

const DEFAULT_REVISION: &str = "main";

/// A model with a short name, and where its GGUF files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedModel {
    /// The short name.
    pub name: &'static str,
    /// The repository of the GGUF files.
    pub repo: &'static str,
    /// Files known to be there, as (quantization, file name); the first is the default.
    pub files: &'static [(&'static str, &'static str)],
    /// How the repository names its other files, with `{}` for the quantization. `None`: it has no such rule.
    pub pattern: Option<&'static str>,
    /// The revision that is taken unless one is given.
    pub revision: &'static str,
    /// A repository with the model's `tokenizer.json`, where one is known.
    pub tokenizer_repo: Option<&'static str>,
    /// `general.architecture` of the files.
    pub architecture: &'static str,
    /// The model in a few words.
    pub description: &'static str,
}

const NAMED: &[NamedModel] = &[
    NamedModel {
        name: "phi-3-mini-4k",
        repo: "microsoft/Phi-3-mini-4k-instruct-gguf",
        files: &[("Q4_K_M", "Phi-3-mini-4k-instruct-q4.gguf"), ("F16", "Phi-3-mini-4k-instruct-fp16.gguf")],
        pattern: None,
        revision: DEFAULT_REVISION,
        tokenizer_repo: Some("microsoft/Phi-3-mini-4k-instruct"),
        architecture: "phi3",
        description: "Phi-3 mini instruct, 3.8 billion parameters, context 4096",
    },
    NamedModel {
        name: "phi-3.5-mini",
        repo: "bartowski/Phi-3.5-mini-instruct-GGUF",
        files: &[("Q4_K_M", "Phi-3.5-mini-instruct-Q4_K_M.gguf")],
        pattern: Some("Phi-3.5-mini-instruct-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "phi-4",
        repo: "microsoft/phi-4-gguf",
        files: &[("Q4", "phi-4-q4.gguf")],
        pattern: None,
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "phi-4-mini",
        repo: "bartowski/microsoft_Phi-4-mini-instruct-GGUF",
        files: &[("Q4_K_M", "microsoft_Phi-4-mini-instruct-Q4_K_M.gguf")],
        pattern: Some("microsoft_Phi-4-mini-instruct-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "phi-2",
        repo: "TheBloke/phi-2-GGUF",
        files: &[("Q4_K_M", "phi-2.Q4_K_M.gguf")],
        pattern: Some("phi-2.{}.gguf"),
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
        files: &[("Q4_K_M", "phi-4-Q4_K_M.gguf")],
        pattern: Some("phi-4-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "unsloth/phi-4-GGUF",
        repo: "unsloth/phi-4-GGUF",
        files: &[("Q4_K_M", "phi-4-Q4_K_M.gguf"), ("Q8_0", "phi-4-Q8_0.gguf")],
        pattern: Some("phi-4-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        // Converted from a checkpoint of Llama's layout.
        architecture: "llama",
        description: "Phi-4, 14 billion parameters, context 16384",
    },
    NamedModel {
        name: "unsloth/Phi-4-mini-instruct-GGUF",
        repo: "unsloth/Phi-4-mini-instruct-GGUF",
        files: &[("Q4_K_M", "Phi-4-mini-instruct-Q4_K_M.gguf")],
        pattern: Some("Phi-4-mini-instruct-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-4 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "QuantFactory/Phi-3.5-mini-instruct-GGUF",
        repo: "QuantFactory/Phi-3.5-mini-instruct-GGUF",
        files: &[
            ("Q4_K_M", "Phi-3.5-mini-instruct.Q4_K_M.gguf"),
            ("Q5_K_M", "Phi-3.5-mini-instruct.Q5_K_M.gguf"),
            ("Q8_0", "Phi-3.5-mini-instruct.Q8_0.gguf"),
        ],
        pattern: Some("Phi-3.5-mini-instruct.{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
    NamedModel {
        name: "lmstudio-community/Phi-3.5-mini-instruct-GGUF",
        repo: "lmstudio-community/Phi-3.5-mini-instruct-GGUF",
        files: &[("Q8_0", "Phi-3.5-mini-instruct-Q8_0.gguf")],
        pattern: Some("Phi-3.5-mini-instruct-{}.gguf"),
        revision: DEFAULT_REVISION,
        tokenizer_repo: None,
        architecture: "phi3",
        description: "Phi-3.5 mini instruct, 3.8 billion parameters, context 131072 (LongRoPE)",
    },
];

/// Quantizations that llama.cpp's tools name in file names and this engine reads.
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

/// The repositories whose `tokenizer.json` is fetched with a model of `repo`.
pub(super) fn tokenizer_repos(repo: &str) -> impl Iterator<Item = &'static str> {
    NAMED
        .iter()
        .chain(REPOSITORIES)
        .filter(move |model| model.repo == repo)
        .filter_map(|model| model.tokenizer_repo)
}

/// What to get: all of it decided, nothing of it fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// `owner/name`
    pub repo: String,
    /// The GGUF file's name in the repository.
    pub file: String,
    /// A branch, a tag or a commit hash.
    pub revision: String,
    /// A repository whose `tokenizer.json` goes with it.
    pub tokenizer_repo: Option<String>,
}

/// Turns a short name, or `owner/repo` with a file name, into a request.
///
/// `quantization` chooses among the files of a named model, such as `Q5_K_M`; `filename` names the file itself.
pub fn resolve(
    name_or_repo: &str,
    filename: Option<&str>,
    quantization: Option<&str>,
    revision: Option<&str>,
) -> Result<ModelRequest> {
    let given = name_or_repo.trim();
    let known = find_named(given)
        .or_else(|| NAMED.iter().chain(REPOSITORIES).find(|model| model.repo.eq_ignore_ascii_case(given)));
    let file = match (known, filename, quantization) {
        (_, Some(_), Some(_)) => {
            return Err(Error::invalid_input(
                "give a file name or a quantization, not both: a file name says which quantization it is",
            ));
        }
        (None, _, _) if !given.contains('/') => return Err(unknown(given)),
        (_, Some(file), None) => file.to_owned(),
        (Some(model), None, quantization) => model.file(quantization)?,
        (None, None, _) => {
            return Err(Error::invalid_input(format!(
                "give the name of the file in `{}` as well, such as `model-Q4_K_M.gguf`; only the files of the named \
                 models are known: {}.{}",
                given.escape_default(),
                names().join(", "),
                did_you_mean(given, &names(), false)
            )));
        }
    };
    let repo = known.map_or(given, |model| model.repo);
    let revision = revision.unwrap_or_else(|| known.map_or(DEFAULT_REVISION, |model| model.revision));
    check_repo(repo)?;
    check_relative("file name", &file)?;
    check_relative("revision", revision)?;
    Ok(ModelRequest {
        repo: repo.to_owned(),
        file,
        revision: revision.to_owned(),
        tokenizer_repo: known.and_then(|model| model.tokenizer_repo).map(str::to_owned),
    })
}

impl NamedModel {
    /// The file of a quantization, or the default one.
    fn file(&self, quantization: Option<&str>) -> Result<String> {
        let Some(wanted) = quantization else {
            return self.files.first().map(|(_, file)| (*file).to_owned()).ok_or_else(|| unknown(self.name));
        };
        if let Some((_, file)) = self.files.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)) {
            return Ok((*file).to_owned());
        }
        let listed = QUANTIZATIONS.iter().find(|name| name.eq_ignore_ascii_case(wanted));
        if let (Some(pattern), Some(quantization)) = (self.pattern, listed) {
            return Ok(pattern.replace("{}", quantization));
        }
        let known: Vec<&str> = match self.pattern {
            Some(_) => QUANTIZATIONS.to_vec(),
            None => self.files.iter().map(|(name, _)| *name).collect(),
        };
        Err(Error::invalid_input(format!(
            "`{}` has no quantization `{}` that this package knows and runs; known: {}. Any other file of any \
             repository can be named: `owner/repo` and a file name",
            self.name,
            wanted.escape_default(),
            known.join(", ")
        ))
        .about("quantization"))
    }
}

fn names() -> Vec<&'static str> {
    NAMED.iter().map(|model| model.name).collect()
}

/// The error for a name that is none, with the nearest ones first.
fn unknown(given: &str) -> Error {
    Error::invalid_input(format!(
        "there is no model named `{}`.{} Named models: {}. Any `owner/repo` with a file name works as well.",
        given.escape_default(),
        did_you_mean(given, &names(), true),
        names().join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn refusal(name: &str, filename: Option<&str>, quantization: Option<&str>, revision: Option<&str>) -> String {
        let error = resolve(name, filename, quantization, revision).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
        error.to_string()
    }

    #[test]
    fn every_entry_of_the_tables_is_consistent() {
        for model in NAMED.iter().chain(REPOSITORIES) {
            let request = resolve(model.name, None, None, None).unwrap();
            assert_eq!((request.repo.as_str(), request.revision.as_str()), (model.repo, "main"));
            assert_eq!(request.file, model.files[0].1);
            for (quantization, file) in model.files {
                let found = resolve(model.name, None, Some(quantization), None).unwrap();
                assert_eq!(found.file, *file);
                if let Some(pattern) = model.pattern {
                    assert_eq!(
                        pattern.replace("{}", quantization),
                        *file,
                        "the pattern is that of the known file"
                    );
                }
            }
        }
    }

    #[test]
    fn the_tutorials_model() {
        let request = resolve("Phi-3-Mini-4K", None, None, None).unwrap();
        assert_eq!(request.repo, "microsoft/Phi-3-mini-4k-instruct-gguf");
        assert_eq!(request.file, "Phi-3-mini-4k-instruct-q4.gguf");
        assert_eq!(request.tokenizer_repo.as_deref(), Some("microsoft/Phi-3-mini-4k-instruct"));
    }

    #[test]
    fn an_older_revision_of_a_named_model() {
        let old = "5eef2ce24766d31909c0b269fe90c817a8f263fb";
        let request = resolve("phi-3-mini-4k", None, None, Some(old)).unwrap();
        assert_eq!((request.file.as_str(), request.revision.as_str()), ("Phi-3-mini-4k-instruct-q4.gguf", old));
        assert_eq!(resolve("phi-2", None, None, None).unwrap().revision, "main");
    }

    #[test]
    fn quantizations_follow_a_repositorys_own_rule_or_are_refused() {
        let file = |name, quantization| resolve(name, None, Some(quantization), None).unwrap().file;
        assert_eq!(file("phi-3.5-mini", "q5_k_m"), "Phi-3.5-mini-instruct-Q5_K_M.gguf");
        assert_eq!(file("phi-2", "Q8_0"), "phi-2.Q8_0.gguf");
        let error = refusal("phi-3-mini-4k", None, Some("Q5_K_M"), None);
        assert!(error.contains("Q4_K_M, F16") && error.contains("owner/repo"), "{error}");
        assert!(refusal("phi-3.5-mini", None, Some("IQ4_XS"), None).contains("Q6_K"));
        assert!(refusal("phi-3.5-mini", Some("x.gguf"), Some("Q4_K_M"), None).contains("not both"));
    }

    #[test]
    fn any_repository_with_a_file_name() {
        let request = resolve("any/repo", Some("dir/x-Q5_K_M.gguf"), None, Some("refs/pr/1")).unwrap();
        assert_eq!(request.repo, "any/repo");
        assert_eq!((request.file.as_str(), request.revision.as_str()), ("dir/x-Q5_K_M.gguf", "refs/pr/1"));
        assert_eq!(request.tokenizer_repo, None);
        assert!(refusal("any/repo", None, None, None).contains("name of the file"));
        assert!(refusal("any/repo", None, Some("Q4_K_M"), None).contains("name of the file"));
        assert_eq!(resolve("BARTOWSKI/phi-4-gguf", None, None, None).unwrap().repo, "bartowski/phi-4-GGUF");
    }

    #[test]
    fn nothing_leads_out_of_the_cache() {
        for (repo, file, revision) in [
            ("../..", "x.gguf", "main"),
            ("a/../b", "x.gguf", "main"),
            ("a/b", "../../x.gguf", "main"),
            ("a/b", "/etc/x.gguf", "main"),
            ("a/b", "x\\..\\y.gguf", "main"),
            ("a/b", "x.gguf", "../main"),
            ("a/b", "x.gguf", ""),
            ("phi-2", "../x", "main"),
        ] {
            refusal(repo, Some(file), None, Some(revision));
        }
    }
}
