//! Plays one case: its sessions, its steps in order, and a transcript of what happened.
//!
//! That a statement waits cannot be seen but by waiting oneself. A step that should wait must still be without an
//! answer after [`GRACE`], and so must all others that wait, after every step: too short a grace can miss that a server
//! did not block, never fail one that did. What should answer has [`PATIENCE`].

use std::{collections::BTreeMap, fmt, ops::ControlFlow, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_postgres::{Client, Error, NoTls, error::SqlState};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    answer::{Answer, Protocol},
    spec::{Action, Case, Expected, Step},
};
use crate::server::{Login, tls_config};

const GRACE: Duration = Duration::from_millis(100);
/// A debug build on two busy cores answers within this, and PostgreSQL finds a deadlock within one second.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a case went, line by line as a spec would write it; lines with `!!` say what was expected instead.
#[derive(Default)]
pub struct Transcript {
    lines: Vec<String>,
    mismatches: usize,
}

impl Transcript {
    pub fn holds(&self) -> bool {
        self.mismatches == 0
    }

    fn say(&mut self, line: impl fmt::Display) {
        self.lines.push(format!("    {line}"));
    }

    fn wrong(&mut self, line: impl fmt::Display) {
        self.lines.push(format!(" !!     {line}"));
        self.mismatches += 1;
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Plays `case` in new sessions, after the file's set-up and its own.
pub async fn run_case(setup: &[String], case: &Case, login: &Login, protocol: Protocol) -> Transcript {
    let mut run = Run { login, sessions: BTreeMap::new(), transcript: Transcript::default() };
    if run.set_up(setup.iter().chain(&case.setup)).await.is_break() {
        return run.transcript;
    }
    for name in case.sessions() {
        let client = match login.connect().await {
            Ok(client) => Arc::new(client),
            Err(error) => {
                run.transcript.wrong(format!("{name} cannot connect: {}", told(&error)));
                return run.transcript;
            }
        };
        run.sessions.insert(name, Session { client: Some(client), protocol, pending: None });
    }
    for step in &case.steps {
        if run.step(step).await.is_break() {
            run.transcript.say("(the rest was not played)");
            break;
        }
    }
    run.end().await;
    run.transcript
}

/// One connection. `client` is gone after `\disconnect`; `pending` is the statement without an answer.
struct Session {
    client: Option<Arc<Client>>,
    protocol: Protocol,
    pending: Option<JoinHandle<Answer>>,
}

impl Session {
    fn ask(&mut self, sql: &str) {
        let client = Arc::clone(self.client.as_ref().expect("the parser knows who has gone"));
        let (protocol, sql) = (self.protocol, sql.to_owned());
        self.pending = Some(tokio::spawn(async move { Answer::to(&client, protocol, &sql).await }));
    }

    /// The answer of the pending statement, if it comes in time.
    async fn answer(&mut self, limit: Duration) -> Option<Answer> {
        let answer = timeout(limit, self.pending.as_mut()?).await.ok()?;
        self.pending = None;
        Some(answer.expect("asking does not panic"))
    }
}

struct Run<'a> {
    login: &'a Login,
    sessions: BTreeMap<&'a str, Session>,
    transcript: Transcript,
}

impl<'a> Run<'a> {
    async fn set_up(&mut self, statements: impl Iterator<Item = &'a String>) -> ControlFlow<()> {
        let client = match self.login.connect().await {
            Ok(client) => client,
            Err(error) => {
                self.transcript.wrong(format!("cannot connect: {}", told(&error)));
                return ControlFlow::Break(());
            }
        };
        for sql in statements {
            let answer = timeout(PATIENCE, Answer::to(&client, Protocol::Simple, sql)).await;
            let why = match answer {
                Ok(Answer::Done(_) | Answer::Rows(_)) => continue,
                Ok(refused) => refused.to_string(),
                Err(_) => format!("no answer within {PATIENCE:?}"),
            };
            self.transcript.say(format!("setup: {sql}"));
            self.transcript.wrong(why);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn session(&mut self, name: &str) -> &mut Session {
        self.sessions.get_mut(name).expect("the parser has seen every session")
    }

    /// Break: a session hangs, so that the steps after it would mean something else.
    async fn step(&mut self, step: &'a Step) -> ControlFlow<()> {
        self.transcript.say(step);
        match &step.action {
            Action::Run(sql) => self.ask(step, sql).await?,
            Action::Cancel => self.cancel(&step.session).await,
            Action::Disconnect => self.session(&step.session).client = None,
        }
        for (name, expected) in &step.others {
            if self.session(name).pending.is_none() {
                self.transcript.wrong(format!("{name} was not waiting; expected: {expected}"));
                continue;
            }
            self.hear(name, expected).await?;
        }
        if !step.deadlock.is_empty() {
            self.deadlock(&step.deadlock).await?;
        }
        self.others_wait(step).await;
        ControlFlow::Continue(())
    }

    async fn ask(&mut self, step: &'a Step, sql: &str) -> ControlFlow<()> {
        let session = self.session(&step.session);
        if session.pending.is_some() {
            self.transcript.wrong("this session still waits for its last statement");
            return ControlFlow::Break(());
        }
        session.ask(sql);
        if step.own == Expected::Waits || !step.deadlock.is_empty() {
            return ControlFlow::Continue(());
        }
        self.hear(&step.session, &step.own).await
    }

    /// Takes the answer of a session that should have one.
    async fn hear(&mut self, name: &'a str, expected: &Expected) -> ControlFlow<()> {
        let Some(answer) = self.session(name).answer(PATIENCE).await else {
            self.transcript.wrong(format!("{name} has no answer within {PATIENCE:?}; expected: {expected}"));
            return ControlFlow::Break(());
        };
        self.transcript.say(format!("    {name} {answer}"));
        if !expected.fits(&answer) {
            self.transcript.wrong(format!("expected: {expected}"));
        }
        ControlFlow::Continue(())
    }

    /// Nobody who should wait has an answer.
    async fn others_wait(&mut self, step: &Step) {
        if self.sessions.values().all(|session| session.pending.is_none()) {
            return;
        }
        sleep(GRACE).await;
        for (name, session) in &mut self.sessions {
            if !session.pending.as_ref().is_some_and(JoinHandle::is_finished) {
                continue;
            }
            if let Some(answer) = session.answer(PATIENCE).await {
                self.transcript.say(format!("    {name} {answer}"));
                self.transcript.wrong("expected: waits");
            }
        }
        if step.own == Expected::Waits && self.session(&step.session).pending.is_some() {
            self.transcript.say(format!("    {} waits", step.session));
        }
    }

    /// One of `names` must fail with 40P01, and is rolled back; the others answer in some order, and commit.
    async fn deadlock(&mut self, names: &'a [String]) -> ControlFlow<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut victims = 0;
        let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
        while !left.is_empty() && Instant::now() < deadline {
            let mut waiting = Vec::new();
            for name in left {
                let Some(answer) = self.session(name).answer(Duration::from_millis(20)).await else {
                    waiting.push(name);
                    continue;
                };
                self.transcript.say(format!("    {name} {answer}"));
                let end = match &answer {
                    Answer::Done(_) | Answer::Rows(_) => "COMMIT",
                    Answer::Refused { code, .. } if code == "40P01" => {
                        victims += 1;
                        "ROLLBACK"
                    }
                    Answer::Refused { .. } | Answer::Lost(_) => {
                        self.transcript.wrong("expected: success, or error 40P01");
                        "ROLLBACK"
                    }
                };
                self.transcript.say(format!("{name}: {end}"));
                self.session(name).ask(end);
                self.hear(name, &Expected::Quiet).await?;
            }
            left = waiting;
        }
        if victims != 1 {
            self.transcript.wrong(format!("{victims} of {} had 40P01; expected: one", names.join(" ")));
        }
        if left.is_empty() {
            return ControlFlow::Continue(());
        }
        self.transcript.wrong(format!("{} had no answer within {PATIENCE:?}", left.join(" ")));
        ControlFlow::Break(())
    }

    async fn cancel(&mut self, name: &str) {
        let Some(client) = &self.session(name).client else { return };
        let token = client.cancel_token();
        let sent = match &self.login.authority {
            Some(authority) => token.cancel_query(MakeRustlsConnect::new(tls_config(authority))).await,
            None => token.cancel_query(NoTls).await,
        };
        if let Err(error) = sent {
            self.transcript.wrong(format!("the cancel request failed: {error}"));
        }
    }

    /// Leaves nobody waiting, so that the next case can drop the tables.
    async fn end(&mut self) {
        let waiting = self.sessions.iter().filter(|(_, session)| session.pending.is_some());
        let waiting: Vec<&str> = waiting.map(|(name, _)| *name).collect();
        for name in waiting {
            self.cancel(name).await;
            let _ = self.session(name).answer(PATIENCE).await;
        }
        self.sessions.clear();
    }
}

/// Why nobody could connect: `Display` has no more than "db error" of what a server says.
fn told(error: &Error) -> String {
    let passing = match error.code().map(SqlState::code) {
        Some("57P03") => " (the server starts up, or shuts down: this passes)",
        Some("53300") => " (too many clients at once: this passes once others have gone)",
        _ => "",
    };
    format!("{error:?}{passing}")
}
