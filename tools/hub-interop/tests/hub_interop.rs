//! The cache is shared with hf-hub, and what keeps hf-hub 1.0 out of the download itself.
//!
//! The second half fails when hf-hub learns what it lacks: the day to hand the download over to it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

#[path = "../../../rust/engine/tests/hub_server/mod.rs"]
mod hub_server;

use std::path::Path;

use candle_phi_engine::CancelToken;
use candle_phi_engine::hub::{HubOptions, ModelRequest, cached_models, download};
use hf_hub::{HFClient, HFClientSync};
use hub_server::{FakeHub, Fault, HubFile, Storage};

const NAME: &str = "x-Q4_K_M.gguf";

fn client(hub: &FakeHub, cache: &Path) -> HFClientSync {
    let builder = HFClient::builder().endpoint(hub.endpoint()).token("hf_test").cache_dir(cache);
    builder.retry_max_attempts(0).build_sync().unwrap()
}

fn fetch_with_hf_hub(hub: &FakeHub, cache: &Path) -> hf_hub::HFResult<std::path::PathBuf> {
    client(hub, cache).model("owner", "repo").download_file().filename(NAME).send()
}

fn fetch(hub: &FakeHub, cache: &Path, offline: bool) -> candle_phi_engine::Result<std::path::PathBuf> {
    let request = ModelRequest {
        repo: "owner/repo".to_owned(),
        file: Some(NAME.to_owned()),
        quantization: None,
        revision: "main".to_owned(),
        tokenizer_repo: None,
    };
    let options = HubOptions {
        cache_dir: Some(cache.to_owned()),
        endpoint: Some(hub.endpoint()),
        token: Some(String::new()),
        local_files_only: offline,
        ..HubOptions::default()
    };
    download(&request, &options, &mut |_| {}, &CancelToken::new()).map(|model| model.model_path)
}

#[test]
fn each_finds_what_the_other_fetched() {
    let file = HubFile::new(NAME, b"the model");
    let hub = FakeHub::start([file]);

    let cache = tempfile::tempdir().unwrap();
    let ours = fetch(&hub, cache.path(), false).unwrap();
    let repo = client(&hub, cache.path()).model("owner", "repo");
    assert_eq!(repo.download_file().filename(NAME).local_files_only(true).send().unwrap(), ours);

    let cache = tempfile::tempdir().unwrap();
    let theirs = fetch_with_hf_hub(&hub, cache.path()).unwrap();
    assert_eq!(fetch(&hub, cache.path(), true).unwrap(), theirs);
    assert_eq!(cached_models(Some(cache.path())).unwrap()[0].path, theirs);
}

#[test]
fn hf_hub_does_not_resume() {
    let hub = FakeHub::start([HubFile::new(NAME, b"the model, all of it")]);
    let cache = tempfile::tempdir().unwrap();
    hub.body_faults([Fault::Cut(9)]);
    fetch_with_hf_hub(&hub, cache.path()).unwrap_err();
    fetch_with_hf_hub(&hub, cache.path()).unwrap();
    assert_eq!(hub.bodies(), [None, None], "two requests, neither for a range");
}

#[test]
fn hf_hub_stores_an_error_page_and_half_a_body_as_the_model() {
    const PAGE: Fault = Fault::Answer(403, &[], "<Error>Request has expired</Error>");
    for fault in [PAGE, Fault::EndsEarly(5)] {
        let hub = FakeHub::start([HubFile::new(NAME, b"the model, all of it")]);
        let cache = tempfile::tempdir().unwrap();
        hub.body_faults([fault]);
        let path = fetch_with_hf_hub(&hub, cache.path()).unwrap();
        let stored = std::fs::read(path).unwrap();
        assert!(stored == b"the m" || stored.starts_with(b"<Error>"), "{stored:?}");
    }
}

#[test]
fn hf_hub_cannot_describe_a_file_behind_a_redirect() {
    let large = HubFile::new(NAME, b"the model");
    let small = HubFile { storage: Storage::Hub, ..HubFile::new("config.json", b"{}") };
    let hub = FakeHub::start([large, small]);
    let cache = tempfile::tempdir().unwrap();
    let repo = client(&hub, cache.path()).model("owner", "repo");
    assert_eq!(repo.get_file_metadata().filepath("config.json").send().unwrap().file_size, 2);
    let error = repo.get_file_metadata().filepath(NAME).send().unwrap_err();
    assert!(error.to_string().contains("X-Repo-Commit"), "{error}");
}
