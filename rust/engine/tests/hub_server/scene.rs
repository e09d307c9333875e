//! What the tests of the hub share: a hub with one file, a cache of its own, and a client.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_phi_engine::hub::{DownloadedModel, HubOptions, ModelRequest, download};
use candle_phi_engine::{CancelToken, Error, ErrorKind, Result};
use tempfile::TempDir;

use super::{FakeHub, HubFile};

pub(crate) const COMMIT: &str = "cccccccccccccccccccccccccccccccccccccccc";
pub(crate) const NAME: &str = "x-Q4_K_M.gguf";

/// Bytes that differ from place to place, more than one packet of them.
pub(crate) fn bytes() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).take(1_000_003).collect()
}

/// A hub with a file, a cache of its own, and a client.
pub(crate) struct Scene {
    pub hub: FakeHub,
    pub file: HubFile,
    pub cache: TempDir,
    pub options: HubOptions,
    pub request: ModelRequest,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(HubFile::new(NAME, &bytes()))
    }

    pub(crate) fn with(file: HubFile) -> Self {
        let hub = FakeHub::start([file.clone()]);
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions {
            cache_dir: Some(cache.path().to_owned()),
            token: Some("hf_secret".to_owned()),
            endpoint: Some(hub.endpoint()),
            retry_delay: Some(Duration::from_millis(1)),
            ..HubOptions::default()
        };
        let request = ModelRequest {
            repo: file.repo.clone(),
            file: Some(file.name.clone()),
            quantization: None,
            revision: "main".to_owned(),
            tokenizer_repo: None,
        };
        Self { hub, file, cache, options, request }
    }

    pub(crate) fn download(&self) -> Result<PathBuf> {
        self.download_with(&mut |_, _| {}, &CancelToken::new()).map(|model| model.model_path)
    }

    /// The same, whichever file it comes to.
    pub(crate) fn download_any(&self) -> Result<PathBuf> {
        download(&self.request, &self.options, &mut |_| {}, &CancelToken::new()).map(|model| model.model_path)
    }

    pub(crate) fn download_with(
        &self,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
        cancel: &CancelToken,
    ) -> Result<DownloadedModel> {
        let name = self.request.file.clone().unwrap_or_else(|| self.file.name.clone());
        download(
            &self.request,
            &self.options,
            &mut |now| {
                assert_eq!(now.file, name);
                progress(now.bytes_done, now.bytes_total);
            },
            cancel,
        )
    }

    /// A failed download, which leaves no file under its name.
    pub(crate) fn refused(&self) -> Error {
        let error = self.download().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Download, "{error}");
        assert!(!self.blob().exists() && !self.snapshot().exists(), "half a file was left: {error}");
        error
    }

    pub(crate) fn repo_dir(&self) -> PathBuf {
        self.cache.path().join("models--owner--repo")
    }

    pub(crate) fn blob(&self) -> PathBuf {
        self.repo_dir().join("blobs").join(&self.file.etag)
    }

    pub(crate) fn incomplete(&self) -> PathBuf {
        self.repo_dir().join("blobs").join(format!("{}.incomplete", self.file.etag))
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.repo_dir().join("snapshots").join(&self.file.commit).join(&self.file.name)
    }

    pub(crate) fn assert_whole(&self, path: &Path) {
        assert_eq!(path, self.snapshot());
        assert!(std::fs::read(path).unwrap() == *self.file.body, "the file differs");
        assert!(!self.incomplete().exists(), "the incomplete file was left");
    }
}

pub(crate) fn assert_mentions(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(!text.contains("hf_secret") && !text.contains('\n'), "{text}");
}

/// An address that refuses connections: a port that was free a moment ago.
pub(crate) fn refusing_endpoint() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}
