//! The calls of libc that change files, each with its record.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    time::Duration,
};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::record::{Kind, Recorder, path_at, path_of, recorder};

/// What a slow sync takes longer.
const SLOW: Duration = Duration::from_millis(2);

fn fail(error: c_int) {
    // SAFETY: the location of errno is valid for the thread that asks.
    unsafe { *libc::__errno_location() = error };
}

fn exists(path: &[u8]) -> bool {
    let path = [path, b"\0"].concat();
    // SAFETY: the path ends with a zero byte.
    unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::F_OK) == 0 }
}

fn length(fd: c_int) -> u64 {
    // SAFETY: a zeroed stat is a valid one to overwrite.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: it is valid for the call.
    unsafe { libc::fstat(fd, &raw mut stat) };
    u64::try_from(stat.st_size).unwrap_or(0)
}

unsafe fn open_at(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the arguments are those of the caller.
    let open =
        || unsafe { libc::syscall(libc::SYS_openat, folder, path, flags | libc::O_LARGEFILE, mode) } as c_int;
    let Some(recorder) = recorder() else { return open() };
    // SAFETY: it ends with a zero byte, as the caller of open owes.
    let whole = unsafe { path_at(folder, path) };
    let Some(whole) = whole.filter(|whole| recorder.inside(whole).is_some()) else { return open() };
    let is_new = flags & libc::O_CREAT != 0 && !exists(&whole);
    let fd = open();
    if let (true, Some(inside)) = (fd >= 0, recorder.inside(&whole)) {
        if is_new {
            recorder.entry(Kind::Create, inside, 0, &[]);
        } else if flags & libc::O_TRUNC != 0 {
            recorder.entry(Kind::SetLength, inside, 0, &[]);
        }
        if flags & libc::O_TMPFILE == libc::O_TMPFILE {
            recorder.entry(Kind::Unsupported, inside, 0, b"O_TMPFILE");
        }
    }
    fd
}

/// The data at an offset, or where the file stands.
unsafe fn write_at(fd: c_int, data: *const c_void, bytes: size_t, at: Option<off_t>) -> ssize_t {
    let write = |bytes: size_t| match at {
        // SAFETY: the arguments are those of the caller.
        None => (unsafe { libc::syscall(libc::SYS_write, fd, data, bytes) }) as ssize_t,
        // SAFETY: the arguments are those of the caller.
        Some(at) => (unsafe { libc::syscall(libc::SYS_pwrite64, fd, data, bytes, at) }) as ssize_t,
    };
    let Some(mut recorder) = recorder() else { return write(bytes) };
    let Some(path) = path_of(fd) else { return write(bytes) };
    if recorder.is_acks(&path) {
        // SAFETY: the caller says that so many bytes are there.
        let data = unsafe { std::slice::from_raw_parts(data.cast(), bytes) };
        recorder.entry(Kind::Acknowledge, &[], 0, data);
        return write(bytes);
    }
    if recorder.inside(&path).is_none() {
        return write(bytes);
    }
    let Some(bytes) = recorder.grant(bytes) else {
        fail(libc::ENOSPC);
        return -1;
    };
    // SAFETY: these calls take no pointer.
    let (flags, place) = unsafe {
        (
            libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFL),
            libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR),
        )
    };
    let appends = flags as c_int & libc::O_APPEND != 0;
    let place = if appends { length(fd) } else { u64::try_from(at.unwrap_or(place)).unwrap_or(0) };
    let written = write(bytes);
    if let (Ok(written), Some(inside)) = (usize::try_from(written), recorder.inside(&path)) {
        // SAFETY: the caller says that so many bytes are there.
        let data = unsafe { std::slice::from_raw_parts(data.cast(), written) };
        recorder.entry(Kind::Write, inside, place, data);
    }
    written
}

/// Piece by piece: what is written may be less than what was asked, as for any write.
unsafe fn write_pieces(fd: c_int, pieces: *const iovec, count: c_int, mut at: Option<off_t>) -> ssize_t {
    // SAFETY: the caller says that so many pieces are there.
    let pieces = unsafe { std::slice::from_raw_parts(pieces, usize::try_from(count).unwrap_or(0)) };
    let mut total = 0;
    for piece in pieces {
        // SAFETY: a piece says where its bytes are.
        let written = unsafe { write_at(fd, piece.iov_base, piece.iov_len, at) };
        if written < 0 {
            return if total > 0 { total } else { written };
        }
        total += written;
        at = at.map(|at| at + written as off_t);
        if (written as size_t) < piece.iov_len {
            break;
        }
    }
    total
}

