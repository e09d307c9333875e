//! The hub's client against a hub on this machine: what is fetched, and what is said when it fails.
//!
//! Everything goes through `HubOptions`, so that the tests can run side by side.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

mod hub_server;

use std::path::Path;
use std::time::{Duration, Instant};

use candle_phi_engine::hub::{cached_models, download};
use candle_phi_engine::{CancelToken, ErrorKind};
use hub_server::scene::{COMMIT, NAME, Scene, assert_mentions, bytes};
use hub_server::{Fault, HubFile, Storage};

#[test]
fn a_download_fills_the_shared_cache() {
    let scene = Scene::new();
    let mut reports = Vec::new();
    let model = scene.download_with(&mut |done, total| reports.push((done, total)), &CancelToken::new()).unwrap();
    scene.assert_whole(&model.model_path);
    assert_eq!(model.tokenizer_path, None);
    assert_eq!(std::fs::read_to_string(scene.repo_dir().join("refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(scene.snapshot()).unwrap(),
        Path::new("../../blobs").join(&scene.file.etag),
        "the layout of huggingface_hub"
    );

    let size = Some(scene.file.size);
    assert_eq!(reports.first(), Some(&(0, size)));
    assert_eq!(reports.last(), Some(&(scene.file.size, size)));
    assert!(reports.is_sorted() && reports.iter().all(|(_, total)| *total == size));
}

#[test]
fn the_token_goes_to_the_hub_and_to_no_other_host() {
    let scene = Scene::new();
    scene.download().unwrap();
    let asked = scene.hub.asked();
    assert!(asked.iter().any(|asked| asked.hub) && asked.iter().any(|asked| !asked.hub));
    for asked in asked {
        assert_eq!(asked.authorization.as_deref(), asked.hub.then_some("Bearer hf_secret"), "{asked:?}");
    }
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::Cut(300_000), Fault::Cut(100_000)]);
    scene.assert_whole(&scene.download().unwrap());
    let [first, second, third] = &scene.hub.bodies()[..] else { panic!("three requests") };
    assert_eq!(first.as_deref(), None);
    // What a cut takes with it from the socket's buffers is not known; what arrived is not asked for again.
    let start = |range: &Option<String>| -> usize {
        range.as_ref().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    };
    assert!((1..=300_000).contains(&start(second)), "{second:?}");
    assert!((start(second) + 1..=start(second) + 100_000).contains(&start(third)), "{third:?}");
}

#[test]
fn a_body_that_ends_early_without_a_length_is_no_whole_file() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::EndsEarly(400_000)]);
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), [None, Some("bytes=400000-".to_owned())]);
}

#[test]
fn a_connection_that_keeps_breaking_is_given_up_and_the_next_run_resumes() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::EndsEarly(400_000), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)]);
    assert_mentions(&scene.refused(), &[NAME, "400.00 kB", "1.00 MB"]);
    assert_eq!(std::fs::metadata(scene.incomplete()).unwrap().len(), 400_000);
    scene.hub.asked();
    let mut first = None;
    let model = scene.download_with(&mut |done, _| _ = first.get_or_insert(done), &CancelToken::new()).unwrap();
    scene.assert_whole(&model.model_path);
    assert_eq!(first, Some(400_000), "progress counts what was there");
    assert_eq!(scene.hub.bodies(), [Some("bytes=400000-".to_owned())]);
}

#[test]
fn a_body_shorter_than_promised_is_refused() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::Shorter(10)]);
    scene.assert_whole(&scene.download().unwrap());

    let scene = Scene::new();
    scene.hub.body_faults(std::iter::repeat_n(Fault::Shorter(10), 5));
    assert_mentions(&scene.refused(), &[NAME, "10 ", "1000003"]);
}

#[test]
fn a_body_longer_than_promised_is_refused() {
    let scene = Scene::new();
    scene.hub.body_faults(std::iter::repeat_n(Fault::TooLong, 5));
    assert_mentions(&scene.refused(), &[NAME, "1000003"]);
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let file = HubFile { ranges: false, ..HubFile::new(NAME, &bytes()) };
    let scene = Scene::with(file.clone());
    scene.hub.body_faults([Fault::EndsEarly(400_000)]);
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), [None, Some("bytes=400000-".to_owned())]);
    // One that breaks at the same place each time makes no progress, and is given up.
    let scene = Scene::with(file);
    scene.hub.body_faults(std::iter::repeat_n(Fault::EndsEarly(400_000), 100));
    assert_mentions(&scene.refused(), &[NAME, "400.00 kB", "1.00 MB"]);
    assert_eq!(scene.hub.bodies().len(), 5);
}

