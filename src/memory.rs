//! What the program asks of the memory it runs in, beyond taking and leaving it.

/// Gives pages that nothing is in any more back to the system, as far as the
/// calling thread had them: the allocator holds them for as long as a thread
/// asks for no more memory, which one that has made its tables does not.
pub fn give_back() {
    #[cfg(feature = "mimalloc")]
    // SAFETY: takes no pointer; it returns unused pages, whichever allocator the program has.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// Has the processor fetch a line of memory that is read soon. It reads nothing: any address will do.
#[inline]
pub fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint to the processor; nothing is read, and an address where nothing is does no harm.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
