//! PostgreSQL's grammar where sqlparser's idea of it is another: what `IS DISTINCT FROM` takes in, how tightly regular
//! expressions bind, `LIKE ANY (array)`.
//!
//! Everything that parses does it with [`Postgres`]. sqlparser reads the right side of `IS DISTINCT FROM` up to the
//! end of the whole condition, `AND` and `OR` included, and so finds other rows than were asked for.

use std::any::TypeId;

use datafusion::sql::sqlparser::{
    ast::{BinaryOperator, Expr},
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::Token,
};

/// PostgreSQL, for sqlparser.
#[derive(Debug)]
pub struct Postgres;

/// What is not said here is as sqlparser has it.
const BASE: PostgreSqlDialect = PostgreSqlDialect {};

/// The flags that [`PostgreSqlDialect`] sets: a trait's methods do not pass through a wrapper by themselves.
macro_rules! flags_of_base {
    ($($flag:ident),+ $(,)?) => {
        $(
            fn $flag(&self) -> bool {
                BASE.$flag()
            }
        )+
    };
}

impl Dialect for Postgres {
    /// The parser asks in places whether the dialect is PostgreSQL's.
    fn dialect(&self) -> TypeId {
        BASE.dialect()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        BASE.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        BASE.is_delimited_identifier_start(character)
    }

    fn is_identifier_start(&self, character: char) -> bool {
        BASE.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        BASE.is_identifier_part(character)
    }

    fn is_custom_operator_part(&self, character: char) -> bool {
        BASE.is_custom_operator_part(character)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        BASE.is_reserved_for_identifier(keyword)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        BASE.prec_value(precedence)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            // Operators like any other (`operator precedence` in the manual); sqlparser has them beside `=`.
            Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk => Some(Ok(self.prec_value(Precedence::PgOther))),
            _ => BASE.get_next_precedence(parser),
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if parser.peek_keyword(Keyword::IS) {
            return self.parse_distinct(parser, expr);
        }
        if parser.peek_one_of_keywords(&[Keyword::NOT, Keyword::LIKE, Keyword::ILIKE]).is_some() {
            return parse_like_array(parser, expr);
        }
        BASE.parse_infix(parser, expr, precedence)
    }

    flags_of_base!(
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_alter_column_type_using,
        supports_array_typedef_with_brackets,
        supports_bitwise_shift_operators,
        supports_comma_separated_trim,
        supports_comment_on,
        supports_comment_optimizer_hint,
        supports_create_index_with_clause,
        supports_create_table_like_parenthesized,
        supports_empty_projections,
        supports_explain_with_utility_options,
        supports_factorial_operator,
        supports_filter_during_aggregation,
        supports_geometric_types,
        supports_group_by_expr,
        supports_insert_table_alias,
        supports_interval_options,
        supports_listen_notify,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_expr_name,
        supports_nested_comments,
        supports_notnull_operator,
        supports_numeric_literal_underscores,
        supports_select_wildcard_with_alias,
        supports_set_names,
        supports_string_escape_constant,
        supports_unicode_string_literal,
        supports_xml_expressions,
    );
}

impl Postgres {
    /// `a IS [NOT] DISTINCT FROM b`, where `b` ends before whatever binds no tighter than IS.
    fn parse_distinct(&self, parser: &mut Parser, left: &Expr) -> Option<Result<Expr, ParserError>> {
        let same = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !same && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| {
            let (left, right) = (Box::new(left.clone()), Box::new(right));
            if same { Expr::IsNotDistinctFrom(left, right) } else { Expr::IsDistinctFrom(left, right) }
        }))
    }
}