#[test]
fn wrong_bytes_are_refused_and_thrown_away() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::WrongByte]);
    assert_mentions(&scene.refused(), &["SHA-256", &scene.file.etag]);
    assert!(!scene.incomplete().exists(), "a second run must not go on from wrong bytes");
    scene.assert_whole(&scene.download().unwrap());
}

#[test]
fn damage_in_what_an_earlier_run_left_is_found_and_mended() {
    for leftover in [vec![0; 1000], vec![0; 1_000_003], vec![0; 2_000_000]] {
        let scene = Scene::new();
        std::fs::create_dir_all(scene.repo_dir().join("blobs")).unwrap();
        std::fs::write(scene.incomplete(), leftover).unwrap();
        scene.assert_whole(&scene.download().unwrap());
    }
}

#[test]
fn a_page_instead_of_the_file_is_never_kept() {
    const PAGE: Fault = Fault::Answer(200, &[("Content-Type", "text/html")], "<html>Please log in</html>");
    const EXPIRED: Fault = Fault::Answer(403, &[], "<Error>Request has expired</Error>");
    for fault in [PAGE, EXPIRED] {
        let scene = Scene::new();
        scene.hub.body_faults([fault.clone()]);
        scene.assert_whole(&scene.download().unwrap());
        let scene = Scene::new();
        scene.hub.body_faults(std::iter::repeat_n(fault, 5));
        scene.refused();
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let scene = Scene::new();
    scene.hub.head_faults([Fault::Answer(500, &[], ""), Fault::Answer(429, &[("Retry-After", "0")], "")]);
    scene.hub.body_faults([Fault::Answer(503, &[], ""), Fault::Answer(504, &[], "")]);
    scene.assert_whole(&scene.download().unwrap());

    let scene = Scene::new();
    scene.hub.head_faults(std::iter::repeat_n(Fault::Answer(502, &[], ""), 5));
    assert_mentions(&scene.refused(), &["502", NAME]);
}

#[test]
fn a_stalled_server_is_left_within_the_timeout() {
    let mut scene = Scene::new();
    scene.options.timeout = Some(Duration::from_millis(200));
    scene.hub.body_faults([Fault::Stall(400_000)]);
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), [None, Some("bytes=400000-".to_owned())]);
}

#[test]
fn a_cancel_is_heard_while_the_server_stalls_and_the_next_run_resumes() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::Stall(400_000)]);
    let stalled = scene.hub.on_stall();
    let cancel = CancelToken::new();
    let (error, waited) = std::thread::scope(|threads| {
        let running =
            threads.spawn(|| (scene.download_with(&mut |_, _| {}, &cancel).unwrap_err(), Instant::now()));
        stalled.recv().unwrap();
        let asked = Instant::now();
        cancel.cancel();
        let (error, ended) = running.join().unwrap();
        (error, ended.saturating_duration_since(asked))
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(waited < Duration::from_millis(500), "{waited:?}");
    let there = std::fs::metadata(scene.incomplete()).unwrap().len();
    assert!(!scene.snapshot().exists() && there <= 400_000);
    scene.hub.asked();
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), [(there > 0).then(|| format!("bytes={there}-"))]);
}

