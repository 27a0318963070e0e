//! The files of `specs/`: schedules of several sessions.
//!
//! ```text
//! # a comment
//! setup                                   run before every case, one statement a line
//!     DROP TABLE IF EXISTS t
//!     CREATE TABLE t (id int PRIMARY KEY, n int)
//!
//! case two updates of one row             a case; it may have a `setup` of its own after this line
//! T1: BEGIN                               session T1 says; without a line below it must succeed and give no rows
//! T1: UPDATE t SET n = 1 WHERE id = 1
//!     changed 1                           so many rows
//! T2: UPDATE t SET n = 2 WHERE id = 1
//!     waits                               no answer yet, and none until a later step says so
//! T1: COMMIT
//!     T2 changed 1                        what T2 waited for is over, and this is its answer
//! T1: SELECT id, n FROM t ORDER BY id
//!     | 1 | 2                             the rows in this order; `empty`: none
//! T1: INSERT INTO t VALUES (1, 1)
//!     error 23505 duplicate key           the code, and words that the message contains
//! T1: SELECT pg_advisory_lock(1)
//!     ok                                  succeeds, with rows or without
//! T2: \cancel                             a cancel request for what T2 waits for
//! T2: \disconnect                         T2 goes
//! ```
//!
//! `deadlock T1 T2` below a step: exactly one of these sessions, all of which wait, fails with 40P01 and is rolled
//! back; the others answer and commit. NULL is written `NULL`, an empty text `(empty)`.
//!
//! The parser refuses whatever could make a schedule mean something else than it seems to: a session that speaks while
//! it waits, an answer of one that does not, one that still waits at the end, a name that was never used.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::answer::Answer;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub setup: Vec<String>,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub line: usize,
    pub title: String,
    pub setup: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub line: usize,
    pub session: String,
    pub action: Action,
    /// What the session itself hears.
    pub own: Expected,
    /// What others hear that waited until now.
    pub others: Vec<(String, Expected)>,
    /// The sessions of the circle that this step closes; empty if it closes none.
    pub deadlock: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Run(String),
    Cancel,
    Disconnect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Success without rows, however many changed.
    Quiet,
    /// Success, whatever comes.
    Ok,
    Waits,
    Changed(u64),
    Rows(Vec<String>),
    Error {
        code: String,
        message: String,
    },
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// # Errors
/// The first line that does not fit.
pub fn parse(text: &str) -> Result<Spec, Wrong> {
    let mut reader = Reader { spec: Spec::default(), section: Section::None };
    for (number, line) in (1..).zip(text.lines()) {
        reader.line(number, line).map_err(|what| Wrong { line: number, what })?;
    }
    if reader.spec.cases.is_empty() {
        return Err(Wrong { line: 1, what: "no `case` in this file".to_owned() });
    }
    let mut titles = BTreeSet::new();
    for case in &reader.spec.cases {
        if !titles.insert(&case.title) {
            return Err(Wrong { line: case.line, what: "an earlier case has this title".to_owned() });
        }
        make_sense(case)?;
    }
    Ok(reader.spec)
}

impl Case {
    /// The sessions, in the order in which they first speak.
    pub fn sessions(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let names = self.steps.iter().map(|step| step.session.as_str());
        names.filter(|name| seen.insert(*name)).collect()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match &self.action {
            Action::Run(sql) => sql.as_str(),
            Action::Cancel => "\\cancel",
            Action::Disconnect => "\\disconnect",
        };
        write!(f, "{}: {action}", self.session)
    }
}