/// `a [NOT] {LIKE | ILIKE} {ANY | SOME | ALL} (array)` is the operator's own `a ~~ ANY (array)`.
fn parse_like_array(parser: &mut Parser, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let spelled: [(&[Keyword], BinaryOperator); 4] = [
        (&[Keyword::LIKE], BinaryOperator::PGLikeMatch),
        (&[Keyword::ILIKE], BinaryOperator::PGILikeMatch),
        (&[Keyword::NOT, Keyword::LIKE], BinaryOperator::PGNotLikeMatch),
        (&[Keyword::NOT, Keyword::ILIKE], BinaryOperator::PGNotILikeMatch),
    ];
    for quantifier in [Keyword::ANY, Keyword::SOME, Keyword::ALL] {
        for (words, operator) in &spelled {
            if parser.parse_keywords(&[*words, &[quantifier]].concat()) {
                return Some(parse_array(parser).map(|right| {
                    let (left, right, compare_op) =
                        (Box::new(left.clone()), Box::new(right), operator.clone());
                    match quantifier {
                        Keyword::ALL => Expr::AllOp { left, compare_op, right },
                        _ => Expr::AnyOp { left, compare_op, right, is_some: quantifier == Keyword::SOME },
                    }
                }));
            }
        }
    }
    None
}

/// `(array)`, or `(SELECT …)`.
fn parse_array(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let array = match parser.peek_one_of_keywords(&[Keyword::SELECT, Keyword::WITH]) {
        Some(_) => Expr::Subquery(parser.parse_query()?),
        None => parser.parse_expr()?,
    };
    parser.expect_token(&Token::RParen)?;
    Ok(array)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::UnaryOperator;

    use super::*;

    /// Every operator with parentheses around it.
    fn grouped(expr: &Expr) -> String {
        match expr {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", grouped(left), grouped(right)),
            Expr::IsDistinctFrom(left, right) => format!("({} <> {})", grouped(left), grouped(right)),
            Expr::IsNotDistinctFrom(left, right) => format!("({} == {})", grouped(left), grouped(right)),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => format!("(NOT {})", grouped(expr)),
            Expr::IsNull(expr) => format!("({} IS NULL)", grouped(expr)),
            Expr::Nested(inner) => format!("[{}]", grouped(inner)),
            other => other.to_string(),
        }
    }

    fn parsed(sql: &str) -> Expr {
        let parser = Parser::new(&Postgres).try_with_sql(sql);
        parser.and_then(|mut parser| parser.parse_expr()).expect(sql)
    }

    #[test]
    fn distinct_from_ends_where_postgres_ends_it() {
        let cases = [
            ("a IS DISTINCT FROM b AND c", "((a <> b) AND c)"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "((a == b) OR (c AND d))"),
            ("x AND a IS DISTINCT FROM b OR c", "((x AND (a <> b)) OR c)"),
            ("NOT a IS DISTINCT FROM b AND c", "((NOT (a <> b)) AND c)"),
            ("a IS DISTINCT FROM NOT b AND c", "((a <> (NOT b)) AND c)"),
            ("a IS DISTINCT FROM b = c AND d", "((a <> (b = c)) AND d)"),
            ("a = b IS DISTINCT FROM c + 1 < d", "((a = b) <> ((c + 1) < d))"),
            ("a IS DISTINCT FROM b AND c IS NOT DISTINCT FROM d OR e", "(((a <> b) AND (c == d)) OR e)"),
            ("a IS DISTINCT FROM (b AND c) AND d", "((a <> [(b AND c)]) AND d)"),
            ("a IS NULL AND b IS DISTINCT FROM NULL", "((a IS NULL) AND (b <> NULL))"),
        ];
        for (sql, expected) in cases {
            assert_eq!(grouped(&parsed(sql)), expected, "{sql}");
        }
    }

    #[test]
    fn regular_expressions_bind_as_other_operators() {
        assert_eq!(grouped(&parsed("a = b ~ c")), "(a = (b ~ c))");
        assert_eq!(grouped(&parsed("a || b ~ c || d")), "(((a || b) ~ c) || d)");
    }

    #[test]
    fn like_takes_arrays() {
        let cases = [
            ("a LIKE ANY (b)", "a ~~ ANY(b)"),
            ("a NOT ILIKE ALL (ARRAY['x'])", "a !~~* ALL(ARRAY['x'])"),
            ("a ILIKE SOME (b)", "a ~~* SOME(b)"),
            ("a LIKE b", "a LIKE b"),
            ("a NOT IN (b)", "a NOT IN (b)"),
        ];
        for (sql, expected) in cases {
            assert_eq!(parsed(sql).to_string(), expected);
        }
    }
}
