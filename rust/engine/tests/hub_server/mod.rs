//! A Hugging Face hub on 127.0.0.1, and the storage server that it redirects to, with faults on demand.
//!
//! It answers as the hub does: `/OWNER/REPO/resolve/REVISION/FILE` with `X-Repo-Commit`, `ETag`, `X-Linked-Etag` and
//! `X-Linked-Size`, a redirect to storage for large files, `Range`, `X-Error-Code` with a 404, and
//! `/api/models/OWNER/REPO/revision/REVISION` with the names of the files. One request a
//! connection, and everything that was asked is written down.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that is wrong should stop where it is wrong"
)]

pub(crate) mod scene;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// What goes wrong with one body, or with one answer to a `HEAD`.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection is cut after that many bytes of the body.
    Cut(usize),
    /// The body has no length and ends after that many bytes.
    EndsEarly(usize),
    /// The body is that many bytes, and the header says so.
    Shorter(usize),
    /// Nothing more is sent after that many bytes, and the connection stays open.
    Stall(usize),
    /// One byte of the body is another.
    WrongByte,
    /// There are bytes after the last, and no length.
    TooLong,
    /// Something else is sent, with that status and those headers.
    Answer(u16, &'static [(&'static str, &'static str)], &'static str),
}

/// Where the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// On the hub itself, as small files are.
    Hub,
    /// Behind a redirect to another host, as large files are.
    Elsewhere,
    /// Behind a relative redirect on the hub.
    SamePlace,
}

/// A file on the hub.
#[derive(Clone)]
pub(crate) struct HubFile {
    pub repo: String,
    pub name: String,
    pub revisions: Vec<String>,
    pub commit: String,
    pub etag: String,
    /// The size in `X-Linked-Size`; larger than the body for a lie.
    pub size: u64,
    pub body: Arc<[u8]>,
    pub storage: Storage,
    /// Only with this token.
    pub token: Option<String>,
    /// Whether a part of it can be asked for.
    pub ranges: bool,
}

impl HubFile {
    /// A file of the default repository, large enough to be in storage elsewhere.
    pub(crate) fn new(name: &str, body: &[u8]) -> Self {
        let mut etag = String::new();
        for byte in Sha256::digest(body) {
            write!(etag, "{byte:02x}").unwrap();
        }
        Self {
            repo: "owner/repo".to_owned(),
            name: name.to_owned(),
            revisions: vec!["main".to_owned()],
            commit: "c".repeat(40),
            etag,
            size: body.len() as u64,
            body: body.into(),
            storage: Storage::Elsewhere,
            token: None,
            ranges: true,
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Whether the hub was asked, not the storage server.
    pub hub: bool,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    files: Vec<HubFile>,
    head_faults: VecDeque<Fault>,
    body_faults: VecDeque<Fault>,
    connections: usize,
    asked: Vec<Asked>,
    stalls: Vec<Sender<()>>,
}

/// The two servers. Their threads end with the test process.
pub(crate) struct FakeHub {
    pub hub: SocketAddr,
    pub storage: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeHub {
    pub(crate) fn start(files: impl IntoIterator<Item = HubFile>) -> Self {
        let state = Arc::new(Mutex::new(State { files: files.into_iter().collect(), ..State::default() }));
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [hub, storage] = [0, 1].map(|index: usize| listeners[index].local_addr().unwrap());
        for (listener, is_hub) in listeners.into_iter().zip([true, false]) {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    state.lock().unwrap().connections += 1;
                    let state = Arc::clone(&state);
                    // A client that goes away in the middle is what half of the tests are about.
                    std::thread::spawn(move || serve(stream, is_hub, storage, &state).ok());
                }
            });
        }
        Self { hub, storage, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Faults of the next bodies, one a request.
    pub(crate) fn body_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().body_faults.extend(faults);
    }

    /// Faults of the next answers to `HEAD`, one a request.
    pub(crate) fn head_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().head_faults.extend(faults);
    }

    /// What hears of the next stall.
    pub(crate) fn on_stall(&self) -> Receiver<()> {
        let (sender, receiver) = channel();
        self.state.lock().unwrap().stalls.push(sender);
        receiver
    }

