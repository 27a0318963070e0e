//! TCP keep-alive, so that a client that vanished without a word frees its place and its snapshot.

use std::{io, os::fd::AsRawFd};

use libc::{IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, c_int};
use tokio::net::TcpStream;

/// Probes after 60 s of silence, every 10 s, and gives up after 6: gone within two minutes.
pub fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1)?;
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 60)?;
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 10)?;
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, 6)
}

fn set(socket: &TcpStream, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while `socket` is borrowed; pointer and length describe one `c_int`, which
    // these options take, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
