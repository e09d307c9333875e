//! Requests to the hub: who is asked, who sees the token, how long to wait, what an answer means.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use reqwest::header::{self, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::layout::{Wanted, is_component};
use super::redact::redacted;
use super::settings::Settings;
use crate::{CancelToken, Error, Result};

/// How often a wait looks at the cancel token.
const TICK: Duration = Duration::from_millis(25);
const MAX_REDIRECTS: usize = 10;
/// Tries without a new byte before a download is given up.
pub(super) const MAX_TRIES: u32 = 5;
/// Far more than the hub says of the largest repository.
const MAX_LISTING_BYTES: usize = 16 << 20;

/// A connection to the hub, made at the first request: what is in the cache costs no sockets and no TLS set-up.
pub(super) struct Hub<'a> {
    settings: &'a Settings,
    client: Option<Client>,
    /// It could not be asked, and a cached file did: what else is wanted of it is tried once.
    pub(super) in_trouble: bool,
    /// The file that was looked for last is not in its repository or, offline, not in the cache.
    pub(super) lacks_file: bool,
}

/// What the hub says a file is.
pub(super) struct Metadata {
    pub(super) commit: String,
    /// Without quotes. For a large file it is the SHA-256 of its bytes.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Metadata {
    /// The SHA-256 that the file must have, in small letters.
    pub(super) fn sha256(&self) -> Option<String> {
        (self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| self.etag.to_ascii_lowercase())
    }
}

/// An error of a request, with what may be done about it.
pub(super) struct Failure {
    pub(super) error: Error,
    /// The same request may succeed in a moment; after the time, where the hub gave one.
    pub(super) retry: Option<Duration>,
    /// The hub could not be asked, or would not answer: a cached file is better than none.
    pub(super) cache_will_do: bool,
    /// The server has nothing at the place in the file that was asked for.
    pub(super) range_refused: bool,
    /// The repository is there, and does not have the file.
    pub(super) lacks_file: bool,
}

/// What a request is about, for its messages.
struct About<'a> {
    what: String,
    repo: &'a str,
    revision: &'a str,
}

impl<'a> From<&Wanted<'a>> for About<'a> {
    fn from(wanted: &Wanted<'a>) -> Self {
        Self { what: wanted.to_string(), repo: wanted.repo, revision: wanted.revision }
    }
}

/// What a request gives.
pub(super) type Answer<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(super) fn fatal(error: Error) -> Self {
        Self { error, retry: None, cache_will_do: false, range_refused: false, lacks_file: false }
    }

    pub(super) fn transient(message: String) -> Self {
        Self { retry: Some(Duration::ZERO), cache_will_do: true, ..Self::fatal(Error::download(message)) }
    }
}

