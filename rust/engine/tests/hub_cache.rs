//! The hub's client and the cache: when the hub is asked at all, what is listed and removed, what the environment says.
//!
//! The few tests that are about the process's environment start this binary again as a child.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

mod hub_server;

use std::process::Command;
use std::time::Duration;

use candle_phi_engine::hub::{
    CachedModel, HubOptions, ModelRequest, cached_models, download, named_models, remove_cached,
};
use candle_phi_engine::{CancelToken, ErrorKind};
use hub_server::scene::{COMMIT, NAME, Scene, assert_mentions, refusing_endpoint};
use hub_server::{Fault, HubFile, Storage};

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
    assert_mentions(&scene.refused(), &[endpoint.trim_start_matches("http://"), "HTTPS_PROXY", "HF_ENDPOINT"]);
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
fn half_a_file_under_the_whole_ones_name_is_mended() {
    let scene = Scene::new();
    scene.download().unwrap();
    std::fs::write(scene.blob(), &scene.file.body[..1000]).unwrap();
    scene.assert_whole(&scene.download().unwrap());
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
fn the_cache_is_listed_and_cleared() {
    let scene = Scene::new();
    let cache = Some(scene.cache.path());
    assert_eq!(cached_models(cache).unwrap(), []);
    assert_eq!(cached_models(Some(&scene.cache.path().join("absent"))).unwrap(), []);
    assert_eq!(remove_cached("owner/repo", cache).unwrap_err().kind(), ErrorKind::ModelNotFound);

    let path = scene.download().unwrap();
    let config = HubFile { storage: Storage::Hub, ..HubFile::new("config.json", b"{}") };
    scene.hub.replace([scene.file.clone(), config.clone()]);
    let other = ModelRequest { file: Some("config.json".to_owned()), ..scene.request.clone() };
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

#[test]
fn a_named_models_tokenizer_goes_with_it_unless_it_is_not_alone() {
    let named = named_models().iter().find(|model| model.tokenizer_repo.is_some()).unwrap();
    let tokenizer_repo = named.tokenizer_repo.unwrap();
    let file = HubFile { repo: named.repo.to_owned(), ..HubFile::new(NAME, b"weights") };
    let small = |name: &str, body: &[u8]| HubFile {
        repo: tokenizer_repo.to_owned(),
        storage: Storage::Hub,
        ..HubFile::new(name, body)
    };
    let mut scene = Scene::with(file.clone());
    scene.hub.replace([file, small("tokenizer.json", b"[]"), small("config.json", b"{}")]);
    scene.request.tokenizer_repo = Some(tokenizer_repo.to_owned());
    let cache = scene.cache.path();
    let get = |request: &ModelRequest| {
        download(request, &scene.options, &mut |_| {}, &CancelToken::new()).unwrap();
    };
    let tokenizer_dir = cache.join(format!("models--{}", tokenizer_repo.replace('/', "--")));

    get(&scene.request);
    assert!(tokenizer_dir.exists());
    assert_eq!(remove_cached(named.repo, Some(cache)).unwrap(), 7 + 2);
    assert!(!tokenizer_dir.exists());

    get(&scene.request);
    let other = ModelRequest {
        repo: tokenizer_repo.to_owned(),
        file: Some("config.json".to_owned()),
        quantization: None,
        revision: "main".to_owned(),
        tokenizer_repo: None,
    };
    get(&other);
    assert_eq!(remove_cached(named.repo, Some(cache)).unwrap(), 7);
    assert!(tokenizer_dir.join("snapshots").join(COMMIT).join("tokenizer.json").exists());
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

    let files: Vec<_> =
        cached_models(Some(scene.cache.path())).unwrap().into_iter().map(|model| model.file).collect();
    assert_eq!(files, ["shared.gguf", NAME]);
    remove_cached("owner/repo", Some(scene.cache.path())).unwrap();
    assert_eq!(
        remove_cached("owner/linked", Some(scene.cache.path())).unwrap_err().kind(),
        ErrorKind::ModelNotFound
    );
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_download_writes_through_no_link_and_waits_for_no_pipe() {
    let own = tempfile::tempdir().unwrap();
    let own = own.path().join("own");
    std::fs::write(&own, "mine").unwrap();
    let pipe = |path: &std::path::Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let plants: [&dyn Fn(&std::path::Path); 3] = [
        &|path| std::os::unix::fs::symlink(&own, path).unwrap(),
        &|path| std::fs::hard_link(&own, path).unwrap(),
        &pipe,
    ];
    for plant in plants {
        let scene = Scene::new();
        std::fs::create_dir_all(scene.incomplete().parent().unwrap()).unwrap();
        std::fs::create_dir_all(scene.repo_dir().join("refs")).unwrap();
        plant(&scene.incomplete());
        plant(&scene.repo_dir().join("refs/main"));
        scene.assert_whole(&scene.download().unwrap());
        assert_eq!(std::fs::read(&own).unwrap(), b"mine");
        assert_eq!(std::fs::read_to_string(scene.repo_dir().join("refs/main")).unwrap(), COMMIT);
    }
    // A lock that is a pipe is an error, and so is one that is a link.
    for plant in [plants[0], plants[2]] {
        let scene = Scene::new();
        scene.download().unwrap();
        let locks = scene.cache.path().join(".locks/models--owner--repo");
        let lock = std::fs::read_dir(&locks).unwrap().next().unwrap().unwrap().path();
        std::fs::remove_file(&lock).unwrap();
        std::fs::remove_dir_all(scene.repo_dir()).unwrap();
        plant(&lock);
        assert_eq!(scene.refused().kind(), ErrorKind::Download);
        assert_eq!(std::fs::read(&own).unwrap(), b"mine");
    }
}

#[test]
fn no_error_shows_a_password_of_the_endpoint() {
    for file in [true, false] {
        let mut scene = Scene::new();
        let endpoint = if file { scene.hub.endpoint() } else { refusing_endpoint() };
        scene.options.endpoint = Some(endpoint.replace("://", "://me:secret@"));
        scene.request.file = Some("missing.gguf".to_owned());
        scene.request.quantization = None;
        let error = scene.refused();
        assert!(!error.to_string().contains("secret") && !format!("{error:?}").contains("secret"), "{error:?}");
    }
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
        file: Some(NAME.to_owned()),
        quantization: None,
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