    pub(crate) fn replace(&self, files: impl IntoIterator<Item = HubFile>) {
        self.state.lock().unwrap().files = files.into_iter().collect();
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Everything asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// The bodies asked for since the last call of this or of `asked`: each one's `Range`, from where it was served.
    pub(crate) fn bodies(&self) -> Vec<Option<String>> {
        let served = |asked: &Asked| asked.method == "GET" && (!asked.hub || asked.path.contains("/resolve/"));
        let all: Vec<_> = self.asked().into_iter().filter(served).collect();
        let elsewhere = all.iter().any(|asked| !asked.hub);
        all.into_iter().filter(|asked| asked.hub != elsewhere).map(|asked| asked.range).collect()
    }
}

fn serve(mut stream: TcpStream, is_hub: bool, storage: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut parts = first.split(' ');
    let method = parts.next().unwrap_or_default().to_owned();
    let path = percent_decoded(parts.next().unwrap_or_default());
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.trim().to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.trim().to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let asked =
        Asked { hub: is_hub, method: method.clone(), path: path.clone(), range: range.clone(), authorization };
    let authorization = asked.authorization.clone();
    let (found, fault) = {
        let mut state = state.lock().unwrap();
        state.asked.push(asked);
        let found = find(&state.files, &path);
        let body =
            method == "GET" && found.as_ref().is_ok_and(|(file, direct)| *direct || file.storage == Storage::Hub);
        let fault = if method == "HEAD" {
            state.head_faults.pop_front()
        } else if body {
            state.body_faults.pop_front()
        } else {
            None
        };
        (found, fault)
    };
    if let Some(Fault::Answer(status, headers, body)) = fault {
        return answer(&mut stream, status, headers, body, &method);
    }
    if let Some(rest) = path.strip_prefix("/api/models/").filter(|_| is_hub) {
        return match listing(&state.lock().unwrap().files, rest) {
            Ok(body) => answer(&mut stream, 200, &[("Content-Type", "application/json")], &body, &method),
            Err(code) => answer(&mut stream, 404, &[("X-Error-Code", code)], "not found", &method),
        };
    }
    let (file, direct) = match found {
        Ok(found) => found,
        Err(code) => return answer(&mut stream, 404, &[("X-Error-Code", code)], "not found", &method),
    };
    if !direct {
        if file.token.is_some() && authorization != file.token.as_ref().map(|token| format!("Bearer {token}")) {
            let status = if authorization.is_some() { 403 } else { 401 };
            return answer(&mut stream, status, &[("X-Error-Code", "GatedRepo")], "gated", &method);
        }
        // As most servers write it: what would end the path is escaped, letters are not.
        let name = file.name.replace(' ', "%20").replace('#', "%23");
        let described = format!("X-Repo-Commit: {}\r\n", file.commit);
        let to = match file.storage {
            Storage::Hub => None,
            Storage::Elsewhere => Some(format!("http://{storage}/storage/{}/{name}", file.repo)),
            Storage::SamePlace => Some(format!("/storage/{}/{name}", file.repo)),
        };
        if let Some(to) = to {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\n{described}ETag: \"of-the-pointer\"\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: \
                 {}\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                file.etag, file.size
            );
        }
        return send(stream, &file, &described, range.as_deref(), &method, fault, state);
    }
    send(stream, &file, "", range.as_deref(), &method, fault, state)
}

/// The file at a path, and whether that is the storage's path; or the hub's name for what is missing.
fn find(files: &[HubFile], path: &str) -> Result<(HubFile, bool), &'static str> {
    if let Some(rest) = path.strip_prefix("/storage/") {
        let file = files.iter().find(|file| rest == format!("{}/{}", file.repo, file.name));
        return file.map(|file| (file.clone(), true)).ok_or("EntryNotFound");
    }
    let mut error = "RepoNotFound";
    for file in files {
        let Some(rest) = path.strip_prefix(&format!("/{}/resolve/", file.repo)) else { continue };
        let revisions = file.revisions.iter().chain([&file.commit]);
        for revision in revisions {
            if let Some(name) = rest.strip_prefix(&format!("{revision}/")) {
                if name == file.name {
                    return Ok((file.clone(), false));
                }
                error = "EntryNotFound";
            }
        }
        if error == "RepoNotFound" {
            error = "RevisionNotFound";
        }
    }
    Err(error)
}

/// What the API says of `OWNER/NAME/revision/REVISION`.
fn listing(files: &[HubFile], path: &str) -> Result<String, &'static str> {
    let mut names = Vec::new();
    let mut error = "RepoNotFound";
    for file in files {
        let Some(revision) = path.strip_prefix(&format!("{}/revision/", file.repo)) else { continue };
        error = "RevisionNotFound";
        if file.revisions.iter().chain([&file.commit]).any(|known| known == revision) {
            names.push(format!("{{\"rfilename\": \"{}\"}}", file.name));
        }
    }
    if names.is_empty() { Err(error) } else { Ok(format!("{{\"siblings\": [{}]}}", names.join(", "))) }
}

fn send(
    mut stream: TcpStream,
    file: &HubFile,
    described: &str,
    range: Option<&str>,
    method: &str,
    fault: Option<Fault>,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let total = file.body.len();
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let start: usize = if file.ranges { start.unwrap_or(0) } else { 0 };
    if start >= total && start > 0 {
        return answer(&mut stream, 416, &[], "", method);
    }
    let mut body = file.body[start..].to_vec();
    let status = if start > 0 {
        format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}", total - 1)
    } else {
        "200 OK".to_owned()
    };
    let mut promised = Some(body.len());
    let mut stall = false;
    match fault {
        Some(Fault::Cut(bytes)) => body.truncate(bytes),
        Some(Fault::Stall(bytes)) => {
            body.truncate(bytes);
            stall = true;
        }
        Some(Fault::EndsEarly(bytes)) => {
            body.truncate(bytes);
            promised = None;
        }
        Some(Fault::Shorter(bytes)) => {
            body.truncate(bytes);
            promised = Some(bytes);
        }
        Some(Fault::WrongByte) => body[0] ^= 1,
        Some(Fault::TooLong) => {
            body.extend_from_slice(b"and more");
            promised = None;
        }
        Some(Fault::Answer(..)) | None => {}
    }
    let length = promised.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{described}ETag: \"{}\"\r\n{length}Connection: close\r\n\r\n",
        file.etag
    )?;
    if method == "GET" {
        stream.write_all(&body)?;
        stream.flush()?;
        if stall {
            for sender in state.lock().unwrap().stalls.drain(..) {
                sender.send(()).ok();
            }
            // Until the client has had enough.
            std::io::copy(&mut stream, &mut std::io::sink())?;
        }
    }
    Ok(())
}

fn answer(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
    method: &str,
) -> std::io::Result<()> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    let length = body.len();
    let body = if method == "HEAD" { "" } else { body };
    write!(
        stream,
        "HTTP/1.1 {status} Answer\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%').then(|| tail.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap()
}
