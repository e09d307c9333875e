//! Counts work in unit tests, which hold its growth against that of the input.

#[cfg(not(test))]
pub(super) fn count(_units: usize) {}

#[cfg(test)]
pub(super) use counted::count;

#[cfg(test)]
pub(super) mod counted {
    use std::cell::Cell;

    thread_local! {
        static DONE: Cell<usize> = const { Cell::new(0) };
    }

    pub(in crate::chat) fn count(units: usize) {
        DONE.set(DONE.get() + units);
    }

    /// The units that `work` counts on this thread.
    pub(in crate::chat) fn of(work: impl FnOnce()) -> usize {
        let before = DONE.get();
        work();
        DONE.get() - before
    }
}
