//! A small number for each thread, for the rows of a trace.
//!
//! A thread that ends, or says so before, gives its number back to the next one of the same name: work that is done on a
//! thread of its own each time is one row, and not a thousand.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::thread;

static TRACKS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

struct Row {
    name: String,
    is_used: bool,
}

/// A thread's hold of its row.
struct Track(u32);

thread_local! {
    static TRACK: RefCell<Option<Track>> = const { RefCell::new(None) };
}

/// The number of the calling thread, from 1; 0 for one that is at its end.
pub(super) fn of_this_thread() -> u32 {
    TRACK.try_with(|track| track.borrow_mut().get_or_insert_with(Track::take).0).unwrap_or_default()
}

/// Gives the calling thread's number back. Whoever waits for a thread goes on before what is local to it is dropped.
pub(crate) fn leave() {
    // Dropped after the borrow has ended.
    drop(TRACK.try_with(|track| track.borrow_mut().take()));
}

/// What the calling thread is called.
pub(super) fn name_of_this_thread() -> String {
    thread::current().name().unwrap_or("Python").to_owned()
}

impl Track {
    fn take() -> Self {
        let name = name_of_this_thread();
        let mut rows = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
        let free = rows.iter().position(|row| !row.is_used && row.name == name);
        let index = free.unwrap_or(rows.len());
        match rows.get_mut(index) {
            Some(row) => row.is_used = true,
            None => rows.push(Row { name, is_used: true }),
        }
        Self(index as u32 + 1)
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        let mut rows = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get_mut(self.0 as usize - 1) {
            row.is_used = false;
        }
    }
}
