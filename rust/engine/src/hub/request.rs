//! What is to be fetched: a short name or a repository, with a file, a quantization or neither, becomes a request.

use super::layout::{check_relative, check_repo};
use super::named::{DEFAULT_REVISION, find, names, unknown};
use super::redact::redacted;
use super::suggest::did_you_mean;
use crate::{Error, Result};

/// What to get: all of it decided, nothing of it fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRequest {
    /// `owner/name`
    pub repo: String,
    /// The GGUF file's name in the repository. `None`: the repository is asked for the file of the quantization.
    pub file: Option<String>,
    /// The quantization that is wanted, unless the file was named. If the repository does not have `file`, its file
    /// of this quantization is taken.
    pub quantization: Option<String>,
    /// A branch, a tag or a commit hash.
    pub revision: String,
    /// A repository whose `tokenizer.json` goes with it.
    pub tokenizer_repo: Option<String>,
}

/// Turns a short name, or `owner/repo`, into a request. Either may end in a quantization: `owner/repo:Q4_K_M`.
///
/// `quantization` is another way to give it; `filename` names the file itself. Nothing is asked of the hub here.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) if there is no such name, if neither a file nor a quantization
/// says which file of an unknown repository is meant, or if two of them do.
pub fn resolve(
    name_or_repo: &str,
    filename: Option<&str>,
    quantization: Option<&str>,
    revision: Option<&str>,
) -> Result<ModelRequest> {
    let given = name_or_repo.trim();
    refuse_address(given)?;
    let (name, tag) = match given.rsplit_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (given, None),
    };
    let quantization = match (tag, quantization) {
        (Some(tag), Some(quantization)) if !tag.eq_ignore_ascii_case(quantization) => {
            return Err(Error::invalid_option(
                "quantization",
                format_args!(
                    "must be given once, got `{}` in the name and `{}`",
                    tag.escape_default(),
                    quantization.escape_default()
                ),
            ));
        }
        (tag, quantization) => tag.or(quantization),
    };
    if filename.is_some() && quantization.is_some() {
        return Err(Error::invalid_input(
            "give a file name or a quantization, not both: a file name says which quantization it is",
        ));
    }
    let known = find(name);
    let (file, quantization) = match (known, filename, quantization) {
        (None, ..) if !name.contains('/') => return Err(unknown(name).about("name_or_repo")),
        (_, Some(file), _) => (Some(file.to_owned()), None),
        (Some(model), None, quantization) => {
            let (quantization, file) = model.file(quantization)?;
            (Some(file), Some(quantization.to_owned()))
        }
        (None, None, Some(quantization)) => {
            check_quantization(quantization)?;
            (None, Some(quantization.to_owned()))
        }
        (None, None, None) => {
            let name = name.escape_default();
            return Err(Error::invalid_input(format!(
                "give the quantization (`{name}:Q4_K_M`) or the name of the file in `{name}` as well, such as \
                 `model-Q4_K_M.gguf`; only the files of the named models are known: {}.{}",
                names().join(", "),
                did_you_mean(given, &names(), false)
            ))
            .about("name_or_repo"));
        }
    };
    let repo = known.map_or(name, |model| model.repo);
    let revision = revision.unwrap_or_else(|| known.map_or(DEFAULT_REVISION, |model| model.revision));
    check_repo(repo).map_err(|error| error.about("name_or_repo"))?;
    if let Some(file) = &file {
        check_relative("file name", file).map_err(|error| error.about("filename"))?;
    }
    check_relative("revision", revision).map_err(|error| error.about("revision"))?;
    Ok(ModelRequest {
        repo: repo.to_owned(),
        file,
        quantization,
        revision: revision.to_owned(),
        tokenizer_repo: known.and_then(|model| model.tokenizer_repo).map(str::to_owned),
    })
}

fn check_quantization(quantization: &str) -> Result<()> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !quantization.is_empty() && quantization.len() <= 32 && quantization.chars().all(is_name) {
        return Ok(());
    }
    Err(Error::invalid_option(
        "quantization",
        format_args!("must be a name such as Q4_K_M, got `{}`", quantization.escape_default()),
    ))
}

