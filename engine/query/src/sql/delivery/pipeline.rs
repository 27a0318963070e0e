//! `CREATE PIPELINE` and `ALTER PIPELINE`.

use datafusion::sql::sqlparser::tokenizer::Token;
use sepal_types::Result;

use super::{
    CreatePipeline, Delivery, Envelope, Format, PipelineChange,
    cursor::Cursor,
    options::{options, text},
};

/// After `CREATE PIPELINE`.
pub(super) fn create(cursor: &mut Cursor<'_>) -> Result<Delivery> {
    let if_not_exists = cursor.eat_all(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name()?;
    cursor.expect("AS")?;
    let (query, query_text) = cursor.query()?;
    cursor.expect("INTO")?;
    cursor.expect("SINK")?;
    let sink = cursor.name()?;
    let (mut key, mut format, mut envelope, mut with) = (None, None, None, None);
    loop {
        if key.is_none() && cursor.eat("KEY") {
            key = Some(columns(cursor)?);
        } else if format.is_none() && cursor.eat("FORMAT") {
            format = Some(format_name(cursor)?);
        } else if envelope.is_none() && cursor.eat("ENVELOPE") {
            envelope = Some(envelope_name(cursor)?);
        } else if with.is_none() && cursor.eat("WITH") {
            with = Some(options(cursor)?);
        } else {
            break;
        }
    }
    Ok(Delivery::CreatePipeline(Box::new(CreatePipeline {
        name,
        if_not_exists,
        query,
        query_text,
        sink,
        key: key.unwrap_or_default(),
        format,
        envelope,
        with: with.unwrap_or_default(),
    })))
}

/// After `ALTER PIPELINE name`.
pub(super) fn change(cursor: &mut Cursor<'_>) -> Result<PipelineChange> {
    if cursor.eat("PAUSE") {
        return Ok(PipelineChange::Pause);
    }
    if cursor.eat("RESET") {
        return Ok(PipelineChange::Reset);
    }
    if cursor.eat("RESUME") {
        let from = if cursor.eat_all(&["FROM", "POSITION"]) { Some(text(cursor)?) } else { None };
        return Ok(PipelineChange::Resume { from });
    }
    cursor.expect("SET")?;
    options(cursor).map(PipelineChange::Set)
}

/// `(a, b)`
fn columns(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    cursor.expect_token(&Token::LParen)?;
    let mut columns = vec![cursor.name()?];
    while cursor.eat_token(&Token::Comma) {
        columns.push(cursor.name()?);
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(columns)
}

fn format_name(cursor: &mut Cursor<'_>) -> Result<Format> {
    for (keyword, format) in [("ARROW", Format::Arrow), ("NDJSON", Format::Ndjson)] {
        if cursor.eat(keyword) {
            return Ok(format);
        }
    }
    Err(cursor.unexpected().with_hint("The formats are NDJSON and ARROW."))
}

fn envelope_name(cursor: &mut Cursor<'_>) -> Result<Envelope> {
    for (keyword, envelope) in
        [("APPEND", Envelope::Append), ("DEBEZIUM", Envelope::Debezium), ("UPSERT", Envelope::Upsert)]
    {
        if cursor.eat(keyword) {
            return Ok(envelope);
        }
    }
    Err(cursor.unexpected().with_hint("The envelopes are APPEND, UPSERT and DEBEZIUM."))
}
