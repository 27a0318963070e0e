//! Locking clauses, in the one form that sqlparser reads.
//!
//! It knows `FOR UPDATE` and `FOR SHARE` with one name after OF, last in a query. Postgres has four strengths, several
//! names, and lets LIMIT follow. On the tokens each clause becomes one per name, moved behind LIMIT, with its strength
//! as the first part of the name: `FOR KEY SHARE OF a, b` is
//! `FOR UPDATE OF "strength"."a" FOR UPDATE OF "strength"."b"`. [`marked_lock`] reads that again. Right after a SELECT's
//! list the parser would take FOR as a column's name, so `WHERE TRUE` is put between.

use datafusion::sql::sqlparser::{
    ast::ObjectName,
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan, Word},
};

use super::tokens;
use crate::locking::RowMode;

/// What no identifier begins with. If a client's did, it would only name a strength.
const MARK: &str = "\u{1}lock:";

const STRENGTHS: [(RowMode, &[&str]); 4] = [
    (RowMode::KeyShare, &["KEY", "SHARE"]),
    (RowMode::Share, &["SHARE"]),
    (RowMode::NoKeyUpdate, &["NO", "KEY", "UPDATE"]),
    (RowMode::Update, &["UPDATE"]),
];

/// Words that end what may follow a locking clause.
const AFTER: [&str; 8] = ["EXCEPT", "FOR", "INTERSECT", "ON", "ORDER", "RETURNING", "UNION", "WHERE"];

/// Words that end a SELECT's list.
const AFTER_LIST: [&str; 10] =
    ["FETCH", "FROM", "GROUP", "HAVING", "LIMIT", "OFFSET", "ORDER", "VALUES", "WHERE", "WINDOW"];

/// A clause, by its places among the significant tokens.
struct Clause {
    start: usize,
    end: usize,
    strength: usize,
    /// Places of the names' last parts.
    names: Vec<usize>,
    policy: Vec<usize>,
}

/// Rewrites every locking clause.
pub fn mark(tokens: &mut Vec<TokenWithSpan>) {
    let has_for = |token: &TokenWithSpan| is_word(token, "FOR");
    if !tokens.iter().any(has_for) {
        return;
    }
    tokens.retain(tokens::is_significant);
    let mut at = 0;
    while at < tokens.len() {
        let Some(clause) = read(tokens, at) else {
            at += 1;
            continue;
        };
        let written = write(tokens, &clause);
        let between =
            if ends_list(&tokens[..clause.start]) { always(&tokens[clause.start]) } else { Vec::new() };
        let end = end_of_query(tokens, clause.end);
        let moved: Vec<TokenWithSpan> = tokens[clause.end..end].to_vec();
        // What was between is read on from here: another clause may be in it.
        at = clause.start + between.len();
        let next = at + moved.len() + written.len();
        let rest = between.into_iter().chain(moved).chain(written);
        tokens.splice(clause.start..end, rest);
        if end == clause.end {
            at = next;
        }
    }
}

/// The strength and the name of a marked clause; no name where it is about all items of FROM.
pub fn marked_lock(of: &ObjectName) -> Option<(RowMode, Option<String>)> {
    let [strength, name] = of.0.as_slice() else { return None };
    let number: usize = strength.as_ident()?.value.strip_prefix(MARK)?.parse().ok()?;
    let (mode, _) = STRENGTHS.get(number)?;
    let name = &name.as_ident()?.value;
    Some((*mode, (!name.is_empty()).then(|| name.clone())))
}

fn is_word(token: &TokenWithSpan, text: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(text))
}

fn words_at(tokens: &[TokenWithSpan], at: usize, words: &[&str]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(offset, word)| tokens.get(at + offset).is_some_and(|token| is_word(token, word)))
}

/// The clause that begins at `start`, unless it has been rewritten already.
fn read(tokens: &[TokenWithSpan], start: usize) -> Option<Clause> {
    if !is_word(tokens.get(start)?, "FOR") {
        return None;
    }
    let (strength, (_, words)) =
        STRENGTHS.iter().enumerate().find(|(_, (_, words))| words_at(tokens, start + 1, words))?;
    let mut end = start + 1 + words.len();
    let mut names = Vec::new();
    if words_at(tokens, end, &["OF"]) {
        loop {
            end += 1;
            // A qualified name: its last part is the table's.
            while matches!(tokens.get(end + 1).map(|token| &token.token), Some(Token::Period)) {
                end += 2;
            }
            match tokens.get(end).map(|token| &token.token) {
                Some(Token::Word(_)) => names.push(end),
                // The parser says what is wrong.
                _ => return None,
            }
            let first = if end >= 2 { &tokens[end - 2].token } else { &tokens[end].token };
            if matches!(first, Token::Word(word) if word.value.starts_with(MARK)) {
                return None;
            }
            end += 1;
            if !matches!(tokens.get(end).map(|token| &token.token), Some(Token::Comma)) {
                break;
            }
        }
    }
    let mut policy = Vec::new();
    for words in [&["NOWAIT"][..], &["SKIP", "LOCKED"]] {
        if words_at(tokens, end, words) {
            policy = (end..end + words.len()).collect();
            end += words.len();
        }
    }
    Some(Clause { start, end, strength, names, policy })
}

