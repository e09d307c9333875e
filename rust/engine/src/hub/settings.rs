//! What the options leave open, out of the environment: the same variables that `huggingface_hub` reads.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::HubOptions;
use super::redact::redacted;
use crate::file::read_small;
use crate::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_RETRY_DELAY: Duration = Duration::from_millis(500);

/// Looks a variable up: the process's environment, or a test's.
pub(super) type Lookup<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Everything decided, nothing left to the environment.
pub(super) struct Settings {
    pub(super) endpoint: Url,
    pub(super) cache_dir: PathBuf,
    pub(super) token: Option<String>,
    /// What forbids sockets, for the message.
    pub(super) offline: Option<&'static str>,
    pub(super) symlinks: bool,
    pub(super) timeout: Duration,
    pub(super) retry_delay: Duration,
}

impl Settings {
    pub(super) fn new(options: &HubOptions, lookup: &Lookup<'_>) -> Result<Self> {
        let environment = Environment { lookup };
        let offline = if options.local_files_only {
            Some("local_files_only")
        } else {
            ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().find(|name| environment.is_true(name))
        };
        let cache_dir = match &options.cache_dir {
            Some(directory) => directory.clone(),
            None => environment.cache_dir()?,
        };
        Ok(Self {
            endpoint: endpoint(options.endpoint.clone().or_else(|| environment.text("HF_ENDPOINT")))?,
            cache_dir,
            token: clean(options.token.clone().or_else(|| environment.token()))?,
            offline,
            symlinks: !options.disable_symlinks && !environment.is_true("HF_HUB_DISABLE_SYMLINKS"),
            timeout: options
                .timeout
                .or_else(|| environment.seconds("HF_HUB_DOWNLOAD_TIMEOUT"))
                .unwrap_or(DEFAULT_TIMEOUT),
            retry_delay: options.retry_delay.unwrap_or(DEFAULT_RETRY_DELAY),
        })
    }
}

/// The cache directory alone, for what only looks at the cache.
pub(super) fn cache_dir(given: Option<&Path>, lookup: &Lookup<'_>) -> Result<PathBuf> {
    given.map_or_else(|| Environment { lookup }.cache_dir(), |directory| Ok(directory.to_owned()))
}

fn endpoint(text: Option<String>) -> Result<Url> {
    let text = text.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    match Url::parse(text.trim_end_matches('/')) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => {
            // A password may stand before the host, also if the scheme is missing.
            let shown = redacted(&text);
            let shown = shown.rsplit_once('@').map_or(shown.as_str(), |(_, host)| host);
            let shown = shown.split(['?', '#']).next().unwrap_or_default();
            Err(Error::invalid_input(format!(
                "the hub's endpoint must be an http or https address such as {DEFAULT_ENDPOINT}, got {shown:?}; set \
                 endpoint or HF_ENDPOINT"
            )))
        }
    }
}

/// A token fit for a header; the message never shows it.
fn clean(token: Option<String>) -> Result<Option<String>> {
    let Some(token) = token else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid_input(
            "the hub's token must be one line of printable ASCII characters, such as hf_...; set token or HF_TOKEN",
        ));
    }
    Ok(Some(token.to_owned()))
}

struct Environment<'a> {
    lookup: &'a Lookup<'a>,
}

