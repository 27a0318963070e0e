//! What commands print: data on stdout, talk on stderr, tables and colour only on a terminal.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::failure::Failure;

/// Prints data. A reader that went away (`sepal … | head`) ends the process quietly, as other tools do.
pub fn data(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// Prints a text as it is, without another line's end.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn written(done: io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => Ok(done?),
    }
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    data(&serde_json::to_string(value).map_err(|error| Failure::failed(error.to_string()))?)
}

/// Says something to the person; nobody parses it, so a closed stderr is no reason to stop.
pub fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether data and talk both end on a terminal, and nowhere else.
pub fn is_for_a_person() -> bool {
    io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Prints rows: a table on a terminal, tab-separated lines without a header elsewhere.
pub fn rows(header: &[&str], rows: &[Vec<String>], nothing: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return rows.iter().try_for_each(|row| data(&row.join("\t")));
    }
    if rows.is_empty() {
        talk(nothing);
        return Ok(());
    }
    data(&table(header, rows, &[]))
}

/// A table as text; `right` names the columns to align to the right.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header.to_vec());
    table.add_rows(rows.to_vec());
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Colour, where a terminal shows it and `NO_COLOR` does not forbid it.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    on: bool,
}

impl Style {
    pub fn of_stdout() -> Self {
        Self { on: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub fn of_stderr() -> Self {
        Self { on: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn warning(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
