//! How the rows of a `COPY` statement are written: the statement's options, already checked.
//!
//! `database::Session` fills it from `COPY … WITH (…)`; the protocol layer decodes and encodes by it. It holds no
//! rows and knows no type.

/// The file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    Text,
    Csv,
    Binary,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyHeader {
    /// The first line is a row.
    No,
    /// The first line is skipped on input and written on output.
    Yes,
    /// Input only: the first line must name the columns, in order.
    Match,
}

/// The options of a `COPY`. `delimiter`, `quote` and `escape` are single bytes, as in Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    pub kind: CopyKind,
    pub delimiter: u8,
    /// The text that stands for NULL: `\N` in text, an unquoted empty field in csv.
    pub null: String,
    pub header: CopyHeader,
    pub quote: u8,
    pub escape: u8,
    /// Columns whose value is never compared with `null` (csv input).
    pub force_not_null: Vec<String>,
    /// Columns where a quoted value that equals `null` is NULL too (csv input).
    pub force_null: Vec<String>,
    /// Columns whose non-NULL values are always quoted (csv output); `Some(vec![])` means `*`, all of them.
    pub force_quote: Option<Vec<String>>,
}

impl CopyFormat {
    /// Postgres' defaults for a format.
    pub fn new(kind: CopyKind) -> Self {
        let (delimiter, null) = match kind {
            CopyKind::Csv => (b',', ""),
            CopyKind::Text | CopyKind::Binary => (b'\t', "\\N"),
        };
        Self {
            kind,
            delimiter,
            null: null.to_owned(),
            header: CopyHeader::No,
            quote: b'"',
            escape: b'"',
            force_not_null: Vec::new(),
            force_null: Vec::new(),
            force_quote: None,
        }
    }
}

impl Default for CopyFormat {
    fn default() -> Self {
        Self::new(CopyKind::Text)
    }
}
