//! Errors as the outside sees them: a SQLSTATE, a message, and what to do next.
//!
//! Crates keep detailed enums inside and turn them into [`Error`] at their edge. The one exhaustive match
//! from [`SqlState`] to the five characters on the wire is [`SqlState::code`]; [`Error::kind`] groups the
//! states by what the caller must do.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A bug of ours. Report it; the statement had no effect.
    Bug,
    /// The statement was cancelled or timed out. Repeat it if you still want the answer.
    Cancelled,
    /// Stored bytes failed authentication or a structural check. Restore the named file; nothing was changed.
    Corrupt,
    /// The rows clash with a constraint or with another transaction. Change the data, or retry (40001).
    Conflict,
    /// The value or statement is wrong. Fix it; repeating will not help.
    Invalid,
    /// The key may not do this. Use another key.
    Refused,
    /// A limit, the disk or memory is exhausted. Free some or raise the limit, then retry.
    Exhausted,
    /// The server is shutting down or the connection is over. Reconnect.
    Unavailable,
    /// The statement is understood but Sepal does not do it. Rewrite it.
    Unsupported,
}

macro_rules! sqlstates {
    ($($name:ident $code:literal $kind:ident),+ $(,)?) => {
        /// Every SQLSTATE that Sepal sends (PostgreSQL appendix A names).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum SqlState { $(#[doc = $code] $name),+ }

        impl SqlState {
            /// The five characters on the wire.
            pub const fn code(self) -> &'static str {
                match self { $(SqlState::$name => $code),+ }
            }

            /// What the caller must do.
            pub const fn kind(self) -> ErrorKind {
                match self { $(SqlState::$name => ErrorKind::$kind),+ }
            }
        }
    };
}

sqlstates! {
    ActiveSqlTransaction "25001" Invalid,
    AdminShutdown "57P01" Unavailable,
    AmbiguousAlias "42P09" Invalid,
    AmbiguousColumn "42702" Invalid,
    ArraySubscriptError "2202E" Invalid,
    BadCopyFileFormat "22P04" Invalid,
    CannotConnectNow "57P03" Unavailable,
    CannotCoerce "42846" Invalid,
    CardinalityViolation "21000" Invalid,
    CharacterNotInRepertoire "22021" Invalid,
    CheckViolation "23514" Conflict,
    DataCorrupted "XX001" Corrupt,
    DataException "22000" Invalid,
    DatatypeMismatch "42804" Invalid,
    DatetimeFieldOverflow "22008" Invalid,
    DeadlockDetected "40P01" Conflict,
    DependentObjectsStillExist "2BP01" Invalid,
    DiskFull "53100" Exhausted,
    DivisionByZero "22012" Invalid,
    DuplicateAlias "42712" Invalid,
    DuplicateColumn "42701" Invalid,
    DuplicateCursor "42P03" Invalid,
    DuplicateObject "42710" Invalid,
    DuplicatePreparedStatement "42P05" Invalid,
    DuplicateSchema "42P06" Invalid,
    DuplicateTable "42P07" Invalid,
    ExternalRoutineException "38000" Conflict,
    FeatureNotSupported "0A000" Unsupported,
    ForeignKeyViolation "23503" Conflict,
    GeneratedAlways "428C9" Invalid,
    GroupingError "42803" Invalid,
    IdleInTransactionSessionTimeout "25P03" Unavailable,
    InFailedSqlTransaction "25P02" Invalid,
    InsufficientPrivilege "42501" Refused,
    InsufficientResources "53000" Exhausted,
    InternalError "XX000" Bug,
    InvalidArgumentForLogarithm "2201E" Invalid,
    InvalidArgumentForPowerFunction "2201F" Invalid,
    InvalidArgumentForWidthBucketFunction "2201G" Invalid,
    InvalidAuthorization "28000" Refused,
    InvalidBinaryRepresentation "22P03" Invalid,
    InvalidCatalogName "3D000" Refused,
    InvalidColumnReference "42P10" Invalid,
    InvalidCursorDefinition "42P11" Invalid,
    InvalidCursorName "34000" Invalid,
    InvalidDatetimeFormat "22007" Invalid,
    InvalidEscapeSequence "22025" Invalid,
    InvalidForeignKey "42830" Invalid,
    InvalidName "42602" Invalid,
    InvalidObjectDefinition "42P17" Invalid,
    InvalidParameterValue "22023" Invalid,
    InvalidPassword "28P01" Refused,
    InvalidRegularExpression "2201B" Invalid,
    InvalidRowCountInLimitClause "2201W" Invalid,
    InvalidRowCountInResultOffsetClause "2201X" Invalid,
    InvalidSchemaName "3F000" Invalid,
    InvalidSqlJsonSubscript "22033" Invalid,
    InvalidSqlStatementName "26000" Invalid,
    InvalidTableDefinition "42P16" Invalid,
    InvalidTextRepresentation "22P02" Invalid,
    InvalidSavepoint "3B001" Invalid,
    InvalidTransactionTermination "2D000" Invalid,
    IoError "58030" Exhausted,
    LockNotAvailable "55P03" Conflict,
    NoActiveSqlTransaction "25P01" Invalid,
    NotNullViolation "23502" Conflict,
    NullValueNotAllowed "22004" Invalid,
    NumericValueOutOfRange "22003" Invalid,
    ObjectInUse "55006" Conflict,
    ObjectNotInPrerequisiteState "55000" Invalid,
    OutOfMemory "53200" Exhausted,
    ProgramLimitExceeded "54000" Invalid,
    ProtocolViolation "08P01" Invalid,
    QueryCanceled "57014" Cancelled,
    ReadOnlySqlTransaction "25006" Refused,
    ReservedName "42939" Invalid,
    SequenceGeneratorLimitExceeded "2200H" Invalid,
    SerializationFailure "40001" Conflict,
    SingletonSqlJsonItemRequired "22038" Invalid,
    SnapshotTooOld "72000" Cancelled,
    SqlJsonArrayNotFound "22039" Invalid,
    SqlJsonMemberNotFound "2203A" Invalid,
    SqlJsonObjectNotFound "2203C" Invalid,
    StatementTooComplex "54001" Invalid,
    StringDataLengthMismatch "22026" Invalid,
    StringDataRightTruncation "22001" Invalid,
    SubstringError "22011" Invalid,
    SuccessfulCompletion "00000" Invalid,
    SyntaxError "42601" Invalid,
    SystemError "58000" Unavailable,
    TooManyColumns "54011" Invalid,
    TooManyConnections "53300" Exhausted,
    UndefinedColumn "42703" Invalid,
    UndefinedFunction "42883" Invalid,
    UndefinedObject "42704" Invalid,
    UndefinedParameter "42P02" Invalid,
    UndefinedTable "42P01" Invalid,
    UniqueViolation "23505" Conflict,
    UntranslatableCharacter "22P05" Invalid,
    Warning "01000" Invalid,
    WindowingError "42P20" Invalid,
    WrongObjectType "42809" Invalid,
    ZeroLengthCharacterString "2200F" Invalid,
}

