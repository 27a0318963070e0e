//! `tsvector` and `tsquery`: their text forms, in which they are kept, and their binary forms.
//!
//! Called by `builder` and `column` for what comes and goes over the wire, and by the functions over them. The text
//! is canonical: lexemes in quotes and in order of their bytes, each once, places ascending. Grammar, limits and
//! wording are those of src/backend/utils/adt/tsvector*.c and tsquery.c.
//!
//! ```text
//! tsvector | lexemes i32 | per lexeme: UTF-8, 0 u8 | places u16 | per place: weight << 14 | place u16
//! tsquery  | items i32 | per item, operators before their right and then their left operand:
//!          |   1 u8 | weights u8 | is prefix u8 | UTF-8, 0 u8
//!          |   2 u8 | 1 not, 2 and, 3 or, 4 phrase u8 | only of phrases: distance u16
//! ```

mod lexemes;
mod query;
mod scan;
mod vector;

pub(crate) use lexemes::{Lexemes, MOST_PLACES, Place, QuotedLexeme, quote};
pub(crate) use query::{Item, Operand, Syntax, TsQuery, distance};
pub(crate) use vector::{Lexeme, TsVector, check_bytes, write_places};
