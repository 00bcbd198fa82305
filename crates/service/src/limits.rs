//! Owns the limits that the operating system puts on this process, and how they are raised.
//!
//! It does not decide how many connections or files a server should use.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of files this process may have open to the most it is allowed to ask for, and
/// returns that number; `None` means no limit.
///
/// The soft limit is 1024 on most systems, for the sake of programs that call `select`. A server
/// has one file for each connection, and another for each blob it sends.
///
/// # Errors
/// The system refused the change; the limit stays as it was.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// Keeps the kernel from backing small allocations with pages of 2 MiB, which would make a small
/// process several times as large.
///
/// # Errors
/// The kernel knows no such switch; nothing changes.
pub fn keep_pages_small() -> io::Result<()> {
    rustix::thread::disable_transparent_huge_pages(true).map_err(io::Error::from)
}

/// Lets all threads share two heaps, in place of eight for each core: threads that wait for disks
/// come and go, and each heap keeps what it once needed. Call it before the first thread starts.
///
/// What is large goes back to the system as soon as it is free. The allocator would take to keeping
/// such pieces in the heaps, where the memory of one run of argon2, 19 MiB, seldom fits into the
/// hole that another left: guessing passwords made a server 155 MiB larger.
pub fn share_heaps() {
    // Buffers for bodies stay in the heaps, and what a few of them need is kept there.
    #[cfg(target_env = "gnu")]
    const LARGE: i32 = 4 << 20;
    #[cfg(target_env = "gnu")]
    const KEPT: i32 = 2 << 20;
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "no safe wrapper of mallopt(3) exists")]
    // SAFETY: sets numbers of the allocator; no memory is passed.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(maximum.unwrap_or(1024).min(256)), maximum }).unwrap();
        assert_eq!(raise_open_files().unwrap(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
        assert_eq!(raise_open_files().unwrap(), maximum, "a second call changes nothing");
    }
}
