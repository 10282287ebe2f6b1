//! An allocator that puts each buffer between inaccessible pages: a read or write of one byte too many ends the test.
//!
//! `GUARD_PAGES` chooses the side on which a buffer touches its guard page: `end` (the default) or `start`; `off` leaves everything to the
//! system's allocator, for AddressSanitizer and valgrind. New memory is filled with 0xff, so that a float read before it is written is a NaN.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::alloc::{GlobalAlloc, Layout, System};

const VARIABLE: &CStr = c"GUARD_PAGES";

/// Address space for guarded blocks. None of it is handed out twice, so that a freed block stays inaccessible; when it is used up, or when
/// the system has no more mappings, blocks go to the system.
const ARENA: usize = 64 << 30;

struct Guard;

#[global_allocator]
static ALLOCATOR: Guard = Guard;

#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(usize)]
enum Side {
    End = 1,
    Start,
    Off,
}

/// The side that the environment asks for; read once, since a block must be freed as it was made.
fn side() -> Side {
    static SIDE: AtomicUsize = AtomicUsize::new(0);
    match SIDE.load(Relaxed) {
        1 => Side::End,
        2 => Side::Start,
        3 => Side::Off,
        _ => {
            // SAFETY: the name ends with a NUL; nothing in these tests changes the environment.
            let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
            let value = if value.is_null() {
                c""
            } else {
                // SAFETY: `getenv` gave a string that ends with a NUL.
                unsafe { CStr::from_ptr(value) }
            };
            let side = match value.to_bytes() {
                b"" | b"end" => Side::End,
                b"start" => Side::Start,
                b"off" => Side::Off,
                _ => std::process::abort(),
            };
            SIDE.store(side as usize, Relaxed);
            side
        }
    }
}

fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Relaxed) {
        0 => {
            // SAFETY: asks for a constant of the system.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE.store(page, Relaxed);
            page
        }
        page => page,
    }
}

/// The start of the arena; 0 where guards are off or the system gives none.
fn arena() -> usize {
    static START: AtomicUsize = AtomicUsize::new(UNKNOWN);
    const UNKNOWN: usize = usize::MAX;
    let start = START.load(Relaxed);
    if start != UNKNOWN {
        return start;
    }
    if side() == Side::Off {
        START.store(0, Relaxed);
        return 0;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, away from all others.
    let new = unsafe { libc::mmap(core::ptr::null_mut(), ARENA, libc::PROT_NONE, flags, -1, 0) };
    if new == libc::MAP_FAILED {
        std::process::abort();
    }
    match START.compare_exchange(UNKNOWN, new as usize, Relaxed, Relaxed) {
        Ok(_) => new as usize,
        Err(start) => {
            // SAFETY: this thread's mapping, which no one saw.
            unsafe { libc::munmap(new, ARENA) };
            start
        }
    }
}

/// Bytes of the accessible pages of a block.
fn pages(layout: Layout) -> usize {
    layout.pad_to_align().size().next_multiple_of(page())
}

/// A guarded block; `None` where it must come from the system.
fn guarded(layout: Layout) -> Option<*mut u8> {
    static USED: AtomicUsize = AtomicUsize::new(0);
    let (arena, page) = (arena(), page());
    if arena == 0 || layout.align() > page {
        return None;
    }
    let pages = pages(layout);
    let from = USED.fetch_add(pages + page, Relaxed);
    if from + pages + 2 * page > ARENA {
        return None;
    }
    let first = (arena + from + page) as *mut u8;
    // SAFETY: these pages of the arena are this block's alone; the page before them and the page after them stay inaccessible.
    unsafe {
        if libc::mprotect(first.cast(), pages, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return None;
        }
        let offset = if side() == Side::End {
            pages - layout.pad_to_align().size()
        } else {
            0
        };
        let block = first.add(offset);
        block.write_bytes(0xff, layout.size());
        Some(block)
    }
}

// SAFETY: a guarded block is at least as long and as aligned as its layout asks (an alignment divides the page and the padded size) and belongs
// to one caller; other blocks are the system's, and an address tells which is which.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise on `layout`, passed on.
        guarded(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let address = block as usize;
        if arena() == 0 || !(arena()..arena() + ARENA).contains(&address) {
            // SAFETY: the caller's promise on `block` and `layout`, passed on.
            return unsafe { System.dealloc(block, layout) };
        }
        let first = (address / page() * page()) as *mut libc::c_void;
        // SAFETY: the pages of a block that nobody uses any more: its first byte lies in its first page.
        unsafe {
            libc::madvise(first, pages(layout), libc::MADV_DONTNEED);
            libc::mprotect(first, pages(layout), libc::PROT_NONE);
        }
    }
}

/// Runs tests of this binary in a child; whether they passed, and what they printed.
fn child(side: &str, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .env(VARIABLE.to_str().unwrap(), side)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Everything once more, with buffers that start at a guard page.
#[test]
fn nothing_is_read_before_a_buffer() {
    if side() == Side::End {
        let (passed, output) = child("start", &["--test-threads=2"]);
        assert!(passed, "{output}");
    }
}

/// In a child that gets an index: reads one value of a buffer there, which may lie outside.
#[test]
fn the_guard_pages_are_there() {
    if let Ok(at) = std::env::var("GUARD_TEST_INDEX") {
        let at: isize = at.parse().unwrap();
        let buffer = std::hint::black_box(vec![1.0f32; 1024]);
        // SAFETY: there is none where the index lies outside: that read must end the process.
        println!("read {}", unsafe { buffer.as_ptr().offset(at).read_volatile() });
        return;
    }
    if side() == Side::Off {
        println!("skipped: guard pages are turned off");
        return;
    }
    for (side, at, dies) in [
        ("end", 1024, true),
        ("end", 1023, false),
        ("start", -1, true),
        ("start", 0, false),
    ] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "guard::the_guard_pages_are_there", "--nocapture"])
            .env(VARIABLE.to_str().unwrap(), side)
            .env("GUARD_TEST_INDEX", at.to_string())
            .output()
            .unwrap();
        let read = String::from_utf8_lossy(&output.stdout).contains("read 1");
        assert_eq!(
            (output.status.success(), read),
            (!dies, !dies),
            "{side} {at}: {output:?}"
        );
    }
}