fn write(tokens: &[TokenWithSpan], clause: &Clause) -> Vec<TokenWithSpan> {
    let span = tokens[clause.start].span;
    let token = |token: Token| TokenWithSpan::new(token, span);
    let quoted = |value: String| {
        token(Token::Word(Word { value, quote_style: Some('"'), keyword: Keyword::NoKeyword }))
    };
    let name = |place: &usize| match &tokens[*place].token {
        Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
        Token::Word(word) => word.value.to_lowercase(),
        _ => String::new(),
    };
    let names: Vec<String> =
        if clause.names.is_empty() { vec![String::new()] } else { clause.names.iter().map(name).collect() };
    let mut written = Vec::new();
    for name in names {
        written.extend(["FOR", "UPDATE", "OF"].map(|word| token(Token::make_keyword(word))));
        written.push(quoted(format!("{MARK}{}", clause.strength)));
        written.push(token(Token::Period));
        written.push(quoted(name));
        written.extend(clause.policy.iter().map(|place| tokens[*place].clone()));
    }
    written
}

/// Whether these tokens end with the list of a SELECT that has nothing after it, not even FROM.
fn ends_list(tokens: &[TokenWithSpan]) -> bool {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().rev() {
        match &token.token {
            Token::RParen => depth += 1,
            Token::LParen if depth == 0 => return false,
            Token::LParen => depth -= 1,
            Token::SemiColon => return false,
            _ if depth > 0 => {}
            _ if is_word(token, "SELECT") => return true,
            // `a IS DISTINCT FROM b`
            _ if is_word(token, "FROM") && at > 0 && is_word(&tokens[at - 1], "DISTINCT") => {}
            _ if AFTER_LIST.iter().any(|word| is_word(token, word)) => return false,
            _ => {}
        }
    }
    false
}

/// A condition that every row meets, at the place of a token.
fn always(place: &TokenWithSpan) -> Vec<TokenWithSpan> {
    ["WHERE", "TRUE"].map(|word| TokenWithSpan::new(Token::make_keyword(word), place.span)).into()
}

/// Where LIMIT, OFFSET or FETCH after a clause ends; right there if none of them follows.
fn end_of_query(tokens: &[TokenWithSpan], from: usize) -> usize {
    if !["LIMIT", "OFFSET", "FETCH"].iter().any(|word| words_at(tokens, from, &[word])) {
        return from;
    }
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return at,
            Token::RParen => depth -= 1,
            Token::SemiColon if depth == 0 => return at,
            _ if depth == 0 && AFTER.iter().any(|word| is_word(token, word)) => return at,
            _ => {}
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::{self, SetExpr};

    use super::*;
    use crate::sql::{StatementKind, parse_statements};

    type Lock = (RowMode, Option<String>, Option<ast::NonBlock>);

    fn locks(sql: &str) -> Vec<Lock> {
        let kind = parse_statements(sql).unwrap().pop().unwrap().kind;
        let StatementKind::Sql(statement) = kind else { panic!("{sql}") };
        let ast::Statement::Query(query) = *statement else { panic!("{sql}") };
        assert!(matches!(*query.body, SetExpr::Select(_)));
        let read = |clause: ast::LockClause| {
            let (mode, of) = marked_lock(&clause.of.unwrap()).unwrap();
            (mode, of, clause.nonblock)
        };
        query.locks.into_iter().map(read).collect()
    }

    #[test]
    fn every_form_of_a_locking_clause_is_read() {
        let skip = Some(ast::NonBlock::SkipLocked);
        assert_eq!(locks("SELECT 1 FROM t FOR UPDATE"), [(RowMode::Update, None, None)]);
        assert_eq!(
            locks("select id from t order by id for no key update skip locked limit 1"),
            [(RowMode::NoKeyUpdate, None, skip)]
        );
        assert_eq!(
            locks("SELECT 1 FROM t LIMIT 2 OFFSET 1 FOR KEY SHARE OF A, \"B\" NOWAIT FOR SHARE OF public.c"),
            [
                (RowMode::KeyShare, Some("a".into()), Some(ast::NonBlock::Nowait)),
                (RowMode::KeyShare, Some("B".into()), Some(ast::NonBlock::Nowait)),
                (RowMode::Share, Some("c".into()), None),
            ]
        );
        assert_eq!(locks("SELECT substring('abc' FROM 1 FOR 2) FROM t"), []);
    }

    #[test]
    fn a_clause_may_follow_the_list() {
        let update: Lock = (RowMode::Update, None, None);
        for sql in [
            "SELECT 1 FOR UPDATE",
            "SELECT 1, (SELECT max(id) FROM t) FOR UPDATE",
            "SELECT 1 IS DISTINCT FROM 2 FOR UPDATE",
            "SELECT 1 AS one FOR UPDATE LIMIT 1",
        ] {
            assert_eq!(locks(sql), std::slice::from_ref(&update), "{sql}");
        }
        let share: Lock = (RowMode::Share, Some("t".into()), None);
        assert_eq!(locks("SELECT 1 FOR UPDATE FOR SHARE OF t"), [update, share]);
    }

    #[test]
    fn clauses_of_inner_queries_stay_there() {
        let sql =
            "UPDATE q SET s = 1 WHERE id = (SELECT id FROM q FOR UPDATE SKIP LOCKED LIMIT 1) RETURNING id";
        assert!(parse_statements(sql).is_ok());
        let sql = "INSERT INTO t SELECT id FROM q FOR SHARE LIMIT 1 ON CONFLICT DO NOTHING";
        assert!(parse_statements(sql).is_ok());
    }
}
