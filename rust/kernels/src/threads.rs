//! Threads that share the work of a forward pass.
//!
//! A pass is a run of jobs, each cut into parts that threads claim one by one: each its own run of them from the front, so
//! that what it reads goes on where it was, and then what others have left, from behind. The thread that runs the pass
//! never waits for one that the system has put aside: it computes what is missing itself, and whichever result comes first
//! stays. Parts are functions of data that they own a share of, so that a late one harms nothing. Which thread computes a
//! part does not change it; results are the same for any number of threads.
//!
//! The helping threads are rayon's. They sleep between passes, and a pool is shared by all passes that want as many
//! threads: two at once get no more threads than one, and the one that comes second begins alone.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread looks for the next job before it sleeps: longer than what stands between two jobs, and too short to
/// matter.
const LOOKING: Duration = Duration::from_micros(50);
/// The least time that others get to finish the parts that they claimed.
const GRACE: Duration = Duration::from_micros(20);

/// How many threads compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    count: usize,
}

impl Threads {
    /// More would spend their time on each other, and a process can have only so many.
    pub const MOST: usize = 1024;

    /// `count` threads, the calling one included; at least that one, and no more than [`MOST`](Self::MOST).
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { count: count.clamp(1, Self::MOST) }
    }

    /// As many as there are cores that this process may use: those of its affinity mask, and no more than its control
    /// group's quota, rounded up.
    #[must_use]
    pub fn default_count() -> usize {
        num_cpus::get()
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> usize {
        self.count
    }

    /// Begins a pass; the helping threads work for it until it is dropped.
    #[must_use]
    pub fn pass(self) -> Pass {
        let board = Arc::new(Board::default());
        if let Some(pool) = helpers(self.count - 1) {
            for thread in 1..self.count {
                let board = Arc::clone(&board);
                pool.spawn(move || board.help(thread));
            }
        }
        Pass { board, threads: self.count }
    }
}

/// A run of jobs that helping threads take part in.
#[derive(Debug)]
pub struct Pass {
    board: Arc<Board>,
    threads: usize,
}

impl Pass {
    /// Computes `part(0)` to `part(count - 1)`. A part may be computed twice, and must come out the same.
    pub fn map<T, F>(&self, count: usize, part: F) -> Parts<T>
    where
        T: Send + Sync + 'static,
        F: Fn(usize) -> T + Send + Sync + 'static,
    {
        let results: Arc<[OnceLock<T>]> = (0..count).map(|_| OnceLock::new()).collect();
        let claims = Claims::new(count, self.threads);
        let job = Job { part, results: Arc::clone(&results), claims, done: AtomicUsize::new(0) };
        if count == 1 {
            job.compute(0);
        } else if count > 1 {
            let job = Arc::new(job);
            self.board.post(Some(Arc::clone(&job) as Arc<dyn Work>));
            job.finish();
        }
        Parts { results }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.board.post(None);
    }
}

/// The results of a job's parts, in order.
#[derive(Debug)]
pub struct Parts<T> {
    results: Arc<[OnceLock<T>]>,
}

impl<T> FromIterator<T> for Parts<T> {
    /// Results that need no computing.
    fn from_iter<I: IntoIterator<Item = T>>(results: I) -> Self {
        Self { results: results.into_iter().map(OnceLock::from).collect() }
    }
}

impl<T> Clone for Parts<T> {
    fn clone(&self) -> Self {
        Self { results: Arc::clone(&self.results) }
    }
}

impl<T> Parts<T> {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// The result of part `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.results.get(index).and_then(OnceLock::get)
    }

    /// All results.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.results.iter().filter_map(OnceLock::get)
    }
}

/// What is left of each thread's run of parts.
struct Claims {
    /// The first part that is left in the lower half, and behind the last one in the upper.
    left: Vec<AtomicU64>,
}