fn sync(fd: c_int, call: libc::c_long) -> c_int {
    // SAFETY: these calls take no pointer.
    let sync = || unsafe { libc::syscall(call, fd) } as c_int;
    let begin = |recorder: &mut Recorder| {
        let path = path_of(fd)?;
        let inside = recorder.inside(&path)?.to_vec();
        if recorder.fails_sync(&inside) {
            fail(libc::EIO);
            return Some((inside, None, true));
        }
        let number = recorder.begin_sync(&inside);
        Some((inside, number, false))
    };
    let begun = recorder().and_then(|mut recorder| begin(&mut recorder));
    let Some((inside, number, fails)) = begun else { return sync() };
    if fails {
        return -1;
    }
    let done = sync();
    if recorder().is_some_and(|recorder| recorder.slows_sync(&inside)) {
        std::thread::sleep(SLOW);
    }
    if let (0, Some(number), Some(recorder)) = (done, number, recorder()) {
        recorder.entry(Kind::SyncEnd, &inside, number, &[]);
    }
    done
}

/// A call on one path, recorded if it succeeds.
unsafe fn on_path(folder: c_int, path: *const c_char, kind: Kind, call: impl FnOnce() -> c_int) -> c_int {
    let Some(recorder) = recorder() else { return call() };
    // SAFETY: it ends with a zero byte, as the caller owes.
    let whole = unsafe { path_at(folder, path) };
    let done = call();
    if let (0, Some(inside)) = (done, whole.as_deref().and_then(|whole| recorder.inside(whole))) {
        recorder.entry(kind, inside, 0, &[]);
    }
    done
}

unsafe fn rename_at(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: the arguments are those of the caller.
    let rename = || unsafe { libc::syscall(libc::SYS_renameat2, from, old, to, new, flags) } as c_int;
    let Some(recorder) = recorder() else { return rename() };
    // SAFETY: both end with a zero byte, as the caller owes.
    let (old, new) = unsafe { (path_at(from, old), path_at(to, new)) };
    let done = rename();
    if let (0, Some(old), Some(new)) = (done, old, new) {
        match (recorder.inside(&old), recorder.inside(&new)) {
            (Some(old), Some(new)) => recorder.entry(Kind::Rename, old, 0, new),
            (None, None) => {}
            (Some(path), None) | (None, Some(path)) => recorder.entry(Kind::Unsupported, path, 0, b"rename"),
        }
    }
    done
}

fn set_length(fd: c_int, length: off_t) -> c_int {
    // SAFETY: the call takes no pointer.
    let set = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) } as c_int;
    let (Some(recorder), Some(path)) = (recorder(), path_of(fd)) else { return set() };
    let done = set();
    if let (0, Some(inside)) = (done, recorder.inside(&path)) {
        recorder.entry(Kind::SetLength, inside, u64::try_from(length).unwrap_or(0), &[]);
    }
    done
}

/// Is the file inside? Then the call is noted as one that cannot be recorded.
fn unsupported(fd: c_int, what: &[u8]) -> bool {
    let (Some(recorder), Some(path)) = (recorder(), path_of(fd)) else { return false };
    recorder.inside(&path).is_some_and(|inside| {
        recorder.entry(Kind::Unsupported, inside, 0, what);
        true
    })
}

macro_rules! interpose {
    ($([$($name:ident)+] $arguments:tt -> $result:ty $body:block)+) => {
        $(interpose!(@each [$($name)+] $arguments $result, $body);)+
    };
    (@each [$($name:ident)+] $arguments:tt $result:ty, $body:block) => {
        $(interpose!(@one $name $arguments $result, $body);)+
    };
    (@one $name:ident ($($argument:ident: $type:ty),*) $result:ty, $body:block) => {
        /// # Safety
        /// As for the call of this name in libc.
        // SAFETY: it is meant to stand before libc's.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            // SAFETY: the arguments are those of the caller.
            #[allow(unused_unsafe)]
            unsafe { $body }
        }
    };
}