impl Expected {
    pub fn fits(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Expected::Quiet, Answer::Done(_)) | (Expected::Ok, Answer::Done(_) | Answer::Rows(_)) => true,
            (Expected::Changed(expected), Answer::Done(changed)) => expected == changed,
            (Expected::Rows(expected), Answer::Rows(rows)) => expected == rows,
            (Expected::Error { code, message }, Answer::Refused { code: found, message: told }) => {
                code == found && told.contains(message)
            }
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Expected, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let expected = match word {
            "ok" => Expected::Ok,
            "waits" => Expected::Waits,
            "empty" => Expected::Rows(Vec::new()),
            "|" if !rest.is_empty() => return Ok(Expected::Rows(vec![text.to_owned()])),
            "changed" => {
                let rows = rest.parse().map_err(|_| format!("`changed` needs a number, not {rest:?}"))?;
                return Ok(Expected::Changed(rows));
            }
            "error" => {
                let (code, message) = rest.split_once(' ').unwrap_or((rest, ""));
                let is_code =
                    code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
                if !is_code {
                    return Err(format!("`error` needs a SQLSTATE of five characters, not {code:?}"));
                }
                return Ok(Expected::Error { code: code.to_owned(), message: message.to_owned() });
            }
            _ => {
                return Err(format!(
                    "{text:?} is no answer: ok, waits, changed N, empty, | a | row, error CODE words"
                ));
            }
        };
        if rest.is_empty() {
            Ok(expected)
        } else {
            Err(format!("nothing comes after `{word}`, but here is {rest:?}"))
        }
    }

    /// A further line of the same answer: only rows have several.
    fn add(&mut self, more: Expected) -> Result<(), String> {
        match (&mut *self, more) {
            (Expected::Quiet, more) => *self = more,
            (Expected::Rows(rows), Expected::Rows(more)) if !rows.is_empty() && !more.is_empty() => {
                rows.extend(more)
            }
            (have, more) => return Err(format!("two answers to one statement: {have} and {more}")),
        }
        Ok(())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Quiet => f.write_str("success without rows"),
            Expected::Ok => f.write_str("ok"),
            Expected::Waits => f.write_str("waits"),
            Expected::Changed(rows) => write!(f, "changed {rows}"),
            Expected::Rows(rows) if rows.is_empty() => f.write_str("empty"),
            Expected::Rows(rows) => f.write_str(&rows.join("; ")),
            Expected::Error { code, message } => f.write_str(format!("error {code} {message}").trim_end()),
        }
    }
}

/// What an indented line belongs to.
enum Section {
    None,
    Setup,
    Steps,
}

struct Reader {
    spec: Spec,
    section: Section,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if line.ends_with(char::is_whitespace) {
            return Err("blanks at the end of the line".to_owned());
        }
        if let Some(detail) = line.strip_prefix("    ").filter(|rest| !rest.starts_with(char::is_whitespace))
        {
            return self.detail(detail);
        }
        if line.starts_with(char::is_whitespace) {
            return Err("indent by four blanks, or not at all".to_owned());
        }
        if line == "setup" {
            let misplaced =
                self.spec.cases.last().is_some_and(|case| !case.steps.is_empty() || !case.setup.is_empty());
            if misplaced || !self.spec.setup.is_empty() && self.spec.cases.is_empty() {
                return Err("`setup` comes first in the file, or right after `case`, once".to_owned());
            }
            self.section = Section::Setup;
            return Ok(());
        }
        if let Some(title) = line.strip_prefix("case ") {
            let title = title.to_owned();
            self.spec.cases.push(Case { line: number, title, setup: Vec::new(), steps: Vec::new() });
            self.section = Section::Steps;
            return Ok(());
        }
        let step = step(number, line)?;
        let case = self.spec.cases.last_mut().ok_or("a step before the first `case`")?;
        case.steps.push(step);
        self.section = Section::Steps;
        Ok(())
    }

    fn detail(&mut self, detail: &str) -> Result<(), String> {
        match self.section {
            Section::None => Err("this line belongs to nothing".to_owned()),
            Section::Setup => {
                let spec = &mut self.spec;
                spec.cases.last_mut().map_or(&mut spec.setup, |case| &mut case.setup).push(detail.to_owned());
                Ok(())
            }
            Section::Steps => {
                let case = self.spec.cases.last_mut().ok_or("this line belongs to nothing")?;
                let step = case.steps.last_mut().ok_or("an answer before the first step")?;
                step.answer(detail)
            }
        }
    }
}

