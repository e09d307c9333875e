//! The hub's client and split files: one name fetches all parts, and the cache has them as one model.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

mod hub_server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_phi_engine::hub::{DownloadedModel, Progress, cached_models, download, remove_cached};
use candle_phi_engine::{CancelToken, ErrorKind, Result};
use hub_server::scene::{COMMIT, Scene, assert_mentions, refusing_endpoint};
use hub_server::{Fault, HubFile, Storage};

fn name(number: usize) -> String {
    format!("Q8_0/x-Q8_0-0000{number}-of-00003.gguf")
}

/// Parts of 100 kB, 200 kB and 300 kB that all differ.
fn parts() -> [HubFile; 3] {
    [1, 2, 3].map(|number| HubFile::new(&name(number), &vec![number as u8; number * 100_000]))
}

fn scene() -> Scene {
    let scene = Scene::with(parts()[0].clone());
    scene.hub.replace(parts());
    scene
}

fn get(scene: &Scene) -> Result<DownloadedModel> {
    get_with(scene, &mut |_| {}, &CancelToken::new())
}

fn get_with(
    scene: &Scene,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
    cancel: &CancelToken,
) -> Result<DownloadedModel> {
    download(&scene.request, &scene.options, progress, cancel)
}

fn part_path(scene: &Scene, commit: &str, number: usize) -> PathBuf {
    scene.repo_dir().join("snapshots").join(commit).join(name(number))
}

fn assert_whole(scene: &Scene, model: &DownloadedModel) {
    assert_eq!(model.model_path, part_path(scene, COMMIT, 1));
    for (number, part) in (1..).zip(parts()) {
        assert!(std::fs::read(part_path(scene, COMMIT, number)).unwrap() == *part.body, "part {number} differs");
    }
}

#[test]
fn any_part_fetches_all_of_them_and_progress_is_told_for_each() {
    for asked in 1..=3 {
        let mut scene = scene();
        scene.request.file = Some(name(asked));
        let mut last = BTreeMap::new();
        let model = get_with(
            &scene,
            &mut |now| _ = last.insert(now.file.to_owned(), (now.bytes_done, now.bytes_total)),
            &CancelToken::new(),
        )
        .unwrap();
        assert_whole(&scene, &model);
        let size = |number: u64| (number * 100_000, Some(number * 100_000));
        assert_eq!(last, (1..=3).map(|number| (name(number), size(number as u64))).collect());
    }
}

#[test]
fn what_is_cached_is_one_question_and_offline_none() {
    let mut scene = scene();
    get(&scene).unwrap();
    scene.hub.asked();
    let nothing = &mut |now: Progress<'_>| panic!("{now:?}");
    assert_whole(&scene, &get_with(&scene, nothing, &CancelToken::new()).unwrap());
    assert_eq!(scene.hub.asked().len(), 1, "the commit says that the others are the right ones");

    let before = scene.hub.connections();
    scene.options.local_files_only = true;
    for revision in ["main", COMMIT] {
        scene.request.revision = revision.to_owned();
        assert_whole(&scene, &get(&scene).unwrap());
    }
    std::fs::remove_file(part_path(&scene, COMMIT, 3)).unwrap();
    assert_mentions(&get(&scene).unwrap_err(), &[&name(3), "local_files_only"]);
    assert_eq!(scene.hub.connections(), before);
}

#[test]
fn a_hub_that_cannot_be_reached_leaves_the_cached_parts() {
    let mut scene = scene();
    get(&scene).unwrap();
    let endpoint = refusing_endpoint();
    scene.options.endpoint = Some(endpoint.clone());
    assert_whole(&scene, &get(&scene).unwrap());
    std::fs::remove_file(part_path(&scene, COMMIT, 2)).unwrap();
    assert_mentions(&get(&scene).unwrap_err(), &[endpoint.trim_start_matches("http://"), "HF_ENDPOINT"]);
}

#[test]
fn a_download_that_broke_in_the_second_part_goes_on_there() {
    let scene = scene();
    let broken = [Fault::Cut(0), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)];
    // The first body is that of the first part.
    scene.hub.body_faults([Fault::Shorter(100_000), Fault::EndsEarly(50_000)].into_iter().chain(broken));
    let error = get(&scene).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert_mentions(&error, &[&name(2), "50.00 kB", "200.00 kB"]);
    assert_eq!(cached_models(Some(scene.cache.path())).unwrap(), [], "a third of a model is none");
    scene.hub.asked();
    assert_whole(&scene, &get(&scene).unwrap());
    assert_eq!(scene.hub.bodies(), [Some("bytes=50000-".to_owned()), None]);
}

