//! Tells the C library's allocator how to treat large buffers.

/// Buffers of at least so many bytes get pages of their own, which go back to the system when they are freed.
///
/// Without this setting, glibc raises the limit to the size of the largest buffer freed. The frames and windows of a
/// differential, of slightly different sizes and from several threads, then leave holes in its arenas that take up more
/// memory than is saved in system calls: 40 to 60 MiB for a large guest.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 1 << 20;

/// Sets the allocator up. Call it before there are threads.
pub fn set_up() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: it sets a number of the allocator, and nobody else is running yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
