//! What an author writes down for the kit: `conformance.toml` beside `plugin.toml`, and the files in `cases/`.
//!
//! `conformance.toml` gives options that work, secrets, options that must be refused, and how the destination answers.
//! Without it the first case of `cases/` says so. Secrets here are made up for tests; they are redacted all the same.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use sepal_database::connector::FaultKind;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// A secret's plaintext.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Plaintext(Zeroizing<String>);

impl From<String> for Plaintext {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Plaintext {
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext")
    }
}

/// `conformance.toml`, with the cases beside it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestCase {
    /// Options that work, without the sensitive ones.
    pub config: Map<String, Value>,
    /// By slot. What is required and missing is made up.
    pub secrets: BTreeMap<String, Plaintext>,
    /// Options that have to be refused.
    pub invalid: Vec<Invalid>,
    /// How the destination answers: the first rule that fits, or 200 and nothing.
    pub destination: Vec<Rule>,
    pub rows: RowShape,
    /// By status: what is wanted where it is not what the SDK makes of it.
    pub statuses: BTreeMap<String, Wanted>,
    pub resolver: ResolverCase,
    #[serde(skip)]
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Invalid {
    pub config: Map<String, Value>,
}

/// One answer of the destination, and to what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    pub method: Option<String>,
    /// A part of the URL.
    pub url: Option<String>,
    /// A part of the body.
    pub contains: Option<String>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Keeps the request's body under this name.
    pub keep: Option<String>,
    /// Answers with the body that was kept under this name, or 404.
    pub kept: Option<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self::answering(Answer::default())
    }
}

impl Rule {
    fn answering(answer: Answer) -> Self {
        let Answer { status, headers, body } = answer;
        Self { method: None, url: None, contains: None, status, headers, body, keep: None, kept: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Default for Answer {
    fn default() -> Self {
        Self::status(200)
    }
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: BTreeMap::new(), body: String::new() }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// What rows look like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowShape {
    /// One row. The first key column gets another value for each row.
    pub columns: Map<String, Value>,
    pub key: Vec<String>,
    /// The column of text to which the kit adds a word of its own; the first one that is no key unless named.
    pub note: Option<String>,
    /// Whether every row can be found in some request.
    pub visible: bool,
    /// Rows of the largest batch, if fewer than the manifest says.
    pub max: Option<u32>,
}

impl Default for RowShape {
    fn default() -> Self {
        let columns = serde_json::json!({
            "id": "", "note": "", "amount": 12.5, "flag": true, "embedding": [0.5, -1.0, 0.25],
        });
        let Value::Object(columns) = columns else { unreachable!("it is written as an object above") };
        Self { columns, key: vec!["id".to_owned()], note: None, visible: true, max: None }
    }
}

/// What CREATE SECRET … FROM asks of the resolver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverCase {
    pub options: Map<String, Value>,
    /// The value that has to come.
    pub value: Option<Plaintext>,
    pub missing: Missing,
}

/// A secret that is not there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Missing {
    /// The same options if there are none.
    pub options: Option<Map<String, Value>>,
    pub answer: Answer,
}

impl Default for Missing {
    fn default() -> Self {
        Self { options: None, answer: Answer::status(404) }
    }
}

/// What has to come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    Delivered,
    Transient,
    NotConnected,
    Unauthorized,
    Rejected,
    Misconfigured,
    Internal,
}

impl Wanted {
    pub const fn kind(self) -> Option<FaultKind> {
        Some(match self {
            Self::Delivered => return None,
            Self::Transient => FaultKind::Transient,
            Self::NotConnected => FaultKind::NotConnected,
            Self::Unauthorized => FaultKind::Unauthorized,
            Self::Rejected => FaultKind::Rejected,
            Self::Misconfigured => FaultKind::Misconfigured,
            Self::Internal => FaultKind::Internal,
        })
    }
}

/// A file in `cases/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    case: Vec<Case>,
}

