//! What is read and written through a caller's pointers.
//!
//! All of it checks for NULL and for alignment. That a pointer that passes points to what the caller says is what the
//! caller promises, and nothing can check it.

use std::ptr;

use crate::status::{Fault, Result};

/// How much a struct of a newer version may be larger; a size beyond is no size but memory that was never written.
const MOST_NEW_BYTES: usize = 4096;

fn check<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Fault::argument(format!("{name} must not be NULL")));
    }
    if !pointer.is_aligned() {
        let expected = align_of::<T>();
        return Err(Fault::argument(format!("{name} must be aligned to {expected} bytes, got {pointer:p}")));
    }
    Ok(())
}

/// What a pointer points to.
///
/// # Safety
/// It is NULL, or points to a `T` that lives for `'a` and that nobody writes to meanwhile.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    check(pointer, name)?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    Ok(unsafe { &*pointer })
}

/// `len` values; where there are none, the pointer may be NULL.
///
/// # Safety
/// It is NULL, or points to `len` values that live for `'a` and that nobody writes to meanwhile.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check(pointer, name)?;
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Fault::argument(format!("{name} must have a length that fits into memory, got {len}")));
    }
    // SAFETY: not NULL, aligned and of a possible length; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Where a call writes its result. It is empty until then, so that a call that fails leaves nothing to free.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// Writes `empty` there.
    ///
    /// # Safety
    /// The pointer is NULL, or one to write a `T` to until the end of the call.
    pub(crate) unsafe fn new(pointer: *mut T, empty: T, name: &str) -> Result<Self> {
        check(pointer, name)?;
        // SAFETY: not NULL and aligned; the rest is the caller's promise. What was there is not dropped: it may be anything.
        unsafe { pointer.write(empty) };
        Ok(Self(pointer))
    }

    /// The same where NULL says that nobody wants the result.
    ///
    /// # Safety
    /// As for [`new`](Self::new).
    pub(crate) unsafe fn wanted(pointer: *mut T, empty: T, name: &str) -> Result<Option<Self>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        unsafe { Self::new(pointer, empty, name) }.map(Some)
    }

    pub(crate) fn put(self, value: T) {
        // SAFETY: `new` was promised a pointer to write to until the end of the call.
        unsafe { self.0.write(value) };
    }
}

/// A struct that may get more fields at its end. Who calls says how large it was in their header.
///
/// # Safety
/// `repr(C)`, without padding at its end, and any bytes are a value of it.
pub(crate) unsafe trait Grows: Copy {
    /// Its size in the first version that had it. When a field is added, this becomes the offset of that field.
    const FIRST_SIZE: usize = size_of::<Self>();

    fn check_size(size: usize, name: &str) -> Result<()> {
        let (least, most) = (Self::FIRST_SIZE, size_of::<Self>() + MOST_NEW_BYTES);
        if (least..=most).contains(&size) {
            return Ok(());
        }
        Err(Fault::argument(format!(
            "{name} must begin with its size, {} bytes in this version, got {size}",
            size_of::<Self>()
        )))
    }
}

/// Writes as much of a struct as a caller's one of `size` bytes has room for, and zeros behind it.
///
/// # Safety
/// The pointer is NULL, or one to write `size` bytes to.
pub(crate) unsafe fn init<T: Grows>(value: T, pointer: *mut T, size: usize) {
    if pointer.is_null() || !pointer.is_aligned() {
        return;
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller promises `size` bytes, and `value` has `known`.
    unsafe {
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), pointer.cast(), known);
        pointer.cast::<u8>().add(known).write_bytes(0, size - known);
    }
}

/// The options of a caller: a struct that begins with its size. NULL are the default ones.
///
/// Fields that the caller's header does not have keep their defaults; those that only a newer header has must be zero, since
/// what they ask for would not be done.
///
/// # Safety
/// `T` begins with its size as a `usize`. The pointer is NULL, or points to as many bytes as the size there says.
pub(crate) unsafe fn options<T: Grows>(pointer: *const T, default: T, name: &str) -> Result<T> {
    if pointer.is_null() {
        return Ok(default);
    }
    check(pointer, name)?;
    // SAFETY: it begins with its size, by the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read() };
    T::check_size(size, name)?;
    let known = size.min(size_of::<T>());
    // SAFETY: the caller promises `size` bytes.
    let new = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
    if new.iter().any(|byte| *byte != 0) {
        return Err(Fault::argument(format!(
            "{name} must have only fields that the library knows, the first {known} bytes, got {size} bytes with a later field \
             set: the header is newer than the library; update the library, or leave the field at 0"
        )));
    }
    let mut read = default;
    // SAFETY: both have `known` bytes, and any bytes are a `T`.
    unsafe { ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut read).cast(), known) };
    Ok(read)
}

/// The same for a result, with a size that some version has.
///
/// # Safety
/// The pointer is NULL, or one to write `size` bytes to.
pub(crate) unsafe fn write_sized<T: Grows>(value: T, pointer: *mut T, size: usize, name: &str) -> Result<()> {
    check(pointer, name)?;
    T::check_size(size, name)?;
    // SAFETY: the caller's promise.
    unsafe { init(value, pointer, size) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Old {
        size: usize,
        first: u64,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct New {
        size: usize,
        first: u64,
        second: u64,
    }

    // SAFETY: integers without padding.
    unsafe impl Grows for Old {}
    // SAFETY: as above.
    unsafe impl Grows for New {
        const FIRST_SIZE: usize = std::mem::offset_of!(Self, second);
    }

    const DEFAULT: New = New { size: 0, first: 1, second: 2 };

    #[test]
    fn what_an_older_header_does_not_have_keeps_its_default() {
        let old = Old { size: size_of::<Old>(), first: 7 };
        // SAFETY: it has as many bytes as it says.
        let read = unsafe { options((&raw const old).cast::<New>(), DEFAULT, "options") }.unwrap();
        assert_eq!((read.first, read.second), (7, 2));
    }

    #[test]
    fn what_only_a_newer_header_has_may_not_be_asked_for() {
        let default = Old { size: 0, first: 1 };
        let read = |second| {
            let new = New { size: size_of::<New>(), first: 7, second };
            // SAFETY: it has as many bytes as it says.
            unsafe { options((&raw const new).cast::<Old>(), default, "options") }
        };
        assert_eq!(read(0).unwrap().first, 7);
        let refused = format!("{:?}", read(1).unwrap_err());
        for size in [size_of::<Old>(), size_of::<New>()] {
            assert!(refused.contains(&size.to_string()), "{refused}");
        }
    }

    #[test]
    fn a_size_that_no_version_has_is_refused() {
        for size in [0, 8, 15, usize::MAX] {
            let old = Old { size, first: 7 };
            // SAFETY: nothing is read behind a size that is refused.
            assert!(unsafe { options((&raw const old).cast::<New>(), DEFAULT, "options") }.is_err(), "{size}");
        }
    }

    #[test]
    fn a_result_is_cut_to_an_older_struct_and_filled_up_for_a_newer_one() {
        let mut old = Old { size: 9, first: 9 };
        // SAFETY: the size is that of what is written to.
        unsafe { write_sized(DEFAULT, (&raw mut old).cast::<New>(), size_of::<Old>(), "info") }.unwrap();
        assert_eq!(old, Old { size: 0, first: 1 });
        let mut new = New { size: 9, first: 9, second: 9 };
        // SAFETY: as above.
        unsafe { write_sized(old, (&raw mut new).cast::<Old>(), size_of::<New>(), "info") }.unwrap();
        assert_eq!(new, New { size: 0, first: 1, second: 0 });
    }
}
