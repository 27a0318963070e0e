//! How many files and sockets this process may open.
//!
//! Asked by `process` at start. The usual soft limit of 1,024 is there for programs that use select(2); a server is
//! meant to raise it to the hard one itself.

use std::io;

use libc::{RLIMIT_NOFILE, rlimit};

/// Raises the soft limit to the hard one. The limit as it is then.
pub fn raise_limit() -> io::Result<usize> {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, writable `rlimit`, which the call fills.
    if unsafe { libc::getrlimit(RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let raised = rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the pointer is to a live `rlimit`, which the call only reads.
    if limit.rlim_cur < limit.rlim_max && unsafe { libc::setrlimit(RLIMIT_NOFILE, &raw const raised) } == 0 {
        limit = raised;
    }
    Ok(usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_once() {
        let raised = raise_limit().unwrap();
        assert!(raised > 0);
        assert_eq!(raise_limit().unwrap(), raised);
    }
}
