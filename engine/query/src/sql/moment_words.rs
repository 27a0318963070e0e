//! Words that mean the moment at which they are read, where a date or a time is wanted: `at > 'today'`.
//!
//! Asked by `change`, which refuses them in a pipeline's query, and by `database`, which keeps the plans of statements: a
//! plan has the moment in it, and the next time such a text comes it means another one.

const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Whether a literal of this text may be read so.
pub fn is_moment(text: &str) -> bool {
    text.split_whitespace().any(|word| WORDS.iter().any(|moment| word.eq_ignore_ascii_case(moment)))
}

/// Whether a statement may have such a literal: the word stands in it, and is not the name of a function that is called.
pub fn may_name_moment(sql: &str) -> bool {
    let lower = sql.to_ascii_lowercase();
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    WORDS.iter().any(|word| {
        lower.match_indices(word).any(|(start, _)| {
            let (before, after) = lower.as_bytes().split_at(start);
            let after = &after[word.len()..];
            !is_part(before.last()) && !is_part(after.first()) && after.first() != Some(&b'(')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_by_itself_is_a_moment() {
        assert!(is_moment(" NOW ") && is_moment("today 12:00") && !is_moment("nowhere") && !is_moment(""));
        for sql in ["SELECT 'now'", "SELECT $$Today$$", "SELECT 'today 12:00'::timestamp", "WHERE d = E'now'"]
        {
            assert!(may_name_moment(sql), "{sql}");
        }
        for sql in ["SELECT now()", "SELECT known FROM t", "SELECT today_id FROM t", "SELECT 'nowhere'"] {
            assert!(!may_name_moment(sql), "{sql}");
        }
    }
}