/// An error at the engine's edge. `position` counts characters of the statement from 1, as Postgres' `P`
/// field does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Fields>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    position: Option<u32>,
    context: Option<String>,
    private: Option<String>,
    violated: Option<Violated>,
}

/// The constraint that a row offends against: Postgres' fields `s`, `t` and `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violated {
    pub schema: String,
    pub table: String,
    pub constraint: String,
}

impl Error {
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            state,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            private: None,
            violated: None,
        }))
    }

    /// A bug of ours; the message says what was expected.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(SqlState::InternalError, message)
    }

    /// Understood, but not done by Sepal.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(SqlState::FeatureNotSupported, message)
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Characters from 1.
    #[must_use]
    pub fn with_position(mut self, position: u32) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Postgres' `W` field, for example `COPY items, line 3, column embedding`.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// What the operator is told in place of the message: it may name what no client is to know, such as paths on the
    /// server. As PostgreSQL's `errdetail_log`, it goes to the log and to commands on the server's machine.
    #[must_use]
    pub fn with_private(mut self, message: impl Into<String>) -> Self {
        self.0.private = Some(message.into());
        self
    }

    /// Names the constraint, for clients that tell them apart.
    #[must_use]
    pub fn with_constraint(
        mut self,
        schema: impl Into<String>,
        table: impl Into<String>,
        constraint: impl Into<String>,
    ) -> Self {
        let (schema, table) = (schema.into(), table.into());
        self.0.violated = Some(Violated { schema, table, constraint: constraint.into() });
        self
    }

    /// As a client may have it, also where all of its text is shown.
    #[must_use]
    pub fn without_private(mut self) -> Self {
        self.0.private = None;
        self
    }

    pub fn state(&self) -> SqlState {
        self.0.state
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.state.kind()
    }

    /// For clients.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// For the operator: the message, or what stands behind it.
    pub fn operator_message(&self) -> &str {
        self.0.private.as_deref().unwrap_or(&self.0.message)
    }

    /// Whether the operator is told more than the client.
    pub fn is_private(&self) -> bool {
        self.0.private.is_some()
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    pub fn position(&self) -> Option<u32> {
        self.0.position
    }

    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    pub fn violated(&self) -> Option<&Violated> {
        self.0.violated.as_ref()
    }
}

/// For logs: with what is private.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.operator_message(), self.0.state.code())?;
        if let Some(detail) = &self.0.detail {
            write!(f, ". {detail}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, " Hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());
