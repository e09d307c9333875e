//! The hub's client against a hub on this machine: what is fetched, what is kept, what is said when it fails.
//!
//! Everything goes through `HubOptions`, so that the tests can run side by side; the few that are about the
//! process's environment start this binary again as a child.

mod hub_server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use candle_phi_engine::hub::{
    CachedModel, DownloadedModel, HubOptions, ModelRequest, cached_models, download, remove_cached,
};
use candle_phi_engine::{CancelToken, Error, ErrorKind, Result};
use hub_server::{Fault, FakeHub, HubFile, Storage};
use tempfile::TempDir;

const COMMIT: &str = "cccccccccccccccccccccccccccccccccccccccc";
const NAME: &str = "x-Q4_K_M.gguf";

/// Bytes that differ from place to place, more than one packet of them.
fn bytes() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).take(1_000_003).collect()
}

/// A hub with a file, a cache of its own, and a client.
struct Scene {
    hub: FakeHub,
    file: HubFile,
    cache: TempDir,
    options: HubOptions,
    request: ModelRequest,
}

impl Scene {
    fn new() -> Self {
        Self::with(HubFile::new(NAME, &bytes()))
    }

    fn with(file: HubFile) -> Self {
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
            file: file.name.clone(),
            revision: "main".to_owned(),
            tokenizer_repo: None,
        };
        Self { hub, file, cache, options, request }
    }

    fn download(&self) -> Result<PathBuf> {
        self.download_with(&mut |_, _| {}, &CancelToken::new()).map(|model| model.model_path)
    }

    fn download_with(
        &self,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
        cancel: &CancelToken,
    ) -> Result<DownloadedModel> {
        let name = self.request.file.clone();
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
    fn refused(&self) -> Error {
        let error = self.download().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Download, "{error}");
        assert!(!self.blob().exists() && !self.snapshot().exists(), "half a file was left: {error}");
        error
    }

    fn repo_dir(&self) -> PathBuf {
        self.cache.path().join("models--owner--repo")
    }

    fn blob(&self) -> PathBuf {
        self.repo_dir().join("blobs").join(&self.file.etag)
    }

    fn incomplete(&self) -> PathBuf {
        self.repo_dir().join("blobs").join(format!("{}.incomplete", self.file.etag))
    }

    fn snapshot(&self) -> PathBuf {
        self.repo_dir().join("snapshots").join(&self.file.commit).join(&self.file.name)
    }

    fn assert_whole(&self, path: &Path) {
        assert_eq!(path, self.snapshot());
        assert!(std::fs::read(path).unwrap() == *self.file.body, "the file differs");
        assert!(!self.incomplete().exists(), "the incomplete file was left");
    }
}

fn assert_mentions(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
    assert!(!text.contains("hf_secret") && !text.contains('\n'), "{text}");
}

/// An address that refuses connections: a port that was free a moment ago.
fn refusing_endpoint() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

#[test]
fn a_download_fills_the_shared_cache() {
    let scene = Scene::new();
    let mut reports = Vec::new();
    let model =
        scene.download_with(&mut |done, total| reports.push((done, total)), &CancelToken::new()).unwrap();
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
fn a_cached_branch_costs_one_question_and_no_body() {
    let scene = Scene::new();
    scene.download().unwrap();
    scene.hub.asked();
    let path = scene.download_with(&mut |_, _| panic!("nothing is fetched"), &CancelToken::new()).unwrap();
    scene.assert_whole(&path.model_path);
    let asked = scene.hub.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].method, "HEAD");
}

#[test]
fn a_cached_commit_costs_no_socket() {
    let mut scene = Scene::new();
    scene.request.revision = COMMIT.to_owned();
    scene.download().unwrap();
    assert!(!scene.repo_dir().join("refs").exists(), "a commit needs no ref");
    let before = scene.hub.connections();
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.connections(), before);
}

