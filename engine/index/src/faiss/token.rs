//! One component of a factory string, read from its beginning.

/// What is left of it.
pub(super) struct Token<'a> {
    rest: &'a str,
}

impl<'a> Token<'a> {
    pub(super) fn new(rest: &'a str) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether it goes on with `word`, which is then behind.
    pub(super) fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(super) fn starts_with_digit(&self) -> bool {
        self.rest.starts_with(|first: char| first.is_ascii_digit())
    }

    /// A number, unless there is none or it is too large for any use.
    pub(super) fn number(&mut self) -> Option<usize> {
        let end = self.rest.find(|other: char| !other.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse::<u32>().ok().map(|number| number as usize)
    }
}