/// `T1: SELECT 1`
fn step(line: usize, text: &str) -> Result<Step, String> {
    let not_a_step = || format!("{text:?} is no `setup`, `case …` or `SESSION: statement`");
    let (session, action) = text.split_once(": ").ok_or_else(not_a_step)?;
    if session.is_empty() || !session.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(not_a_step());
    }
    let action = match action {
        "\\cancel" => Action::Cancel,
        "\\disconnect" => Action::Disconnect,
        other if other.starts_with('\\') => {
            return Err(format!("{other} is neither \\cancel nor \\disconnect"));
        }
        sql => Action::Run(sql.to_owned()),
    };
    let session = session.to_owned();
    Ok(Step { line, session, action, own: Expected::Quiet, others: Vec::new(), deadlock: Vec::new() })
}

impl Step {
    fn answer(&mut self, text: &str) -> Result<(), String> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        if word == "deadlock" {
            if !self.deadlock.is_empty() {
                return Err("two deadlocks in one step".to_owned());
            }
            self.deadlock = rest.split(' ').map(ToOwned::to_owned).collect();
            return Ok(());
        }
        if ["ok", "waits", "changed", "empty", "error", "|"].contains(&word) {
            if !matches!(self.action, Action::Run(_)) {
                return Err("\\cancel and \\disconnect have no answer: write `NAME answer`".to_owned());
            }
            return self.own.add(Expected::parse(text)?);
        }
        let expected = Expected::parse(rest).map_err(|what| format!("session {word}? {what}"))?;
        match self.others.iter_mut().find(|(name, _)| name == word) {
            Some((_, known)) => known.add(expected),
            None => {
                self.others.push((word.to_owned(), expected));
                Ok(())
            }
        }
    }
}

/// Follows who waits through the whole case.
fn make_sense(case: &Case) -> Result<(), Wrong> {
    let names: BTreeSet<&str> = case.sessions().into_iter().collect();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for step in &case.steps {
        let wrong = |what: String| Err(Wrong { line: step.line, what });
        let session = step.session.as_str();
        if gone.contains(session) {
            return wrong(format!("{session} has disconnected"));
        }
        match (&step.action, waiting.contains_key(session)) {
            (Action::Run(_), true) => return wrong(format!("{session} speaks while it waits")),
            (Action::Cancel, false) => return wrong(format!("{session} has nothing to cancel")),
            (Action::Disconnect, true) => return wrong(format!("{session} waits: cancel it first")),
            (Action::Disconnect, false) => {
                gone.insert(session);
            }
            _ => {}
        }
        if step.own == Expected::Waits || !step.deadlock.is_empty() {
            waiting.insert(session, step.line);
        }
        if !step.deadlock.is_empty() && (step.own != Expected::Quiet || step.deadlock.len() < 2) {
            return wrong("`deadlock` names at least two sessions and is the step's only answer".to_owned());
        }
        if !step.deadlock.is_empty() && !step.deadlock.iter().any(|name| name == session) {
            return wrong(format!("{session} closes the circle, so it is one of `deadlock`"));
        }
        for name in step.others.iter().map(|(name, _)| name).chain(&step.deadlock) {
            if !names.contains(name.as_str()) {
                return wrong(format!("no session of this case is called {name}"));
            }
            if waiting.remove(name.as_str()).is_none() {
                return wrong(format!("{name} does not wait, so it has nothing to hear"));
            }
        }
        if step.others.iter().any(|(_, expected)| *expected == Expected::Waits) {
            return wrong("who waits goes on waiting: say nothing of it".to_owned());
        }
    }
    match waiting.first_key_value() {
        Some((name, line)) => {
            Err(Wrong { line: *line, what: format!("{name} still waits at the end of the case") })
        }
        None => Ok(()),
    }
}