impl Environment<'_> {
    /// A variable that is set and not empty.
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.raw(name).and_then(|value| value.into_string().ok())
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.trim().to_ascii_lowercase().as_str()))
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        let seconds: f64 = self.text(name)?.trim().parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
    }

    fn home(&self) -> Option<PathBuf> {
        self.raw("HOME").or_else(|| self.raw("USERPROFILE")).map(PathBuf::from)
    }

    /// A path from a variable, with a leading `~` opened up.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.raw(name)?);
        match (path.strip_prefix("~"), self.home()) {
            (Ok(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(path),
        }
    }

    fn hf_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME")
            .or_else(|| self.path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| self.home().map(|home| home.join(".cache").join("huggingface")))
    }

    fn cache_dir(&self) -> Result<PathBuf> {
        self.path("HF_HUB_CACHE")
            .or_else(|| self.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| self.hf_home().map(|home| home.join("hub")))
            .ok_or_else(|| {
                Error::invalid_input(
                    "the Hugging Face cache needs a home directory, and none is known; set HF_HOME or cache_dir",
                )
            })
    }

    fn token(&self) -> Option<String> {
        if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        self.text("HF_TOKEN").or_else(|| self.text("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let path = self.path("HF_TOKEN_PATH").or_else(|| self.hf_home().map(|home| home.join("token")))?;
            read_small(&path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], options: &HubOptions) -> Result<Settings> {
        Settings::new(options, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn cache_directory_follows_the_variables_in_order() {
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
            ("HOME", "/e"),
            ("USERPROFILE", "/f"),
        ];
        let expected =
            ["/a", "/b", "/c/hub", "/d/huggingface/hub", "/e/.cache/huggingface/hub", "/f/.cache/huggingface/hub"];
        for (skipped, expected) in expected.into_iter().enumerate() {
            let found = settings(&all[skipped..], &HubOptions::default()).unwrap().cache_dir;
            assert_eq!(found, PathBuf::from(expected));
        }
        let given = HubOptions { cache_dir: Some("/given".into()), ..HubOptions::default() };
        assert_eq!(settings(&all, &given).unwrap().cache_dir, PathBuf::from("/given"));
        assert!(settings(&[], &HubOptions::default()).err().unwrap().to_string().contains("HF_HOME"));
    }

    #[test]
    fn an_empty_variable_is_none_and_a_tilde_is_the_home() {
        let found =
            settings(&[("HF_HOME", ""), ("HF_HUB_CACHE", "~/hub"), ("HOME", "/me")], &HubOptions::default());
        assert_eq!(found.unwrap().cache_dir, PathBuf::from("/me/hub"));
    }

    #[test]
    fn offline_by_variable_or_option() {
        for value in ["1", "true", "YES", "On"] {
            let found = settings(&[("HF_HUB_OFFLINE", value), ("HOME", "/")], &HubOptions::default()).unwrap();
            assert_eq!(found.offline, Some("HF_HUB_OFFLINE"), "{value}");
        }
        for value in ["0", "false", "off", ""] {
            let found = settings(&[("HF_HUB_OFFLINE", value), ("HOME", "/")], &HubOptions::default()).unwrap();
            assert_eq!(found.offline, None, "{value}");
        }
        let options = HubOptions { local_files_only: true, ..HubOptions::default() };
        assert_eq!(settings(&[("HOME", "/")], &options).unwrap().offline, Some("local_files_only"));
    }

    #[test]
    fn token_from_option_variable_or_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let none = HubOptions::default();
        let token = |variables: &[(&str, &str)], options| settings(variables, options).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)], &none).as_deref(), Some("hf_file"));
        assert_eq!(
            token(&[("HF_HOME", home), ("HF_TOKEN", "hf_variable")], &none).as_deref(),
            Some("hf_variable")
        );
        let given = HubOptions { token: Some("hf_given".into()), ..HubOptions::default() };
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "x")], &given).as_deref(), Some("hf_given"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], &none), None);
        let without = HubOptions { token: Some(String::new()), ..HubOptions::default() };
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", "x")], &without), None);
        assert!(!format!("{given:?}").contains("hf_given"));
    }

    #[test]
    fn a_bad_token_or_endpoint_is_refused_without_showing_the_token() {
        let options = HubOptions { token: Some("hf_se cret".into()), ..HubOptions::default() };
        let error = settings(&[("HOME", "/")], &options).err().unwrap().to_string();
        assert!(!error.contains("cret"), "{error}");
        for endpoint in ["me:pw@host", "ftp://me:pw@host/", "http://me:pw@", "host?token=pw", "http:/me:pw@host"] {
            let error = settings(&[("HOME", "/"), ("HF_ENDPOINT", endpoint)], &HubOptions::default())
                .err()
                .map(|e| e.to_string());
            assert!(!error.unwrap_or_default().contains("pw"), "{endpoint}");
        }
        for endpoint in ["huggingface.co", "ftp://x", "file:///etc", "http://"] {
            let error =
                settings(&[("HOME", "/"), ("HF_ENDPOINT", endpoint)], &HubOptions::default()).err().unwrap();
            assert!(error.to_string().contains(endpoint), "{error}");
        }
    }

    #[test]
    fn timeout_in_seconds() {
        let found =
            settings(&[("HOME", "/"), ("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")], &HubOptions::default()).unwrap();
        assert_eq!(found.timeout, Duration::from_millis(2500));
        let found = settings(&[("HOME", "/"), ("HF_HUB_DOWNLOAD_TIMEOUT", "-1")], &HubOptions::default()).unwrap();
        assert_eq!(found.timeout, DEFAULT_TIMEOUT);
    }
}