impl Claims {
    /// `parts` parts, shared out evenly.
    fn new(parts: usize, threads: usize) -> Self {
        // More than 2³² parts don't fit; what nobody claims, the thread that runs the pass computes.
        let parts = u32::try_from(parts).unwrap_or(u32::MAX) as usize;
        let bound = |thread: usize| (thread * parts / threads) as u64;
        Self { left: (0..threads).map(|thread| AtomicU64::new(bound(thread) | bound(thread + 1) << 32)).collect() }
    }

    /// A part that nobody has claimed yet.
    fn claim(&self, thread: usize) -> Option<usize> {
        let (before, from) = self.left.split_at_checked(thread)?;
        let (own, after) = from.split_first()?;
        let first = |run: Range<u64>| (run.start, run.start + 1..run.end);
        let last = |run: Range<u64>| (run.end - 1, run.start..run.end - 1);
        take(own, first).or_else(|| after.iter().chain(before).find_map(|left| take(left, last)))
    }
}

/// Takes a part out of a run, unless it is empty: `choose` says which, and what is left.
fn take(left: &AtomicU64, choose: impl Fn(Range<u64>) -> (u64, Range<u64>)) -> Option<usize> {
    let run = |bits: u64| bits & u64::from(u32::MAX)..bits >> 32;
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
        let run = run(bits);
        (!run.is_empty()).then(|| choose(run).1).map(|run| run.start | run.end << 32)
    });
    taken.ok().map(|bits| choose(run(bits)).0 as usize)
}

trait Work: Send + Sync {
    /// Claims and computes parts until none is left.
    fn work(&self, thread: usize);
}

struct Job<T, F> {
    part: F,
    results: Arc<[OnceLock<T>]>,
    claims: Claims,
    done: AtomicUsize,
}

impl<T: Send + Sync, F: Fn(usize) -> T + Send + Sync> Job<T, F> {
    /// Computes a part, unless it is there.
    fn compute(&self, index: usize) {
        if let Some(result) = self.results.get(index)
            && result.get().is_none()
            && result.set((self.part)(index)).is_ok()
        {
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) == self.results.len()
    }

    /// Works, gives others the time that a part takes, and then computes what they still owe.
    fn finish(&self) {
        let started = Instant::now();
        self.work(0);
        let worked = started.elapsed();
        let average = worked / u32::try_from(self.results.len()).unwrap_or(u32::MAX).max(1);
        let deadline = worked + (4 * average).max(GRACE);
        while !self.is_done() {
            if started.elapsed() > deadline {
                for index in 0..self.results.len() {
                    self.compute(index);
                }
                return;
            }
            std::hint::spin_loop();
        }
    }
}

impl<T: Send + Sync, F: Fn(usize) -> T + Send + Sync> Work for Job<T, F> {
    fn work(&self, thread: usize) {
        while let Some(index) = self.claims.claim(thread) {
            self.compute(index);
        }
    }
}

/// Where jobs are posted for helping threads.
#[derive(Default)]
struct Board {
    /// Counts what was posted, so that it can be looked for without the lock.
    posted: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The latest job; none when the pass is over.
    job: Option<Arc<dyn Work>>,
    sleeping: usize,
}

/// What a helping thread finds on the board.
enum Posted {
    Job(Arc<dyn Work>),
    End,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("posted", &self.posted).finish_non_exhaustive()
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts a job, or that the pass is over.
    fn post(&self, job: Option<Arc<dyn Work>>) {
        let mut state = self.state();
        state.job = job;
        self.posted.fetch_add(1, Ordering::Release);
        if state.sleeping > 0 {
            self.changed.notify_all();
        }
    }

    /// Works on what is posted until the pass is over.
    fn help(&self, thread: usize) {
        let mut seen = 0;
        while let Posted::Job(job) = self.next(&mut seen) {
            // A part that panics is missing then, and the thread that runs the pass comes upon the panic itself.
            let _ = catch_unwind(AssertUnwindSafe(|| job.work(thread)));
        }
    }