#[test]
fn offline_opens_no_socket() {
    let mut scene = Scene::new();
    scene.options.local_files_only = true;
    let error = scene.refused();
    let cache = scene.cache.path().to_str().unwrap().to_owned();
    assert_mentions(&error, &[NAME, "owner/repo", "main", &cache, "local_files_only"]);
    scene.request.revision = COMMIT.to_owned();
    assert_mentions(&scene.refused(), &[COMMIT]);
    assert_eq!(scene.hub.connections(), 0);

    scene.options.local_files_only = false;
    scene.request.revision = "main".to_owned();
    scene.download().unwrap();
    let before = scene.hub.connections();
    scene.options.local_files_only = true;
    for revision in ["main", COMMIT] {
        scene.request.revision = revision.to_owned();
        scene.assert_whole(&scene.download().unwrap());
    }
    scene.request.revision = "other".to_owned();
    assert_mentions(&scene.download().unwrap_err(), &["other"]);
    assert_eq!(scene.hub.connections(), before);
}

#[test]
fn a_hub_that_cannot_be_asked_leaves_the_cached_file() {
    let mut scene = Scene::new();
    scene.download().unwrap();
    scene.options.endpoint = Some(refusing_endpoint());
    scene.assert_whole(&scene.download().unwrap());
    scene.options.endpoint = Some(scene.hub.endpoint());
    for status in [500, 503, 401, 403] {
        scene.hub.head_faults([Fault::Answer(status, &[], "")]);
        scene.assert_whole(&scene.download().unwrap());
    }
    // What the hub is sure about is not papered over.
    scene.hub.head_faults([Fault::Answer(404, &[("X-Error-Code", "EntryNotFound")], "")]);
    assert_mentions(&scene.download().unwrap_err(), &["404", NAME].map(|_| NAME));
}

#[test]
fn a_hub_that_cannot_be_reached_is_an_error_without_a_cached_file() {
    let mut scene = Scene::new();
    let endpoint = refusing_endpoint();
    scene.options.endpoint = Some(endpoint.clone());
    assert_mentions(&scene.refused(), &["could not reach", endpoint.trim_start_matches("http://")]);
}

#[test]
fn a_moved_branch_fetches_the_new_file_and_keeps_the_old() {
    let mut scene = Scene::new();
    let old = scene.download().unwrap();
    let mut new = HubFile::new(NAME, b"a newer file");
    new.commit = "d".repeat(40);
    scene.hub.replace([new.clone()]);
    scene.file = new.clone();
    scene.assert_whole(&scene.download().unwrap());
    assert!(old.exists());
    assert_eq!(std::fs::read_to_string(scene.repo_dir().join("refs/main")).unwrap(), new.commit);

    // The same bytes under another commit need no body.
    new.commit = "e".repeat(40);
    scene.hub.replace([new.clone()]);
    scene.file = new;
    scene.hub.asked();
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), Vec::<Option<String>>::new());
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
    assert_mentions(&scene.refused(), &[NAME, "400.00 kB of 1.00 MB", "Run it again"]);
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
    assert_mentions(&scene.refused(), &["10 bytes", "1000003"]);
}

#[test]
fn a_body_longer_than_promised_is_refused() {
    let scene = Scene::new();
    scene.hub.body_faults(std::iter::repeat_n(Fault::TooLong, 5));
    assert_mentions(&scene.refused(), &["more than", "1000003"]);
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::EndsEarly(400_000), Fault::IgnoreRange]);
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies().len(), 2);
    // And one that breaks at the same place for ever is given up.
    let scene = Scene::new();
    scene.hub.body_faults(std::iter::repeat_n([Fault::IgnoreRange, Fault::EndsEarly(400_000)], 20).flatten());
    scene.hub.replace([HubFile { size: scene.file.size + 1, ..scene.file.clone() }]);
    scene.refused();
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
fn half_a_file_under_the_whole_ones_name_is_mended() {
    let scene = Scene::new();
    scene.download().unwrap();
    std::fs::write(scene.blob(), &scene.file.body[..1000]).unwrap();
    scene.assert_whole(&scene.download().unwrap());
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
        let running = threads.spawn(|| (scene.download_with(&mut |_, _| {}, &cancel).unwrap_err(), Instant::now()));
        stalled.recv().unwrap();
        let asked = Instant::now();
        cancel.cancel();
        let (error, ended) = running.join().unwrap();
        (error, ended.saturating_duration_since(asked))
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(waited < Duration::from_millis(200), "{waited:?}");
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
    let mut scene = Scene::with(HubFile { token: Some("hf_right".into()), ..HubFile::new(NAME, b"secret weights") });
    assert_mentions(&scene.refused(), &["403", "owner/repo", "gated", "token that was sent"]);
    scene.options.token = Some(String::new());
    let page = format!("{}/owner/repo", scene.hub.endpoint());
    assert_mentions(&scene.refused(), &["401", "owner/repo", "gated", "HF_TOKEN", "hf auth login", &page]);
    scene.options.token = Some("hf_right".to_owned());
    scene.assert_whole(&scene.download().unwrap());
}