impl<'a> Hub<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, client: None, in_trouble: false, lacks_file: false }
    }

    pub(super) fn settings(&self) -> &'a Settings {
        self.settings
    }

    pub(super) fn connect(&mut self) -> Result<&mut Self> {
        if self.client.is_none() {
            let mut client = Client::builder()
                .user_agent(concat!("candle-phi/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(self.settings.timeout)
                // Redirects are followed below, where it is decided who sees the token.
                .redirect(reqwest::redirect::Policy::none())
                .https_only(self.settings.endpoint.scheme() == "https");
            if self.is_loopback() {
                // A hub on this machine is not behind the proxy.
                client = client.no_proxy();
            }
            self.client = Some(client.build().map_err(|error| {
                Error::download(format!(
                    "could not set up connections to the hub: {}; if certificates are missing, install the system's \
                     package of them (ca-certificates) or set SSL_CERT_FILE",
                    chain(&error)
                ))
                .with_source(error)
            })?);
        }
        Ok(self)
    }

    fn is_loopback(&self) -> bool {
        match self.settings.endpoint.host_str() {
            Some(host) => {
                host == "localhost"
                    || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            None => false,
        }
    }

    fn url(&self, wanted: &Wanted<'_>) -> Url {
        let mut url = self.settings.endpoint.clone();
        // Only an address without a host has no paths, and the settings let none through.
        if let Ok(mut path) = url.path_segments_mut() {
            // A segment's own slashes are escaped: a revision such as `refs/pr/1` is one segment.
            path.pop_if_empty().extend(wanted.repo.split('/')).push("resolve").push(wanted.revision);
            path.extend(wanted.file.split('/'));
        }
        url
    }

    /// Asks what the file is. With a cached file in hand one try is enough, and so it is where the hub was in trouble
    /// a moment ago.
    pub(super) async fn metadata(
        &self,
        wanted: &Wanted<'_>,
        cached: bool,
        cancel: &CancelToken,
    ) -> Answer<Metadata> {
        let mut tries = 1;
        loop {
            match self.ask(wanted, cancel).await {
                Err(failure) => self.before_the_next_try(failure, &mut tries, cached, cancel).await?,
                answer => return answer,
            }
        }
    }

    /// What the hub's API says of a repository, as JSON. `cached`: the cache may stand in for it.
    pub(super) async fn repository(
        &self,
        repo: &str,
        revision: &str,
        cached: bool,
        cancel: &CancelToken,
    ) -> Answer<Vec<u8>> {
        let about =
            About { what: format!("the list of files of `{repo}` (revision `{revision}`)"), repo, revision };
        let mut url = self.settings.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "models"]).extend(repo.split('/')).push("revision").push(revision);
        }
        let mut tries = 1;
        loop {
            match self.read(&about, &url, cancel).await {
                Err(failure) => self.before_the_next_try(failure, &mut tries, cached, cancel).await?,
                answer => return answer,
            }
        }
    }

    /// A whole body, which may not be long.
    async fn read(&self, about: &About<'_>, url: &Url, cancel: &CancelToken) -> Answer<Vec<u8>> {
        let mut response = self.send(Method::GET, url.clone(), about, None, cancel).await?;
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, cancel).await? {
            body.extend_from_slice(chunk.as_ref());
            if body.len() > MAX_LISTING_BYTES {
                return Err(Failure::fatal(Error::download(format!(
                    "{} is longer than {MAX_LISTING_BYTES} bytes; is it a Hugging Face hub, or is a proxy answering \
                     for it?",
                    about.what
                ))));
            }
        }
        Ok(body)
    }

    /// Waits before another try of a request, or returns its failure where there is none. With `cached` one try is
    /// enough.
    async fn before_the_next_try(
        &self,
        failure: Failure,
        tries: &mut u32,
        cached: bool,
        cancel: &CancelToken,
    ) -> Answer<()> {
        let Some(after) = failure.retry.filter(|_| !cached && !self.in_trouble && *tries < MAX_TRIES) else {
            return Err(failure);
        };
        if *tries == 1 {
            tracing::warn!(error = %failure.error, "the hub does not answer; retrying");
        }
        self.pause(*tries, after, cancel).await.map_err(Failure::fatal)?;
        *tries += 1;
        Ok(())
    }

    async fn ask(&self, wanted: &Wanted<'_>, cancel: &CancelToken) -> Answer<Metadata> {
        let response = self.send(Method::HEAD, self.url(wanted), &wanted.into(), None, cancel).await?;
        let headers = response.headers();
        let missing = |what: &str| {
            Failure::fatal(Error::download(format!(
                "{} did not give the {what} of {wanted}; is it a Hugging Face hub, or is a proxy answering for it?",
                redacted(self.settings.endpoint.as_str())
            )))
        };
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).map(unquoted);
        let commit = text(headers, "x-repo-commit");
        let size = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
        Ok(Metadata {
            // Both become names in the cache, so what the server says is checked like a path from anywhere.
            etag: etag.filter(|etag| is_component(etag)).ok_or_else(|| missing("ETag"))?.to_owned(),
            commit: commit.filter(|commit| is_component(commit)).ok_or_else(|| missing("commit"))?.to_owned(),
            size: size.and_then(|size| size.parse().ok()).ok_or_else(|| missing("size"))?,
        })
    }

    /// Asks for the file's bytes from `start` on. The answer's status is 200 or 206.
    pub(super) async fn body(&self, wanted: &Wanted<'_>, start: u64, cancel: &CancelToken) -> Answer<Response> {
        self.send(Method::GET, self.url(wanted), &wanted.into(), Some(start), cancel).await
    }

    /// Sends a request and follows redirects. The token goes to the hub itself and to no other origin. A `HEAD` stops
    /// at the first answer that says what the file is: the storage servers behind it do not.
    async fn send(
        &self,
        method: Method,
        mut url: Url,
        about: &About<'_>,
        start: Option<u64>,
        cancel: &CancelToken,
    ) -> Answer<Response> {
        let Some(client) = &self.client else {
            return Err(Failure::fatal(Error::download("there is no connection to the hub")));
        };
        for _ in 0..=MAX_REDIRECTS {
            let mut request =
                client.request(method.clone(), url.clone()).header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = &self.settings.token
                && url.origin() == self.settings.endpoint.origin()
            {
                request = request.bearer_auth(token);
            }
            if let Some(start) = start.filter(|start| *start > 0) {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let response = match wait(request.send(), self.settings.timeout, cancel).await {
                Err(cancelled) => return Err(Failure::fatal(cancelled)),
                Ok(None) => return Err(self.silent(&url)),
                Ok(Some(Err(error))) => return Err(unreachable_hub(&url, error)),
                Ok(Some(Ok(response))) => response,
            };
            let status = response.status();
            if status.is_redirection() {
                let headers = response.headers();
                let described = headers.contains_key("x-repo-commit") && headers.contains_key("x-linked-etag");
                if method == Method::HEAD && described {
                    return Ok(response);
                }
                // Some servers write letters outside ASCII as they are, which `to_str` does not take.
                let location =
                    headers.get("location").and_then(|location| std::str::from_utf8(location.as_bytes()).ok());
                url = match location.and_then(|location| url.join(location).ok()) {
                    Some(next) => next,
                    None => return Err(Failure::transient(format!("{} redirected to nowhere", host(&url)))),
                };
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            return Err(self.refused(about, &url, &response));
        }
        Err(Failure::fatal(Error::download(format!(
            "{}: more than {MAX_REDIRECTS} redirects; check the endpoint and your proxy",
            about.what
        ))))
    }

    fn silent(&self, url: &Url) -> Failure {
        let (host, timeout) = (host(url), self.settings.timeout);
        Failure::transient(format!("{host} did not respond for {timeout:?}; {NEXT_STEPS}"))
    }

    /// What an answer that is neither the file nor a way to it means.
    fn refused(&self, about: &About<'_>, url: &Url, response: &Response) -> Failure {
        let status = response.status();
        let code = text(response.headers(), "x-error-code");
        let said =
            text(response.headers(), "x-error-message").map(|message| format!(" It says: {}", redacted(message)));
        let said = said.unwrap_or_default();
        // Only the hub itself speaks about repositories; a 403 of the storage behind it is an expired address.
        let from_hub = url.origin() == self.settings.endpoint.origin();
        let About { what, repo, revision } = about;
        let endpoint = redacted(self.settings.endpoint.as_str());
        let endpoint = endpoint.trim_end_matches('/');
        match (status, code) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if from_hub => {
                let how = if self.settings.token.is_some() {
                    "The token that was sent may not read it: check that it is valid and that its account has access,"
                } else {
                    "No token was sent: give one as the token option, in HF_TOKEN, or by `hf auth login`,"
                };
                Failure {
                    cache_will_do: true,
                    ..Failure::fatal(Error::download(format!(
                        "the hub refused {what} ({status}): the repository is gated, private, or does not exist. \
                         {how} and accept the conditions, if there are any, at {endpoint}/{repo}.{said}"
                    )))
                }
            }
            (StatusCode::NOT_FOUND, Some("RepoNotFound")) => Failure::fatal(Error::download(format!(
                "the hub has no repository `{repo}` (asked for {what} at {endpoint}); check its owner and name"
            ))),
            (StatusCode::NOT_FOUND, Some("RevisionNotFound")) => Failure::fatal(Error::download(format!(
                "`{repo}` has no revision `{revision}` (asked for {what}); its branches and tags are listed at \
                 {endpoint}/{repo}/tree/main"
            ))),
            (StatusCode::NOT_FOUND, _) => Failure {
                lacks_file: true,
                ..Failure::fatal(Error::download(format!(
                    "the hub has no {what}; the repository's files are listed at {endpoint}/{repo}/tree/{revision}"
                )))
            },
            _ => {
                let after = text(response.headers(), "retry-after").and_then(|seconds| seconds.parse().ok());
                let again = status.is_server_error()
                    || matches!(status.as_u16(), 408 | 416 | 429)
                    || (!from_hub && status == StatusCode::FORBIDDEN);
                let error = Error::download(format!("{} answered {status} for {what}.{said}", host(url)));
                Failure {
                    error,
                    retry: again.then(|| Duration::from_secs(after.unwrap_or(0).min(60))),
                    cache_will_do: again,
                    range_refused: status == StatusCode::RANGE_NOT_SATISFIABLE,
                    lacks_file: false,
                }
            }
        }
    }

    /// The next piece of a body, or `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        cancel: &CancelToken,
    ) -> Answer<Option<impl AsRef<[u8]>>> {
        let url = response.url().clone();
        match wait(response.chunk(), self.settings.timeout, cancel).await {
            Err(cancelled) => Err(Failure::fatal(cancelled)),
            Ok(None) => Err(self.silent(&url)),
            Ok(Some(Ok(chunk))) => Ok(chunk),
            Ok(Some(Err(error))) => {
                Err(Failure::transient(format!("the connection to {} was lost: {}", host(&url), chain(&error))))
            }
        }
    }

    /// Waits before try number `tries + 1`.
    pub(super) async fn pause(&self, tries: u32, at_least: Duration, cancel: &CancelToken) -> Result<()> {
        let delay = self.settings.retry_delay.saturating_mul(1 << tries.saturating_sub(1).min(6)).max(at_least);
        wait(std::future::pending::<()>(), delay, cancel).await.map(|_| ())
    }
}

