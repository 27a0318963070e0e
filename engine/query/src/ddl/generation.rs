//! Generated columns: what may stand in their expressions, how those are kept, and which columns they need.
//!
//! Called by CREATE and ALTER TABLE, and by the catalogs, which show the expressions. An expression is kept as SQL text
//! in which each column stands under its own name, quoted. Whether it can be computed at all is asked where it is
//! planned (`dml::generation`), which no DDL does.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Function, FunctionArguments, GeneratedAs, Ident};
use sepal_types::{ColumnDef, ColumnId, Error, Generated, Result, SqlState, SqlType, TableDef};

use super::{
    Ddl, deparse,
    names::{identifier, table_name},
};
use crate::dml::parse_default;

/// Functions of full-text search that take their configuration from a setting, unless it is their first argument.
const CONFIGURED: [&str; 5] =
    ["phraseto_tsquery", "plainto_tsquery", "to_tsquery", "to_tsvector", "websearch_to_tsquery"];

/// Makes a new column a generated one.
///
/// Errors: 42601 beside another default, identity or expression, or for one that is not STORED.
pub fn declare(column: &mut ColumnDef, expr: &Expr, generated_as: &GeneratedAs, table: &str) -> Result<()> {
    if !matches!(generated_as, GeneratedAs::ExpStored) {
        return Err(Error::new(SqlState::SyntaxError, "a generated column must be STORED")
            .with_hint("Write GENERATED ALWAYS AS (expression) STORED."));
    }
    match column.generated {
        Some(Generated::Stored) => {
            let message = format!(
                "multiple generation clauses specified for column \"{}\" of table \"{table}\"",
                column.name
            );
            return Err(Error::new(SqlState::SyntaxError, message));
        }
        Some(Generated::Serial) => return Err(both("default", column, table)),
        Some(_) => return Err(both("identity", column, table)),
        None if column.default.is_some() => return Err(both("default", column, table)),
        None => {}
    }
    (column.generated, column.default) = (Some(Generated::Stored), Some(expr.to_string()));
    Ok(())
}

/// Refuses a default or an identity for a column that is generated already.
pub fn refuse_beside(what: &str, column: &ColumnDef, table: &str) -> Result<()> {
    if column.expression().is_some() { Err(both(what, column, table)) } else { Ok(()) }
}

fn both(what: &str, column: &ColumnDef, table: &str) -> Error {
    let message = format!(
        "both {what} and generation expression specified for column \"{}\" of table \"{table}\"",
        column.name
    );
    Error::new(SqlState::SyntaxError, message)
}

/// Brings the expression of a new column into the form in which it is kept. All columns of the table are there.
///
/// Errors: 42703, 42P01, 42P17 for another generated column, 0A000 for a subquery.
pub fn settle(def: &mut TableDef, id: ColumnId) -> Result<()> {
    let Some(text) = def.column_by_id(id).and_then(ColumnDef::expression) else { return Ok(()) };
    let mut expr = parse_default(text)?;
    refuse_subqueries(&expr, "column generation expression")?;
    refuse_settings(&expr)?;
    spell_columns(&mut expr, def)?;
    let text = expr.to_string();
    if let Some(column) = def.columns.iter_mut().find(|column| column.id == id) {
        column.default = Some(text);
    }
    Ok(())
}

