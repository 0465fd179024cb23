//! What a packet may not cost: memory, and time that grows with the room.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_sim::crowd::{Crowd, FRAME};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting what this thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_needs_no_memory() {
    let mut crowd = Crowd::new(20, 3);
    let warm = crowd.frames(100);
    warm.into_iter().for_each(|f| assert_eq!(crowd.forward(f), 20 * FRAME));
    let frames = crowd.frames(200);
    let before = COUNT.with(Cell::get);
    for frame in frames {
        assert_eq!(crowd.forward(frame), 20 * FRAME);
    }
    assert_eq!(COUNT.with(Cell::get) - before, 0, "allocations for 2000 packets to 20 subscribers");
    let _seen: Vec<u8> = std::hint::black_box(Vec::with_capacity(10));
    assert!(COUNT.with(Cell::get) > before, "the count counts");
}