#[test]
fn what_is_not_on_the_hub_is_named() {
    let mut scene = Scene::new();
    scene.request.file = "y.gguf".to_owned();
    assert_mentions(&scene.refused(), &["y.gguf", "owner/repo", "main"]);
    scene.request.revision = "nightly".to_owned();
    assert_mentions(&scene.refused(), &["no revision `nightly`", "owner/repo", "y.gguf"]);
    scene.request.repo = "owner/other".to_owned();
    assert_mentions(&scene.refused(), &["no repository `owner/other`", "y.gguf", "nightly"]);
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
    assert_mentions(&scene.refused(), &["redirects"]);
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
        assert_mentions(&scene.refused(), &["Hugging Face hub"]);
        assert_eq!(std::fs::read_dir(scene.cache.path()).unwrap().count(), 0, "nothing was written");
    }
    let scene = Scene::new();
    scene.hub.head_faults([Fault::Answer(200, &[("ETag", "\"a\""), ("X-Repo-Commit", "b"), ("X-Linked-Size", "-1")], "")]);
    assert_mentions(&scene.refused(), &["size"]);
}

#[test]
fn too_little_disk_space_is_said_before_the_first_byte() {
    let scene = Scene::new();
    scene.hub.replace([HubFile { size: 1 << 60, ..scene.file.clone() }]);
    let cache = scene.cache.path().to_str().unwrap().to_owned();
    assert_mentions(&scene.refused(), &["1152921504.61 GB", "GB free", &cache, "HF_HOME"]);
    assert_eq!(scene.hub.bodies(), Vec::<Option<String>>::new(), "no byte was asked for");
}

#[test]
fn a_cache_without_symbolic_links_works() {
    let mut scene = Scene::new();
    scene.options.disable_symlinks = true;
    scene.assert_whole(&scene.download().unwrap());
    assert!(!scene.snapshot().is_symlink());
    scene.hub.asked();
    scene.assert_whole(&scene.download().unwrap());
    assert_eq!(scene.hub.bodies(), Vec::<Option<String>>::new());
    let models = cached_models(Some(scene.cache.path())).unwrap();
    assert_eq!((models.len(), models[0].size_bytes), (1, scene.file.size));
    assert_eq!(remove_cached("owner/repo", Some(scene.cache.path())).unwrap(), scene.file.size);
    assert!(!scene.repo_dir().exists());
}

#[test]
fn downloads_side_by_side_fetch_the_file_once() {
    let scene = Scene::new();
    // The first one is held in the middle, so that the others come while it runs.
    scene.hub.body_faults([Fault::EndsEarly(1000), Fault::EndsEarly(1000)]);
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..4).map(|_| threads.spawn(|| scene.download())).collect();
        for one in running {
            scene.assert_whole(&one.join().unwrap().unwrap());
        }
    });
    let expected = [None, Some("bytes=1000-".to_owned()), Some("bytes=2000-".to_owned())];
    assert_eq!(scene.hub.bodies(), expected);
}

