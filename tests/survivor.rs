//! A server that must outlive what a test sends it, and a session in it that must go on.
//!
//! Used by `frames` and `protocol`.

use crate::{
    server::{Login, Server},
    wire::{Wire, kinds},
};

/// A server with a session that must survive, as tenant `dev` with the token as password.
pub struct Survivor {
    pub server: Server,
    pub login: Login,
    pub session: Wire,
    pid: u32,
}

impl Survivor {
    pub fn new() -> Survivor {
        Survivor::with(&[])
    }

    pub fn with(flags: &[&str]) -> Survivor {
        let server = Server::start_with(flags);
        let login = server.login().user("dev");
        let session = Wire::log_in(&login);
        let pid = server.pid();
        Survivor { server, login, session, pid }
    }

    /// The same for a static and without TLS.
    pub fn plaintext() -> Survivor {
        let Survivor { server, login, session, pid } = Survivor::with(&["--insecure-plaintext"]);
        Survivor { server: server.for_a_static(), login: login.plaintext(), session, pid }
    }

    pub fn log_in(&self) -> Wire {
        Wire::log_in(&self.login)
    }

    /// The old session goes on, and so does a new one, in the same process.
    pub fn check(&mut self, after: &str) {
        assert!(self.server.is_running(), "the server ended after {after}:\n{}", self.server.log());
        assert_eq!(self.server.pid(), self.pid);
        assert_eq!(kinds(&self.session.query("SELECT 1")), "T D C Z", "the old session after {after}");
        assert_eq!(kinds(&self.log_in().query("SELECT 1")), "T D C Z", "a new session after {after}");
    }
}