/// The error for an address on the hub: it has the repository, and often the file, in it.
fn refuse_address(given: &str) -> Result<()> {
    let path = match given.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_host, path)| path),
        None => match given.strip_prefix("hf.co/").or_else(|| given.strip_prefix("huggingface.co/")) {
            Some(path) => path,
            None => return Ok(()),
        },
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let instead = match parts.as_slice() {
        [owner, name, "resolve" | "blob", _revision, file @ ..] if !file.is_empty() => {
            format!("the repository `{owner}/{name}` and the file name `{}`", file.join("/"))
        }
        [owner, name, ..] => format!("the repository, `{owner}/{name}`"),
        _ => "the repository, `owner/repo`, or a short name".to_owned(),
    };
    Err(Error::invalid_input(format!(
        "`{}` is an address, not a name: give {}",
        redacted(given).escape_default(),
        instead.escape_default()
    ))
    .about("name_or_repo"))
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
    fn the_tutorials_model() {
        let request = resolve("Phi-3-Mini-4K", None, None, None).unwrap();
        assert_eq!(request.repo, "microsoft/Phi-3-mini-4k-instruct-gguf");
        assert_eq!(request.file.as_deref(), Some("Phi-3-mini-4k-instruct-q4.gguf"));
        assert_eq!(request.tokenizer_repo.as_deref(), Some("microsoft/Phi-3-mini-4k-instruct"));
    }

    #[test]
    fn an_older_revision_of_a_named_model() {
        let old = "5eef2ce24766d31909c0b269fe90c817a8f263fb";
        let request = resolve("phi-3-mini-4k", None, None, Some(old)).unwrap();
        assert_eq!(
            (request.file.as_deref(), request.revision.as_str()),
            (Some("Phi-3-mini-4k-instruct-q4.gguf"), old)
        );
        assert_eq!(resolve("phi-2", None, None, None).unwrap().revision, "main");
    }

    #[test]
    fn a_name_may_end_in_a_quantization() {
        for (name, file) in [
            ("phi-4-mini:q5_k_m", "microsoft_Phi-4-mini-instruct-Q5_K_M.gguf"),
            ("bartowski/phi-4-GGUF:Q4_K_M", "phi-4-Q4_K_M.gguf"),
        ] {
            let request = resolve(name, None, None, None).unwrap();
            assert_eq!(request.file.as_deref(), Some(file));
            // Twice the same is no contradiction.
            assert_eq!(resolve(name, None, request.quantization.as_deref(), None).unwrap(), request);
        }
        let request = resolve("any/repo:Q4_K_M", None, None, None).unwrap();
        assert_eq!((request.repo.as_str(), request.file), ("any/repo", None));
        assert_eq!(request.quantization.as_deref(), Some("Q4_K_M"));
        assert_eq!(resolve("any/repo", None, Some("Q4_K_M"), None).unwrap().quantization, request.quantization);

        refusal("phi-4-mini:Q4_K_M", None, Some("Q8_0"), None);
        refusal("any/repo:Q4_K_M", Some("x.gguf"), None, None);
        refusal("phi-4-mini:IQ1_S", None, None, None);
        for tag in ["", "../x", "a b", "Q4_K_M/"] {
            refusal(&format!("any/repo:{tag}"), None, None, None);
        }
    }

    #[test]
    fn an_address_is_answered_with_its_repository_and_file() {
        for (address, parts) in [
            ("https://huggingface.co/any/repo", &["`any/repo`"][..]),
            ("https://huggingface.co/any/repo/tree/main", &["`any/repo`"]),
            ("https://hf.co/any/repo/resolve/main/a/x.gguf?download=true", &["`any/repo`", "`a/x.gguf`"]),
            ("hf.co/any/repo:Q4_K_M", &["`any/repo:Q4_K_M`"]),
            ("https://example.org", &["`owner/repo`"]),
        ] {
            let error = refusal(address, None, None, None);
            assert_eq!(resolve(address, None, None, None).unwrap_err().option(), Some("name_or_repo"));
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn an_error_says_which_argument_is_wrong_and_shows_no_secret() {
        for (name, file, revision, option) in [
            ("phi-none", None, None, "name_or_repo"),
            ("a--b/c:Q4_K_M", None, None, "name_or_repo"),
            ("any/repo", None, None, "name_or_repo"),
            ("any/repo", Some("../x"), None, "filename"),
            ("any/repo", Some("x.gguf"), Some("../x"), "revision"),
            ("https://me:pw@hf.co/a/b?sign=pw", None, None, "name_or_repo"),
        ] {
            let error = resolve(name, file, None, revision).unwrap_err();
            assert_eq!(error.option(), Some(option), "{error}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn any_repository_with_a_file_name() {
        let request = resolve("any/repo", Some("dir/x-Q5_K_M.gguf"), None, Some("refs/pr/1")).unwrap();
        assert_eq!(request.repo, "any/repo");
        assert_eq!(request.file.as_deref(), Some("dir/x-Q5_K_M.gguf"));
        assert_eq!((request.quantization, request.revision.as_str()), (None, "refs/pr/1"));
        assert_eq!(request.tokenizer_repo, None);
        assert!(refusal("any/repo", None, None, None).contains("name of the file"));
        assert!(refusal("phi-3.5-mini", Some("x.gguf"), Some("Q4_K_M"), None).contains("not both"));
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
