//! `owner/repo:Q4_K_M`: the repository, or the cache, is asked for the file of a quantization.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

mod hub_server;

use candle_phi_engine::ErrorKind;
use candle_phi_engine::hub::resolve;
use hub_server::scene::{COMMIT, NAME, Scene, assert_mentions, refusing_endpoint};
use hub_server::{Fault, HubFile};

/// A repository with two quantizations, one of which is asked for.
fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.hub.replace([
        scene.file.clone(),
        HubFile::new("x-Q8_0.gguf", b"other"),
        HubFile::new("README.md", b"x"),
    ]);
    scene.request = resolve("owner/repo:q4_k_m", None, None, None).unwrap();
    scene
}

#[test]
fn the_file_is_found_in_the_repositorys_list() {
    let scene = scene();
    scene.assert_whole(&scene.download().unwrap());
    let asked = scene.hub.asked();
    assert_eq!(asked[0].path, "/api/models/owner/repo/revision/main");
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer hf_secret"));
}

#[test]
fn candidates_are_listed_if_none_or_several_match() {
    let mut scene = scene();
    scene.request.quantization = Some("Q6_K".to_owned());
    let error = scene.download().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    assert_mentions(&error, &["Q6_K", NAME, "x-Q8_0.gguf", "owner/repo"]);

    scene.hub.replace(["a-Q6_K.gguf", "b-Q6_K.gguf"].map(|name| HubFile::new(name, b"x")));
    let error = scene.download().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidOption);
    assert_mentions(&error, &["a-Q6_K.gguf", "b-Q6_K.gguf"]);

    scene.hub.replace([HubFile::new("README.md", b"x")]);
    assert_mentions(&scene.refused(), &["no GGUF file", "owner/repo"]);
}

#[test]
fn offline_the_cached_file_is_found_without_a_socket() {
    let mut scene = scene();
    scene.options.local_files_only = true;
    assert_mentions(&scene.refused(), &["owner/repo", "local_files_only"]);
    scene.options.local_files_only = false;
    scene.download().unwrap();
    let before = scene.hub.connections();
    scene.options.local_files_only = true;
    for revision in ["main", COMMIT] {
        scene.request.revision = revision.to_owned();
        scene.assert_whole(&scene.download().unwrap());
    }
    scene.request.revision = "other".to_owned();
    assert_eq!(scene.download().unwrap_err().kind(), ErrorKind::Download);
    scene.request.revision = "main".to_owned();
    scene.request.quantization = Some("Q8_0".to_owned());
    assert_mentions(&scene.download().unwrap_err(), &["Q8_0", NAME]);
    assert_eq!(scene.hub.connections(), before);
}

#[test]
fn a_hub_that_cannot_be_reached_leaves_the_cached_file() {
    let mut scene = scene();
    scene.options.endpoint = Some(refusing_endpoint());
    assert_mentions(&scene.refused(), &["could not reach"]);
    scene.options.endpoint = Some(scene.hub.endpoint());
    scene.download().unwrap();
    scene.options.endpoint = Some(refusing_endpoint());
    scene.assert_whole(&scene.download().unwrap());
    // A cached file of another quantization does not hide what is wrong with the hub.
    scene.request.quantization = Some("Q8_0".to_owned());
    let error = scene.download().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert_mentions(&error, &["could not reach"]);
}

#[test]
fn a_list_that_cannot_be_had_is_an_error() {
    let mut scene = scene();
    scene.request.revision = "nightly".to_owned();
    assert_mentions(&scene.refused(), &["no revision `nightly`", "owner/repo"]);
    scene.request.repo = "owner/other".to_owned();
    assert_mentions(&scene.refused(), &["no repository `owner/other`"]);
}

#[test]
fn a_known_file_that_was_renamed_is_found_by_its_quantization() {
    let mut scene = scene();
    scene.request.file = Some("old-name.gguf".to_owned());
    let found = scene.download_any().unwrap();
    scene.assert_whole(&found);

    // Without one of that quantization the error is about the file that was asked for.
    scene.request.quantization = Some("Q2_K".to_owned());
    assert_mentions(&scene.download_any().unwrap_err(), &["old-name.gguf"]);
    // A hub in trouble says nothing about what it has.
    scene.hub.asked();
    scene.hub.head_faults(std::iter::repeat_n(Fault::Answer(503, &[], ""), 5));
    scene.request.quantization = Some("Q4_K_M".to_owned());
    assert_mentions(&scene.download_any().unwrap_err(), &["503"]);
    assert!(scene.hub.asked().iter().all(|asked| asked.method == "HEAD"));
}