interpose! {
    [open open64](path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        open_at(libc::AT_FDCWD, path, flags, mode)
    }
    [openat openat64](folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        open_at(folder, path, flags, mode)
    }
    [creat creat64](path: *const c_char, mode: mode_t) -> c_int {
        open_at(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
    }
    [write](fd: c_int, data: *const c_void, bytes: size_t) -> ssize_t {
        write_at(fd, data, bytes, None)
    }
    [pwrite pwrite64](fd: c_int, data: *const c_void, bytes: size_t, at: off_t) -> ssize_t {
        write_at(fd, data, bytes, Some(at))
    }
    [writev](fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
        write_pieces(fd, pieces, count, None)
    }
    [pwritev pwritev64](fd: c_int, pieces: *const iovec, count: c_int, at: off_t) -> ssize_t {
        write_pieces(fd, pieces, count, Some(at))
    }
    [fsync](fd: c_int) -> c_int {
        sync(fd, libc::SYS_fsync)
    }
    [fdatasync](fd: c_int) -> c_int {
        sync(fd, libc::SYS_fdatasync)
    }
    [ftruncate ftruncate64](fd: c_int, length: off_t) -> c_int {
        set_length(fd, length)
    }
    [fallocate fallocate64](fd: c_int, mode: c_int, at: off_t, bytes: off_t) -> c_int {
        unsupported(fd, b"fallocate");
        libc::syscall(libc::SYS_fallocate, fd, mode, at, bytes) as c_int
    }
    [rename](old: *const c_char, new: *const c_char) -> c_int {
        rename_at(libc::AT_FDCWD, old, libc::AT_FDCWD, new, 0)
    }
    [renameat](from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int {
        rename_at(from, old, to, new, 0)
    }
    [renameat2](from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
        rename_at(from, old, to, new, flags)
    }
    [link](old: *const c_char, new: *const c_char) -> c_int {
        on_path(libc::AT_FDCWD, new, Kind::Unsupported, || {
            libc::syscall(libc::SYS_linkat, libc::AT_FDCWD, old, libc::AT_FDCWD, new, 0) as c_int
        })
    }
    [linkat](from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_int) -> c_int {
        on_path(to, new, Kind::Unsupported, || libc::syscall(libc::SYS_linkat, from, old, to, new, flags) as c_int)
    }
    [unlink](path: *const c_char) -> c_int {
        unlinkat(libc::AT_FDCWD, path, 0)
    }
    [rmdir](path: *const c_char) -> c_int {
        unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
    }
    [unlinkat](folder: c_int, path: *const c_char, flags: c_int) -> c_int {
        on_path(folder, path, Kind::Remove, || libc::syscall(libc::SYS_unlinkat, folder, path, flags) as c_int)
    }
    [mkdir](path: *const c_char, mode: mode_t) -> c_int {
        mkdirat(libc::AT_FDCWD, path, mode)
    }
    [mkdirat](folder: c_int, path: *const c_char, mode: mode_t) -> c_int {
        on_path(folder, path, Kind::MakeFolder, || libc::syscall(libc::SYS_mkdirat, folder, path, mode) as c_int)
    }
    [mmap mmap64](at: *mut c_void, bytes: size_t, access: c_int, flags: c_int, fd: c_int, from: off_t) -> *mut c_void {
        // The loader maps files before there is anything to record with.
        if fd >= 0 && flags & libc::MAP_SHARED != 0 && access & libc::PROT_WRITE != 0 {
            unsupported(fd, b"mmap");
        }
        libc::syscall(libc::SYS_mmap, at, bytes, access, flags, fd, from) as *mut c_void
    }
    [copy_file_range](from: c_int, at: *mut off_t, to: c_int, to_at: *mut off_t, bytes: size_t, flags: c_uint) -> ssize_t {
        unsupported(to, b"copy_file_range");
        libc::syscall(libc::SYS_copy_file_range, from, at, to, to_at, bytes, flags) as ssize_t
    }
    [sendfile sendfile64](to: c_int, from: c_int, at: *mut off_t, bytes: size_t) -> ssize_t {
        unsupported(to, b"sendfile");
        libc::syscall(libc::SYS_sendfile, to, from, at, bytes) as ssize_t
    }
    [sync_file_range](fd: c_int, at: off_t, bytes: off_t, flags: c_uint) -> c_int {
        // It promises nothing after a power loss, and so is not in the record.
        libc::syscall(libc::SYS_sync_file_range, fd, at, bytes, flags) as c_int
    }
}
