//! What the options of COPY say, checked as PostgreSQL checks them (`ProcessCopyOptions`, `copy.c`): what is written with
//! options that contradict each other cannot be read again.
//!
//! Called by `copy` when the statement is planned.

use sepal_query::{
    CopyFormat, CopyHeader, CopyKind,
    ddl::identifier,
    output::OutputColumn,
    sql::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, Ident},
};
use sepal_types::{Error, Result, SqlState};

/// Characters that would not be told from an escape in text.
const UNSAFE_DELIMITERS: &[u8] = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";

/// The options that a statement has.
#[derive(Default)]
struct Given {
    kind: Option<CopyKind>,
    delimiter: Option<u8>,
    null: Option<String>,
    header: bool,
    quote: Option<u8>,
    escape: Option<u8>,
    force_not_null: Option<Vec<String>>,
    force_null: Option<Vec<String>>,
    force_quote: Option<Vec<String>>,
}

/// Errors: 0A000, 22023, 42601.
pub(super) fn read(options: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<CopyFormat> {
    let mut given = Given::default();
    options.iter().try_for_each(|option| given.take(option))?;
    legacy.iter().try_for_each(|option| given.take_legacy(option))?;
    let format = given.format();
    given.check(&format)?;
    check(&format)?;
    Ok(format)
}

/// Errors: 42P10 for an option that names a column which is not copied.
pub(super) fn check_columns(format: &CopyFormat, columns: &[OutputColumn]) -> Result<()> {
    for (option, names) in [("FORCE_NOT_NULL", &format.force_not_null), ("FORCE_NULL", &format.force_null)] {
        let copied = |name: &String| columns.iter().any(|column| column.name == *name);
        if let Some(missing) = names.iter().find(|name| !copied(name)) {
            let message = format!("{option} column \"{missing}\" not referenced by COPY");
            return Err(Error::new(SqlState::InvalidColumnReference, message));
        }
    }
    Ok(())
}

impl Given {
    fn take(&mut self, option: &CopyOption) -> Result<()> {
        match option {
            CopyOption::Format(name) => self.kind = Some(kind(name)?),
            CopyOption::Delimiter(c) => self.delimiter = Some(one_byte("delimiter", *c)?),
            CopyOption::Null(text) => self.null = Some(text.clone()),
            CopyOption::Header(on) => self.header = *on,
            CopyOption::Quote(c) => self.quote = Some(one_byte("quote", *c)?),
            CopyOption::Escape(c) => self.escape = Some(one_byte("escape", *c)?),
            CopyOption::ForceQuote(columns) => self.force_quote = Some(names(columns)),
            CopyOption::ForceNotNull(columns) => self.force_not_null = Some(names(columns)),
            CopyOption::ForceNull(columns) => self.force_null = Some(names(columns)),
            CopyOption::Encoding(name) if !matches!(name.to_lowercase().as_str(), "utf8" | "utf-8") => {
                return Err(Error::unsupported(format!("encoding \"{name}\" is not supported"))
                    .with_hint("Sepal reads and writes UTF8."));
            }
            CopyOption::Freeze(_) | CopyOption::Encoding(_) => {}
        }
        Ok(())
    }

    fn take_legacy(&mut self, option: &CopyLegacyOption) -> Result<()> {
        match option {
            CopyLegacyOption::Binary => self.kind = Some(CopyKind::Binary),
            CopyLegacyOption::Delimiter(c) => self.delimiter = Some(one_byte("delimiter", *c)?),
            CopyLegacyOption::Null(text) => self.null = Some(text.clone()),
            CopyLegacyOption::Header => self.header = true,
            CopyLegacyOption::Csv(options) => {
                self.kind = Some(CopyKind::Csv);
                options.iter().try_for_each(|option| self.take_csv(option))?;
            }
            other => return Err(Error::unsupported(format!("COPY option {other} is not supported"))),
        }
        Ok(())
    }

    fn take_csv(&mut self, option: &CopyLegacyCsvOption) -> Result<()> {
        match option {
            CopyLegacyCsvOption::Header => self.header = true,
            CopyLegacyCsvOption::Quote(c) => self.quote = Some(one_byte("quote", *c)?),
            CopyLegacyCsvOption::Escape(c) => self.escape = Some(one_byte("escape", *c)?),
            CopyLegacyCsvOption::ForceQuote(columns) => self.force_quote = Some(names(columns)),
            CopyLegacyCsvOption::ForceNotNull(columns) => self.force_not_null = Some(names(columns)),
        }
        Ok(())
    }

    fn format(&self) -> CopyFormat {
        let mut format = CopyFormat::new(self.kind.unwrap_or(CopyKind::Text));
        if let Some(delimiter) = self.delimiter {
            format.delimiter = delimiter;
        }
        if let Some(null) = &self.null {
            format.null.clone_from(null);
        }
        if self.header {
            format.header = CopyHeader::Yes;
        }
        if let Some(quote) = self.quote {
            format.quote = quote;
        }
        // A quote stands for itself when it is doubled, unless something else is said.
        format.escape = self.escape.unwrap_or(format.quote);
        format.force_not_null = self.force_not_null.clone().unwrap_or_default();
        format.force_null = self.force_null.clone().unwrap_or_default();
        format.force_quote.clone_from(&self.force_quote);
        format
    }

    /// Options that the format does not have. Errors: 0A000, 42601.
    fn check(&self, format: &CopyFormat) -> Result<()> {
        if format.kind == CopyKind::Binary {
            let refused = |state: SqlState, option: &str| {
                Err(Error::new(state, format!("cannot specify {option} in BINARY mode")))
            };
            if self.delimiter.is_some() {
                return refused(SqlState::SyntaxError, "DELIMITER");
            }
            if self.null.is_some() {
                return refused(SqlState::SyntaxError, "NULL");
            }
            if self.header {
                return refused(SqlState::FeatureNotSupported, "HEADER");
            }
        }
        let of_csv = [
            ("QUOTE", self.quote.is_some()),
            ("ESCAPE", self.escape.is_some()),
            ("FORCE_QUOTE", self.force_quote.is_some()),
            ("FORCE_NOT_NULL", self.force_not_null.is_some()),
            ("FORCE_NULL", self.force_null.is_some()),
        ];
        match of_csv.iter().find(|(_, given)| *given && format.kind != CopyKind::Csv) {
            Some((option, _)) => Err(Error::unsupported(format!("COPY {option} requires CSV mode"))),
            None => Ok(()),
        }
    }
}

/// Characters that cannot be told from each other. Errors: 22023.
fn check(format: &CopyFormat) -> Result<()> {
    let is_csv = format.kind == CopyKind::Csv;
    let refused = |message: String| Err(Error::new(SqlState::InvalidParameterValue, message));
    if matches!(format.delimiter, b'\r' | b'\n') {
        return refused("COPY delimiter cannot be newline or carriage return".to_owned());
    }
    if format.null.contains(['\r', '\n']) {
        return refused("COPY null representation cannot use newline or carriage return".to_owned());
    }
    if !is_csv && UNSAFE_DELIMITERS.contains(&format.delimiter) {
        return refused(format!("COPY delimiter cannot be \"{}\"", char::from(format.delimiter)));
    }
    if is_csv && format.delimiter == format.quote {
        return refused("COPY delimiter and quote must be different".to_owned());
    }
    if format.null.as_bytes().contains(&format.delimiter) {
        return refused("COPY delimiter character must not appear in the NULL specification".to_owned());
    }
    if is_csv && format.null.as_bytes().contains(&format.quote) {
        return refused("CSV quote character must not appear in the NULL specification".to_owned());
    }
    Ok(())
}

fn kind(name: &Ident) -> Result<CopyKind> {
    match name.value.to_lowercase().as_str() {
        "text" => Ok(CopyKind::Text),
        "csv" => Ok(CopyKind::Csv),
        "binary" => Ok(CopyKind::Binary),
        other => {
            let message = format!("COPY format \"{other}\" not recognized");
            Err(Error::new(SqlState::InvalidParameterValue, message))
        }
    }
}

fn names(idents: &[Ident]) -> Vec<String> {
    idents.iter().map(identifier).collect()
}

/// Errors: 0A000.
fn one_byte(what: &str, c: char) -> Result<u8> {
    let byte = u8::try_from(c).ok().filter(u8::is_ascii);
    byte.ok_or_else(|| Error::unsupported(format!("COPY {what} must be a single one-byte character")))
}

#[cfg(test)]
mod tests {
    use sepal_query::sql::{StatementKind, ast, parse_statements};

    use super::*;

    fn format(with: &str) -> Result<CopyFormat> {
        let statement = parse_statements(&format!("COPY t FROM STDIN {with}")).unwrap().remove(0);
        let StatementKind::Sql(statement) = &statement.kind else { panic!("not SQL: {with}") };
        let ast::Statement::Copy { options, legacy_options, .. } = statement.as_ref() else {
            panic!("not a COPY: {with}")
        };
        read(options, legacy_options)
    }

    #[test]
    fn a_quote_is_escaped_by_itself_unless_something_else_is_said() {
        for (with, quote, escape) in [
            ("CSV", b'"', b'"'),
            ("(FORMAT csv, QUOTE '|')", b'|', b'|'),
            ("CSV QUOTE '|'", b'|', b'|'),
            ("(ESCAPE '!', FORMAT csv, QUOTE '|')", b'|', b'!'),
            ("(FORMAT csv, ESCAPE '!')", b'"', b'!'),
        ] {
            let format = format(with).unwrap();
            assert_eq!((format.quote, format.escape), (quote, escape), "{with}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for (with, code, message) in [
            ("(DELIMITER 'n')", "22023", "COPY delimiter cannot be \"n\""),
            ("(DELIMITER '.')", "22023", "COPY delimiter cannot be \".\""),
            (r"(DELIMITER '\')", "22023", r#"COPY delimiter cannot be "\""#),
            ("(DELIMITER E'\\n')", "22023", "COPY delimiter cannot be newline or carriage return"),
            ("(NULL E'a\\rb')", "22023", "COPY null representation cannot use newline or carriage return"),
            (
                "(NULL 'a|b', DELIMITER '|')",
                "22023",
                "COPY delimiter character must not appear in the NULL specification",
            ),
            (
                "(DELIMITER 'N')",
                "22023",
                "COPY delimiter character must not appear in the NULL specification",
            ),
            ("(FORMAT csv, QUOTE ',')", "22023", "COPY delimiter and quote must be different"),
            ("CSV NULL '\"'", "22023", "CSV quote character must not appear in the NULL specification"),
            ("(QUOTE '|')", "0A000", "COPY QUOTE requires CSV mode"),
            ("(FORCE_NULL (a))", "0A000", "COPY FORCE_NULL requires CSV mode"),
            ("(FORMAT binary, ESCAPE '|')", "0A000", "COPY ESCAPE requires CSV mode"),
            ("(FORMAT binary, HEADER)", "0A000", "cannot specify HEADER in BINARY mode"),
            ("(FORMAT binary, NULL '')", "42601", "cannot specify NULL in BINARY mode"),
            ("BINARY DELIMITER ','", "42601", "cannot specify DELIMITER in BINARY mode"),
        ] {
            let error = format(with).expect_err(with);
            assert_eq!((error.state().code(), error.message()), (code, message), "{with}");
        }
        for with in [
            "",
            "(DELIMITER '|', NULL '')",
            "(FORMAT csv, DELIMITER 'n', HEADER false)",
            "(FORMAT binary, HEADER false)",
            "CSV HEADER DELIMITER ';'",
        ] {
            assert!(format(with).is_ok(), "{with}");
        }
    }

    #[test]
    fn options_name_columns_that_are_copied() {
        let columns = [OutputColumn::new("a", sepal_types::SqlType::Text)];
        let of = |with: &str| check_columns(&format(with).unwrap(), &columns);
        assert!(of("(FORMAT csv, FORCE_NULL (a), FORCE_NOT_NULL (a))").is_ok());
        let error = of("(FORMAT csv, FORCE_NULL (a, b))").unwrap_err();
        assert_eq!(error.state().code(), "42P10");
        assert_eq!(error.message(), "FORCE_NULL column \"b\" not referenced by COPY");
    }
}