#[test]
fn waiting_for_another_process_can_be_cancelled() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::Stall(1000)]);
    let stalled = scene.hub.on_stall();
    let (first, second) = (CancelToken::new(), CancelToken::new());
    std::thread::scope(|threads| {
        let holder = threads.spawn(|| scene.download_with(&mut |_, _| {}, &first));
        stalled.recv().unwrap();
        second.cancel();
        assert_eq!(scene.download_with(&mut |_, _| {}, &second).unwrap_err().kind(), ErrorKind::Cancelled);
        first.cancel();
        assert_eq!(holder.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
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
        scene.request.file = file.to_owned();
        scene.request.revision = revision.to_owned();
        let error = download(&scene.request, &scene.options, &mut |_| {}, &CancelToken::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption, "{error}");
    }
    assert_eq!(scene.hub.connections(), 0);
}

#[test]
fn the_cache_is_listed_and_cleared() {
    let scene = Scene::new();
    let cache = Some(scene.cache.path());
    assert_eq!(cached_models(cache).unwrap(), []);
    assert_eq!(cached_models(Some(&scene.cache.path().join("absent"))).unwrap(), []);
    assert_eq!(remove_cached("owner/repo", cache).unwrap_err().kind(), ErrorKind::ModelNotFound);

    let path = scene.download().unwrap();
    let config = HubFile { storage: Storage::Hub, ..HubFile::new("config.json", b"{}") };
    scene.hub.replace([scene.file.clone(), config.clone()]);
    let other = ModelRequest { file: "config.json".to_owned(), ..scene.request.clone() };
    let config_path = download(&other, &scene.options, &mut |_| {}, &CancelToken::new()).unwrap().model_path;
    let expected = CachedModel {
        repo: "owner/repo".to_owned(),
        file: NAME.to_owned(),
        revision: COMMIT.to_owned(),
        refs: vec!["main".to_owned()],
        path,
        size_bytes: scene.file.size,
    };
    assert_eq!(cached_models(cache).unwrap(), [expected]);

    let begun = scene.repo_dir().join("blobs").join(format!("{}.incomplete", "a".repeat(64)));
    std::fs::write(&begun, [0; 100]).unwrap();
    assert_eq!(remove_cached("owner/repo", cache).unwrap(), scene.file.size + 100);
    assert_eq!(cached_models(cache).unwrap(), []);
    assert!(!scene.blob().exists() && !scene.snapshot().exists() && !begun.exists());
    assert_eq!(std::fs::read(&config_path).unwrap(), b"{}", "other files stay");

    std::fs::remove_file(&config_path).unwrap();
    scene.download().unwrap();
    remove_cached("owner/repo", cache).unwrap();
    assert!(!scene.repo_dir().exists(), "empty folders go");
    assert_eq!(remove_cached("../..", cache).unwrap_err().kind(), ErrorKind::InvalidOption);
}

#[cfg(unix)]
#[test]
fn links_out_of_the_cache_are_neither_listed_nor_followed() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious.gguf");
    std::fs::write(&precious, "mine").unwrap();

    let scene = Scene::new();
    scene.download().unwrap();
    let snapshot = scene.snapshot();
    let snapshot = snapshot.parent().unwrap();
    symlink(&precious, snapshot.join("link.gguf")).unwrap();
    symlink(outside.path(), snapshot.join("folder")).unwrap();
    symlink(outside.path(), scene.repo_dir().join("snapshots").join("d".repeat(40))).unwrap();
    symlink("nowhere", snapshot.join("broken.gguf")).unwrap();
    symlink(outside.path(), scene.cache.path().join("models--owner--linked")).unwrap();
    // huggingface_hub's shared store: the blob itself is a link.
    symlink(&precious, scene.repo_dir().join("blobs").join("shared")).unwrap();
    symlink("../../blobs/shared", snapshot.join("shared.gguf")).unwrap();

    let files: Vec<_> = cached_models(Some(scene.cache.path())).unwrap().into_iter().map(|model| model.file).collect();
    assert_eq!(files, ["shared.gguf", NAME]);
    remove_cached("owner/repo", Some(scene.cache.path())).unwrap();
    assert_eq!(remove_cached("owner/linked", Some(scene.cache.path())).unwrap_err().kind(), ErrorKind::ModelNotFound);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn what_another_process_is_fetching_is_not_removed() {
    let scene = Scene::new();
    scene.hub.body_faults([Fault::Stall(1000)]);
    let stalled = scene.hub.on_stall();
    let cancel = CancelToken::new();
    std::thread::scope(|threads| {
        let running = threads.spawn(|| scene.download_with(&mut |_, _| {}, &cancel));
        stalled.recv().unwrap();
        assert_eq!(remove_cached("owner/repo", Some(scene.cache.path())).unwrap(), 0);
        assert!(scene.incomplete().exists());
        cancel.cancel();
        running.join().unwrap().unwrap_err();
    });
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_written_says_where() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    // A file where a folder must be stops the superuser as well.
    std::fs::write(scene.cache.path().join("models--owner--repo"), "").unwrap();
    assert_mentions(&scene.refused(), &["models--owner--repo"]);
    // A cache on a read-only disk serves what it has.
    let scene = Scene::new();
    scene.download().unwrap();
    std::fs::remove_file(scene.repo_dir().join("refs/main")).unwrap();
    let refs = scene.repo_dir().join("refs");
    std::fs::set_permissions(&refs, std::fs::Permissions::from_mode(0o500)).unwrap();
    scene.assert_whole(&scene.download().unwrap());
    std::fs::set_permissions(&refs, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// Runs `child` in a process with these variables and none of the hub's or of a proxy.
fn in_child(variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("HF_") || upper.ends_with("_PROXY") || upper.starts_with("HUGGING") {
            command.env_remove(name);
        }
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
#[ignore = "the body of the tests below, in a process of its own"]
fn child() {
    let request = ModelRequest {
        repo: "owner/repo".to_owned(),
        file: NAME.to_owned(),
        revision: "main".to_owned(),
        tokenizer_repo: None,
    };
    let options = HubOptions { retry_delay: Some(Duration::from_millis(1)), ..HubOptions::default() };
    match download(&request, &options, &mut |_| {}, &CancelToken::new()) {
        Ok(model) => println!("path: {}", model.model_path.display()),
        Err(error) => panic!("error: {error}"),
    }
}

#[test]
fn the_environment_names_cache_endpoint_token_and_offline() {
    let scene = Scene::new();
    let home = scene.cache.path().to_str().unwrap();
    let endpoint = scene.hub.endpoint();
    let variables = [("HF_HOME", home), ("HF_ENDPOINT", &endpoint), ("HF_TOKEN", "hf_env")];
    let (good, output) = in_child(&variables);
    assert!(good, "{output}");
    assert!(scene.cache.path().join("hub/models--owner--repo/refs/main").is_file(), "{output}");
    assert_eq!(scene.hub.asked()[0].authorization.as_deref(), Some("Bearer hf_env"));

    let before = scene.hub.connections();
    for value in ["1", "true", "yes", "ON"] {
        let (good, output) = in_child(&[&variables[..], &[("HF_HUB_OFFLINE", value)]].concat());
        assert!(good && output.contains("path: "), "{output}");
    }
    let empty = tempfile::tempdir().unwrap();
    let cache = empty.path().to_str().unwrap();
    let offline = [("HF_HUB_CACHE", cache), ("HF_ENDPOINT", &endpoint), ("HF_HUB_OFFLINE", "1")];
    let (good, output) = in_child(&offline);
    assert!(!good && scene.hub.connections() == before, "{output}");
}

#[test]
fn a_proxy_out_of_the_environment_is_used() {
    // The fake hub stands in for the proxy: it is asked for an address on a host that does not exist.
    let scene = Scene::new();
    let home = scene.cache.path().to_str().unwrap();
    let proxy = scene.hub.endpoint();
    let endpoint = "http://hub.invalid";
    let (good, output) = in_child(&[("HF_HOME", home), ("HF_ENDPOINT", endpoint), ("http_proxy", &proxy)]);
    assert!(!good, "{output}");
    let asked = scene.hub.asked();
    assert!(asked[0].path.starts_with("http://hub.invalid/owner/repo/resolve/main/"), "{asked:?}");
}