#[test]
fn a_cancel_out_of_the_progress_callback_stops_at_once() {
    let scene = Scene::new();
    let cancel = CancelToken::new();
    let error = scene.download_with(&mut |_, _| cancel.cancel(), &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(!scene.snapshot().exists());
    // A token that is cancelled from the start asks nobody.
    let before = scene.hub.connections();
    assert_eq!(scene.download_with(&mut |_, _| {}, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(scene.hub.connections(), before);
}

#[test]
fn a_gated_repository_says_what_to_do() {
    let mut scene =
        Scene::with(HubFile { token: Some("hf_right".into()), ..HubFile::new(NAME, b"secret weights") });
    let page = format!("{}/owner/repo", scene.hub.endpoint());
    let error = scene.refused();
    assert_mentions(&error, &["403", "owner/repo", &page]);
    // A token was sent: how to give one is no remedy.
    assert!(!error.to_string().contains("HF_TOKEN"), "{error}");
    scene.options.token = Some(String::new());
    assert_mentions(&scene.refused(), &["401", "owner/repo", "HF_TOKEN", "hf auth login", &page]);
    scene.options.token = Some("hf_right".to_owned());
    scene.assert_whole(&scene.download().unwrap());
}

#[test]
fn what_is_not_on_the_hub_is_named() {
    let mut scene = Scene::new();
    scene.request.file = Some("y.gguf".to_owned());
    assert_mentions(&scene.refused(), &["y.gguf", "owner/repo", "main"]);
    scene.request.revision = "nightly".to_owned();
    assert_mentions(&scene.refused(), &["`nightly`", "owner/repo", "y.gguf"]);
    scene.request.repo = "owner/other".to_owned();
    assert_mentions(&scene.refused(), &["`owner/other`", "y.gguf", "nightly"]);
    assert_eq!(scene.hub.asked().len(), 3, "what is missing is not asked for again");
}

#[test]
fn small_files_folders_spaces_and_odd_revisions() {
    for storage in [Storage::Hub, Storage::SamePlace] {
        let mut scene = Scene::with(HubFile {
            storage,
            revisions: vec!["refs/pr/1".to_owned()],
            etag: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            ..HubFile::new("sub folder/ü #1.gguf", b"a small file")
        });
        scene.request.revision = "refs/pr/1".to_owned();
        scene.assert_whole(&scene.download().unwrap());
        assert!(scene.repo_dir().join("refs/refs/pr/1").is_file());
        scene.options.local_files_only = true;
        scene.assert_whole(&scene.download().unwrap());
        let file = &cached_models(Some(scene.cache.path())).unwrap()[0].file;
        assert_eq!(file, "sub folder/ü #1.gguf");
    }
}

#[test]
fn a_renamed_repository_is_followed() {
    let scene = Scene::new();
    const MOVED: Fault = Fault::Answer(307, &[("Location", "/owner/repo/resolve/main/x-Q4_K_M.gguf")], "");
    scene.hub.head_faults([MOVED]);
    scene.assert_whole(&scene.download().unwrap());
    // Round in circles is an error.
    let scene = Scene::new();
    scene.hub.head_faults(std::iter::repeat_n(MOVED, 20));
    assert_mentions(&scene.refused(), &[NAME, "owner/repo", "10"]);
}

#[test]
fn a_hub_that_describes_nothing_or_something_evil_is_refused() {
    let good = HubFile::new(NAME, b"x");
    for file in [
        HubFile { etag: "../../../etc/passwd".to_owned(), ..good.clone() },
        HubFile { etag: String::new(), ..good.clone() },
        HubFile { commit: "../../x".to_owned(), ..good.clone() },
        HubFile { commit: ".hidden".to_owned(), ..good.clone() },
    ] {
        let scene = Scene::with(good.clone());
        scene.hub.replace([file]);
        assert_mentions(&scene.refused(), &[NAME, &scene.hub.endpoint()]);
        assert_eq!(std::fs::read_dir(scene.cache.path()).unwrap().count(), 0, "nothing was written");
    }
    let scene = Scene::new();
    scene.hub.head_faults([Fault::Answer(
        200,
        &[("ETag", "\"a\""), ("X-Repo-Commit", "b"), ("X-Linked-Size", "-1")],
        "",
    )]);
    assert_mentions(&scene.refused(), &[NAME, &scene.hub.endpoint()]);
}

#[test]
fn too_little_disk_space_is_said_before_the_first_byte() {
    let scene = Scene::new();
    scene.hub.replace([HubFile { size: 1 << 60, ..scene.file.clone() }]);
    let cache = scene.cache.path().to_str().unwrap().to_owned();
    assert_mentions(&scene.refused(), &["1152921504.61 GB", &cache, "HF_HOME"]);
    assert_eq!(scene.hub.bodies(), Vec::<Option<String>>::new(), "no byte was asked for");
}

#[test]
fn the_tokenizer_is_fetched_too_but_is_not_needed() {
    let tokenizer = HubFile {
        repo: "owner/base".to_owned(),
        storage: Storage::Hub,
        etag: "f".repeat(40),
        token: Some("hf_other".to_owned()),
        ..HubFile::new("tokenizer.json", b"{}")
    };
    let mut scene = Scene::new();
    scene.request.tokenizer_repo = Some("owner/base".to_owned());
    let get = |scene: &Scene| download(&scene.request, &scene.options, &mut |_| {}, &CancelToken::new()).unwrap();
    assert_eq!(get(&scene).tokenizer_path, None, "the repository does not exist");
    scene.hub.replace([scene.file.clone(), tokenizer.clone()]);
    assert_eq!(get(&scene).tokenizer_path, None, "the repository is gated");
    scene.hub.replace([scene.file.clone(), HubFile { token: None, ..tokenizer }]);
    let path = get(&scene).tokenizer_path.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"{}");
}

#[test]
fn a_program_with_a_runtime_of_its_own_may_call_it() {
    let scene = Scene::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let path = runtime.block_on(async { scene.download() }).unwrap();
    scene.assert_whole(&path);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused_before_anything_is_asked() {
    let mut scene = Scene::new();
    for (repo, file, revision) in
        [("../..", NAME, "main"), ("owner/repo", "../../x", "main"), ("owner/repo", NAME, "../../x")]
    {
        scene.request.repo = repo.to_owned();
        scene.request.file = Some(file.to_owned());
        scene.request.revision = revision.to_owned();
        let error = download(&scene.request, &scene.options, &mut |_| {}, &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption, "{error}");
    }
    assert_eq!(scene.hub.connections(), 0);
}