    /// What was posted since `seen`.
    fn next(&self, seen: &mut usize) -> Posted {
        let started = Instant::now();
        while self.posted.load(Ordering::Acquire) == *seen && started.elapsed() < LOOKING {
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        }
        let mut state = self.state();
        while self.posted.load(Ordering::Acquire) == *seen {
            state.sleeping += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
        *seen = self.posted.load(Ordering::Acquire);
        match &state.job {
            Some(job) => Posted::Job(Arc::clone(job)),
            None => Posted::End,
        }
    }
}

/// Pools of helping threads by their number, with the process that started them.
static POOLS: Mutex<Vec<Pool>> = Mutex::new(Vec::new());

struct Pool {
    process: u32,
    count: usize,
    threads: Arc<rayon::ThreadPool>,
}

/// The pool of `count` threads; nothing where none are wanted or can be had, and a pass goes alone.
fn helpers(count: usize) -> Option<Arc<rayon::ThreadPool>> {
    if count == 0 {
        return None;
    }
    // Never waits: a process that was forked while another thread had the lock has it locked for good.
    let mut pools = POOLS.try_lock().ok()?;
    let process = std::process::id();
    if let Some(pool) = pools.iter().find(|pool| pool.process == process && pool.count == count) {
        return Some(Arc::clone(&pool.threads));
    }
    // The threads of a process are not those of one that was forked from it, and can't be joined there.
    for foreign in pools.extract_if(.., |pool| pool.process != process) {
        std::mem::forget(foreign);
    }
    let named = |index| format!("candle-phi-{index}");
    let threads = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(named).build().ok()?);
    pools.push(Pool { process, count, threads: Arc::clone(&threads) });
    Some(threads)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn parts_come_in_order_for_any_number_of_threads() {
        for count in [1, 2, 3, 8] {
            let pass = Threads::new(count).pass();
            for parts in [0, 1, 2, 100] {
                let squares = pass.map(parts, |index| index * index);
                let expected: Vec<_> = (0..parts).map(|index| index * index).collect();
                assert_eq!(squares.iter().copied().collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn each_part_is_claimed_once_and_a_threads_own_come_first_and_in_order() {
        for (parts, threads) in [(0, 1), (1, 3), (7, 3), (24, 2)] {
            let claims = Claims::new(parts, threads);
            let own = threads - 1;
            let claimed: Vec<_> = std::iter::from_fn(|| claims.claim(own)).collect();
            let first = own * parts / threads;
            assert_eq!(claimed[..parts - first], (first..parts).collect::<Vec<_>>());
            let mut sorted = claimed.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..parts).collect::<Vec<_>>());
            assert!((0..threads).all(|thread| claims.claim(thread).is_none()));
        }
    }

    #[test]
    fn a_pass_goes_on_beside_a_thread_that_does_not_come_back() {
        let pass = Threads::new(2).pass();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (caller, held) = (std::thread::current().id(), Mutex::new(held));
        // The helping thread stays in its first part until the end.
        let parts = pass.map(64, move |index| {
            if std::thread::current().id() != caller {
                let _ = held.lock().unwrap().recv();
            }
            index
        });
        assert_eq!(parts.iter().sum::<usize>(), 64 * 63 / 2);
        assert_eq!(pass.map(8, |index| index).iter().sum::<usize>(), 28);
        drop(release);
    }

    #[test]
    fn a_panic_reaches_the_one_who_runs_the_pass() {
        let pass = Threads::new(2).pass();
        let panicked = catch_unwind(AssertUnwindSafe(|| pass.map(16, |index| assert_ne!(index, 7))));
        assert!(panicked.is_err());
        assert_eq!(pass.map(3, |index| index).len(), 3);
    }

    #[test]
    fn passes_at_once_share_their_helpers() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let pass = Threads::new(3).pass();
                    for round in 0..50 {
                        let parts = pass.map(20, move |index| index + round);
                        assert_eq!(parts.iter().sum::<usize>(), 190 + 20 * round);
                    }
                });
            }
        });
        assert_eq!(POOLS.lock().unwrap().iter().filter(|pool| pool.count == 2).count(), 1);
    }
}