fn outcome(found: ControlFlow<Error>) -> Result<()> {
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Errors: 0A000.
pub fn refuse_subqueries(expr: &Expr, place: &str) -> Result<()> {
    outcome(ast::visit_expressions(expr, |inner| {
        let subquery = match inner {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
            Expr::Function(function) => matches!(function.args, FunctionArguments::Subquery(_)),
            _ => false,
        };
        match subquery {
            true => ControlFlow::Break(Error::unsupported(format!("cannot use subquery in {place}"))),
            false => ControlFlow::Continue(()),
        }
    }))
}

fn refuse_settings(expr: &Expr) -> Result<()> {
    outcome(ast::visit_expressions(expr, |inner| match inner {
        Expr::Function(function) if reads_settings(function) => ControlFlow::Break(not_immutable()),
        _ => ControlFlow::Continue(()),
    }))
}

fn reads_settings(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    list.args.len() == 1 && CONFIGURED.contains(&table_name(&function.name).as_str())
}

/// What an expression must be whose value stays right.
pub fn not_immutable() -> Error {
    Error::new(SqlState::InvalidObjectDefinition, "generation expression is not immutable")
}

fn spell_columns(expr: &mut Expr, def: &TableDef) -> Result<()> {
    outcome(ast::visit_expressions_mut(expr, |inner| {
        let name = match &*inner {
            Expr::Identifier(ident) => Ok(identifier(ident)),
            Expr::CompoundIdentifier(parts) => unqualified(parts, def),
            _ => return ControlFlow::Continue(()),
        };
        match name.and_then(|name| base_column(&name, def)) {
            Err(error) => ControlFlow::Break(error),
            Ok(column) => {
                *inner = Expr::Identifier(column);
                ControlFlow::Continue(())
            }
        }
    }))
}

fn unqualified(parts: &[Ident], def: &TableDef) -> Result<String> {
    let names: Vec<String> = parts.iter().map(identifier).collect();
    match names.as_slice() {
        [table, column] if *table == def.name => Ok(column.clone()),
        [schema, table, column] if *schema == def.schema && *table == def.name => Ok(column.clone()),
        [.., table, _] => {
            let message = format!("missing FROM-clause entry for table \"{table}\"");
            Err(Error::new(SqlState::UndefinedTable, message))
        }
        _ => Err(Error::bug("a qualified name without a qualifier")),
    }
}

fn base_column(name: &str, def: &TableDef) -> Result<Ident> {
    match def.column(name) {
        None => Err(Error::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"))),
        Some(column) if column.expression().is_some() => {
            let message = format!("cannot use generated column \"{name}\" in column generation expression");
            Err(Error::new(SqlState::InvalidObjectDefinition, message)
                .with_detail("A generated column cannot reference another generated column."))
        }
        Some(column) => Ok(Ident::with_quote('"', &column.name)),
    }
}

/// Whether a generated column is computed from the column of that name.
pub fn needs(column: &ColumnDef, name: &str) -> bool {
    let Some(Ok(expr)) = column.expression().map(parse_default) else { return false };
    ast::visit_expressions(&expr, |inner| match inner {
        Expr::Identifier(ident) if identifier(ident) == name => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// The generated columns that are computed from the column of that name.
pub fn dependents(def: &TableDef, name: &str) -> Vec<String> {
    def.columns.iter().filter(|column| needs(column, name)).map(|column| column.name.clone()).collect()
}

/// Before a column goes: what is computed from it goes with it, or keeps it. The names of what goes.
///
/// Errors: 2BP01.
pub fn dropped_with(def: &TableDef, name: &str, cascade: bool, ddl: &mut Ddl) -> Result<Vec<String>> {
    let needing = dependents(def, name);
    let described = |column: &String| format!("column {column} of table {}", def.name);
    if !needing.is_empty() && !cascade {
        let of = format!("column {name} of table {}", def.name);
        let detail: Vec<String> =
            needing.iter().map(|column| format!("{} depends on {of}", described(column))).collect();
        let message = format!("cannot drop {of} because other objects depend on it");
        return Err(Error::new(SqlState::DependentObjectsStillExist, message)
            .with_detail(detail.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    let told: Vec<String> =
        needing.iter().map(|column| format!("drop cascades to {}", described(column))).collect();
    let notice = |message: String| Error::new(SqlState::SuccessfulCompletion, message);
    match told.as_slice() {
        [] => {}
        [one] => ddl.notices.push(notice(one.clone())),
        several => {
            let message = format!("drop cascades to {} other objects", several.len());
            ddl.notices.push(notice(message).with_detail(several.join("\n")));
        }
    }
    Ok(needing)
}

/// Gives a column another name where expressions need it.
pub fn rename(def: &mut TableDef, from: &str, to: &str) {
    for column in def.columns.iter_mut().filter(|column| needs(column, from)) {
        let Some(Ok(mut expr)) = column.expression().map(parse_default) else { continue };
        let _ = ast::visit_expressions_mut(&mut expr, |inner| {
            if let Expr::Identifier(ident) = inner
                && identifier(ident) == from
            {
                *ident = Ident::with_quote('"', to);
            }
            ControlFlow::<()>::Continue(())
        });
        column.default = Some(expr.to_string());
    }
}

/// DROP EXPRESSION: the column keeps the values that it has.
///
/// Errors: 55000 for a column that is not generated; with IF EXISTS that is a notice.
pub fn drop_expression(
    column: &mut ColumnDef,
    table: &str,
    if_exists: bool,
    notices: &mut Vec<Error>,
) -> Result<()> {
    if column.expression().is_some() {
        (column.generated, column.default) = (None, None);
        return Ok(());
    }
    let message =
        format!("column \"{}\" of relation \"{table}\" is not a stored generated column", column.name);
    if !if_exists {
        return Err(Error::new(SqlState::ObjectNotInPrerequisiteState, message));
    }
    notices.push(Error::new(SqlState::SuccessfulCompletion, format!("{message}, skipping")));
    Ok(())
}

/// Errors: 42601 for a default of a generated column.
pub fn refuse_default(column: &ColumnDef, table: &str, dropped: bool) -> Result<()> {
    if column.expression().is_none() {
        return Ok(());
    }
    let message = format!("column \"{}\" of relation \"{table}\" is a generated column", column.name);
    let error = Error::new(SqlState::SyntaxError, message);
    Err(match dropped {
        true => error.with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP EXPRESSION instead."),
        false => error,
    })
}

/// A generated column's expression as `pg_get_expr` prints it.
pub fn generation_expression(def: &TableDef, column: &ColumnDef) -> Option<String> {
    let text = column.expression()?;
    let printed = parse_default(text).and_then(|expr| deparse::print(def, &expr));
    Some(match printed {
        Ok(printed) if printed.ty == Some(SqlType::Unknown) => {
            format!("{}::{}", printed.text, deparse::bare_name(&column.ty))
        }
        Ok(printed) => printed.text,
        Err(_) => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(id: u32, name: &str, expression: Option<&str>) -> ColumnDef {
        ColumnDef {
            default: expression.map(str::to_owned),
            generated: expression.map(|_| Generated::Stored),
            ..ColumnDef::new(ColumnId(id), name, SqlType::Text)
        }
    }

    fn table(expression: &str) -> TableDef {
        TableDef {
            id: sepal_types::TableId(20_000),
            environment: "default".to_owned(),
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: vec![column(1, "a", None), column(2, "B c", None), column(3, "g", Some(expression))],
            next_column: ColumnId(4),
            uniques: Vec::new(),
            indexes: Vec::new(),
            constraints: sepal_types::Constraints::default(),
            captured: false,
        }
    }

    fn settled(expression: &str) -> Result<TableDef> {
        let mut def = table(expression);
        settle(&mut def, ColumnId(3)).map(|()| def)
    }

    #[test]
    fn columns_are_spelled_alike_and_follow_a_rename() {
        let mut def = settled("lower(A) || public.t.\"B c\" || 'a'").unwrap();
        assert_eq!(def.columns[2].default.as_deref(), Some("lower(\"a\") || \"B c\" || 'a'"));
        assert_eq!(dependents(&def, "a"), ["g"]);
        assert!(dependents(&def, "c").is_empty());
        rename(&mut def, "B c", "a\"b");
        assert_eq!(def.columns[2].default.as_deref(), Some("lower(\"a\") || \"a\"\"b\" || 'a'"));
        let again = settled(def.columns[2].default.as_deref().unwrap()).unwrap_err();
        assert_eq!(again.state(), SqlState::UndefinedColumn, "{again}");
    }

    #[test]
    fn what_is_not_of_the_row_alone_is_refused() {
        for (expression, state) in [
            ("nope", SqlState::UndefinedColumn),
            ("x.a", SqlState::UndefinedTable),
            ("g || 'x'", SqlState::InvalidObjectDefinition),
            ("(SELECT 'x')", SqlState::FeatureNotSupported),
            ("array_to_string(ARRAY(SELECT 'x'), '')", SqlState::FeatureNotSupported),
            ("to_tsvector(a)::text", SqlState::InvalidObjectDefinition),
        ] {
            assert_eq!(settled(expression).unwrap_err().state(), state, "{expression}");
        }
        assert!(settled("to_tsvector('english', a)::text").is_ok());
    }

    #[test]
    fn a_column_goes_with_what_it_is_computed_from() {
        let def = settled("a").unwrap();
        let mut ddl = Ddl::default();
        let refused = dropped_with(&def, "a", false, &mut ddl).unwrap_err();
        assert_eq!(refused.state(), SqlState::DependentObjectsStillExist);
        assert_eq!(refused.detail(), Some("column g of table t depends on column a of table t"));
        assert_eq!(dropped_with(&def, "a", true, &mut ddl).unwrap(), ["g"]);
        assert_eq!(ddl.notices[0].message(), "drop cascades to column g of table t");
    }
}