/// One of the author's own cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub config: Map<String, Value>,
    #[serde(default)]
    pub secrets: BTreeMap<String, Plaintext>,
    /// Lines of one batch.
    #[serde(default)]
    pub rows: Vec<String>,
    #[serde(default)]
    pub requests: Vec<CaseRequest>,
    /// In order; the last one stays.
    #[serde(default)]
    pub answers: Vec<Answer>,
    pub expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRequest {
    pub name: String,
    #[serde(default)]
    pub options: Map<String, Value>,
    pub have_version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// `durable`, `buffered` or `retry-rows`.
    pub outcome: Option<String>,
    pub bad_rows: Vec<u32>,
    pub retry_rows: Vec<u32>,
    pub values: Option<Vec<ExpectedAnswer>>,
    pub error: Option<Wanted>,
    pub code: Option<String>,
    pub retry_after_ms: Option<u32>,
    pub requests: Option<Vec<ExpectedRequest>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ExpectedAnswer {
    /// `unchanged`, `not-found`, or the kind of an error.
    Word(String),
    Value(ExpectedValue),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedValue {
    pub value: Plaintext,
    pub version: Option<String>,
    pub ttl_seconds: Option<u32>,
    pub lease_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedRequest {
    pub method: Option<String>,
    pub url: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CaseError {
    pub file: String,
    pub problem: String,
}

impl TestCase {
    /// Reads `conformance.toml` and `cases/*.toml` of a plugin's folder; what is not there is left out.
    pub fn of_folder(folder: &Path) -> Result<Self, CaseError> {
        let mut cases = Vec::new();
        for path in case_files(&folder.join("cases"))? {
            cases.extend(Self::cases(&path.display().to_string(), &read(&path)?)?);
        }
        let path = folder.join("conformance.toml");
        let own = path.is_file().then(|| read(&path)).transpose()?;
        let mut case = match own {
            Some(text) => Self::parse(&path.display().to_string(), &text)?,
            None => Self::of_first(&cases),
        };
        case.cases = cases;
        Ok(case)
    }

    /// Reads the text of a `conformance.toml`.
    pub fn parse(file: &str, text: &str) -> Result<Self, CaseError> {
        let wrong = |problem: String| CaseError { file: file.to_owned(), problem };
        let case: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if let Some(status) = case.statuses.keys().find(|status| status.parse::<u16>().is_err()) {
            return Err(wrong(format!("[statuses] has {status:?}, which is no status of HTTP")));
        }
        if let Some(key) = case.rows.key.iter().find(|key| !case.rows.columns.contains_key(*key)) {
            return Err(wrong(format!(
                "[rows] names the key column {key:?}, which is not among its columns"
            )));
        }
        Ok(case)
    }

    /// Reads the text of a file in `cases/`.
    pub fn cases(file: &str, text: &str) -> Result<Vec<Case>, CaseError> {
        let read: Result<CaseFile, _> = toml::from_str(text);
        read.map(|file| file.case)
            .map_err(|error| CaseError { file: file.to_owned(), problem: error.to_string() })
    }

    /// What the first case that goes well tells: its options, its destination, its rows.
    fn of_first(cases: &[Case]) -> Self {
        let Some(first) = cases.iter().find(|case| case.expect.error.is_none()) else {
            return Self::default();
        };
        let answer = first.answers.first().cloned().unwrap_or_default();
        Self {
            config: first.config.clone(),
            secrets: first.secrets.clone(),
            destination: vec![Rule::answering(answer)],
            rows: first.rows.first().and_then(|line| RowShape::of_line(line)).unwrap_or_default(),
            resolver: ResolverCase {
                options: first.requests.first().map(|request| request.options.clone()).unwrap_or_default(),
                ..ResolverCase::default()
            },
            ..Self::default()
        }
    }
}

impl RowShape {
    /// `{"op":"c","key":{…},"after":{…},…}`
    fn of_line(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let columns = line.get("after")?.as_object()?.clone();
        let key: Vec<String> = line.get("key")?.as_object()?.keys().cloned().collect();
        let fits = !key.is_empty() && key.iter().all(|name| columns.contains_key(name));
        fits.then(|| Self { columns, key, ..Self::default() })
    }

    /// The column for the word, and what stands there.
    pub(super) fn note_of(&self, row: &Map<String, Value>) -> Option<(String, String)> {
        let may = |name: &String| match &self.note {
            Some(note) => name == note,
            None => !self.key.contains(name),
        };
        let mut texts = row.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        texts.find(|(name, _)| may(name)).map(|(name, text)| (name.clone(), text.to_owned()))
    }
}

fn case_files(folder: &Path) -> Result<Vec<PathBuf>, CaseError> {
    let at = |error: io::Error| CaseError { file: folder.display().to_string(), problem: error.to_string() };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, CaseError> {
    fs::read_to_string(path)
        .map_err(|error| CaseError { file: path.display().to_string(), problem: error.to_string() })
}