#[test]
fn a_cancel_between_two_parts_stops() {
    let scene = scene();
    let cancel = CancelToken::new();
    let stop = &mut |now: Progress<'_>| {
        if now.file == name(2) {
            cancel.cancel();
        }
    };
    assert_eq!(get_with(&scene, stop, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(part_path(&scene, COMMIT, 1).exists() && !part_path(&scene, COMMIT, 2).exists());
}

#[test]
fn a_part_that_the_hub_lacks_is_named() {
    let scene = scene();
    scene.hub.replace(parts().into_iter().take(2));
    assert_mentions(&get(&scene).unwrap_err(), &[&name(3), "owner/repo"]);
}

#[test]
fn a_branch_that_moves_between_two_parts_mixes_no_commits() {
    let scene = scene();
    let newer = |part: HubFile| HubFile { commit: "d".repeat(40), ..HubFile::new(&part.name, b"a newer part") };
    // Both commits are there; the branch leads to the newer one from the second part on.
    let old = parts().map(|part| HubFile { revisions: Vec::new(), ..part });
    let first = HubFile { revisions: vec!["main".to_owned()], ..old[0].clone() };
    let [_, second, third] = old.clone();
    let moved = parts().map(newer).into_iter().skip(1);
    scene.hub.replace([first, second, third].into_iter().chain(moved));
    assert_whole(&scene, &get(&scene).unwrap());
}

#[test]
fn the_cache_has_the_parts_as_one_model_and_removes_all_of_them() {
    let scene = scene();
    let model = get(&scene).unwrap();
    let cache = Some(scene.cache.path());
    let [listed] = &cached_models(cache).unwrap()[..] else { panic!("one model") };
    assert_eq!((listed.file.as_str(), &listed.path), (name(1).as_str(), &model.model_path));
    assert_eq!((listed.size_bytes, listed.refs.as_slice()), (600_000, &["main".to_owned()][..]));

    // A whole file beside them, and one commit that has only a part.
    let other = HubFile { commit: COMMIT.to_owned(), ..HubFile::new("x-Q4_K_M.gguf", b"another") };
    scene.hub.replace(parts().into_iter().chain([other]));
    let mut more = scene;
    more.request.file = Some("x-Q4_K_M.gguf".to_owned());
    get(&more).unwrap();
    let cache = Some(more.cache.path());
    let files: Vec<_> = cached_models(cache).unwrap().into_iter().map(|model| model.file).collect();
    assert_eq!(files, [name(1).as_str(), "x-Q4_K_M.gguf"]);
    std::fs::remove_file(part_path(&more, COMMIT, 1)).unwrap();
    let files: Vec<_> = cached_models(cache).unwrap().into_iter().map(|model| model.file).collect();
    assert_eq!(files, ["x-Q4_K_M.gguf"]);

    assert_eq!(remove_cached("owner/repo", cache).unwrap(), 600_007, "what is left of a split file goes too");
    assert!(!more.repo_dir().exists());
}

#[test]
fn a_name_that_only_looks_like_a_part_is_one_file() {
    for file in ["x-00001-of-00001.gguf", "x-00004-of-00003.gguf", "x-1-of-2.gguf"] {
        let scene = Scene::with(HubFile::new(file, b"whole"));
        scene.assert_whole(&scene.download().unwrap());
        assert_eq!(cached_models(Some(scene.cache.path())).unwrap()[0].file, file);
    }
}

#[test]
fn an_unreachable_hub_is_asked_once_for_what_is_only_nice_to_have() {
    let mut scene = scene();
    scene.request.tokenizer_repo = Some("owner/base".to_owned());
    let tokenizer = HubFile { repo: "owner/base".to_owned(), storage: Storage::Hub, ..HubFile::new("x", b"{}") };
    scene.hub.replace(parts().into_iter().chain([tokenizer]));
    get(&scene).unwrap();
    scene.options.endpoint = Some(refusing_endpoint());
    scene.options.retry_delay = Some(Duration::from_secs(5));
    let start = Instant::now();
    assert_eq!(get(&scene).unwrap().tokenizer_path, None);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