/// Waits for `future` for at most `limit` (then `None`), and notices a cancel within a tick.
async fn wait<F: Future>(future: F, limit: Duration, cancel: &CancelToken) -> Result<Option<F::Output>> {
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        cancel.check()?;
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        if let Ok(output) = tokio::time::timeout(TICK.min(left), future.as_mut()).await {
            return Ok(Some(output));
        }
    }
}

/// Runs a future to its end on this thread, or on one of its own where this one already drives a runtime: there a
/// second one would panic.
pub(super) fn block_on<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Error::download(format!("could not start the network's event loop: {error}")).with_source(error)
    })?;
    let result = if tokio::runtime::Handle::try_current().is_ok() {
        std::thread::scope(|scope| match scope.spawn(|| runtime.block_on(future)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    } else {
        runtime.block_on(future)
    };
    // A look-up of a name that hangs in the system's resolver must not hold up a cancel.
    runtime.shutdown_background();
    result
}

/// What helps where nobody answers.
const NEXT_STEPS: &str = "check the network and the proxy (HTTPS_PROXY), name a mirror with HF_ENDPOINT, or fetch the \
                          file on another machine and load it by its path";

fn unreachable_hub(url: &Url, error: reqwest::Error) -> Failure {
    let message = format!("could not reach {}: {}; {NEXT_STEPS}", host(url), chain(&error));
    // A redirect from https to http, for one, is refused by the client and stays refused.
    let hopeless = error.is_builder() || error.is_redirect();
    let retry = (!hopeless).then_some(Duration::ZERO);
    let error = Error::download(message).with_source(error.without_url());
    Failure { retry, cache_will_do: true, ..Failure::fatal(error) }
}

/// An error with its causes. The address is left out: after a redirect it is signed and hundreds of letters long. A
/// cause may name the address of a proxy with its password.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    redacted(&if causes.is_empty() { error.to_string() } else { causes.join(": ") })
}

fn host(url: &Url) -> impl fmt::Display {
    format!(
        "{}{}",
        url.host_str().unwrap_or("the hub"),
        url.port().map(|port| format!(":{port}")).unwrap_or_default()
    )
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn unquoted(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}
