//! FAISS' factory strings: which of them `USING faiss` takes, and what they say about an index.
//!
//! Called when an index is created, built and opened. FAISS reads such a string with regular expressions that recurse,
//! numbers that may be 0 where it divides by them, and assertions that end the process; so the string is read here
//! first, every number is held within bounds, and FAISS gets what is written anew from what was understood. Nothing of
//! this reaches a file, a GPU or a network.
//!
//! ```text
//! [transform,]…  store  [,RFlat | ,Refine(Flat | SQ…)]
//!
//! transform   PCA[W][R]<d>  OPQ<m>[_<d>]  RR[<d>]  L2norm  Pad<d>
//! store       [cells,] code  |  HNSW[<m>][,Flat | ,SQ… | ,PQ…]  |  LSH[<bits>][r][t]
//! cells       IVF<n>  IVF<n>k  IVF<n>_HNSW[<m>]
//! code        Flat  SQ4  SQ6  SQ8  SQfp16  SQbf16  PQ<m>[x<bits>][np]  PQ<m>x4fs  RaBitQ
//! ```
//!
//! `RFlat` and `Refine` are left out of what FAISS gets: rows that it finds are always scored again from the table's
//! own vectors, so a second copy of them would only take memory. So is polysemous training, of which nothing in SQL
//! makes use.

use std::fmt::Write;

use super::token::Token;
use crate::IndexError;

const MOST_BYTES: usize = 100;
const MOST_TRANSFORMS: usize = 4;
/// FAISS learns a transform with matrices of so many rows and columns.
const MOST_LEARNED: usize = 4_096;
/// OPQ learns fifty of them.
const MOST_OPQ: usize = 2_048;
const MOST_CELLS: usize = 65_536;
const MOST_CODE_BITS: u32 = 12;
/// Numbers of one quantizer's centroids.
const MOST_CENTROIDS: usize = 1 << 24;
/// FAISS warns of codes that are learned from fewer rows a centroid.
const ROWS_A_CENTROID: usize = 39;
/// OPQ learns codes of 8 bits on its way.
const OPQ_BITS: u32 = 8;
const HNSW_LINKS: usize = 32;
const BITS_OF_FAST_SCAN: u32 = 4;

/// How a search tells FAISS which rows it may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Select {
    /// Not at all: more are asked for, and others dropped.
    Never,
    /// Like others, by `SearchParameters`.
    Plain,
    /// With the number of cells, by `SearchParametersIVF`.
    Cells,
}

/// A factory string that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Factory {
    /// As the user wrote it.
    pub(super) given: Box<str>,
    /// What FAISS gets.
    pub(super) written: String,
    /// `IVF`: how many cells.
    pub(super) cells: Option<usize>,
    /// `HNSW`: a walk, whose width can be set.
    pub(super) walks: bool,
    /// FAISS' distances are the rows' own: it need not be asked for more than are wanted.
    pub(super) lossless: bool,
    pub(super) select: Select,
    /// Fewer rows than this cannot be trained on.
    pub(super) least_rows: usize,
    /// FAISS finds cells among the rows as they are, so that we can do it step by step.
    pub(super) plain_cells: bool,
    /// Bytes of a row's code and links.
    pub(super) row_bytes: usize,
    /// Bytes of the table that FAISS computes when it opens a product quantizer over residuals of cells.
    pub(super) table_bytes: usize,
}

/// Codes without training of their own, and their bits for an element.
const CODES: [(&str, usize); 7] =
    [("Flat", 32), ("SQ4", 4), ("SQ6", 6), ("SQ8", 8), ("SQfp16", 16), ("SQbf16", 16), ("RaBitQ", 1)];
/// What a walk keeps of a row beside its links in the lowest layer: on average two more, its level and its place.
const WALK_BITS: usize = 5 * 32;

/// What is known of a factory while it is read.
struct Parse<'a> {
    given: &'a str,
    /// Of the vectors that the next component sees.
    dim: usize,
    factory: Factory,
}

impl Factory {
    /// # Errors
    /// [`IndexError::Factory`]
    pub(super) fn parse(given: &str, dim: usize) -> Result<Self, IndexError> {
        let factory = Self {
            given: given.into(),
            written: String::with_capacity(given.len()),
            cells: None,
            walks: false,
            lossless: false,
            select: Select::Never,
            least_rows: 1,
            plain_cells: false,
            row_bytes: 0,
            table_bytes: 0,
        };
        let mut parse = Parse { given, dim, factory };
        if given.len() > MOST_BYTES || !given.is_ascii() {
            let why = format!("it has {} bytes; at most {MOST_BYTES} of ASCII are read", given.len());
            return Err(parse.wrong(why));
        }
        let mut components: Vec<&str> = given.split(',').collect();
        if components.len() > 1 && components.last().copied().is_some_and(is_refinement) {
            components.pop();
        }
        parse.components(&components)?;
        Ok(parse.factory)
    }
}

impl Parse<'_> {
    fn components(&mut self, components: &[&str]) -> Result<(), IndexError> {
        let mut rest = components;
        while let [first, others @ ..] = rest
            && !others.is_empty()
            && self.transform(first)?
        {
            rest = others;
            if components.len() - rest.len() > MOST_TRANSFORMS {
                return Err(self.wrong(format!("more than {MOST_TRANSFORMS} transforms")));
            }
        }
        let transformed = rest.len() < components.len();
        match rest {
            [cells, code] if cells.starts_with("IVF") => {
                self.cells(cells)?;
                self.code(code)?;
                let coarse = self.factory.cells.is_some();
                self.factory.plain_cells = coarse && !transformed;
            }
            [walk] if walk.starts_with("HNSW") => self.walk(walk, "Flat")?,
            [walk, code] if walk.starts_with("HNSW") => self.walk(walk, code)?,
            [code] if code.starts_with("LSH") => self.hash(code)?,
            [code] => self.code(code)?,
            _ => return Err(self.wrong(format!("\"{}\" is not read by Sepal", rest.join(",")))),
        }
        self.factory.lossless &= !transformed;
        Ok(())
    }

    /// False for a component that is none.
    fn transform(&mut self, text: &str) -> Result<bool, IndexError> {
        let mut token = Token::new(text);
        let dim = self.dim;
        if token.takes("PCA") {
            let (whitens, rotates) = (token.takes("W"), token.takes("R"));
            let out = self.number(&mut token, text, 1, dim.min(MOST_LEARNED))?;
            self.learned(text, MOST_LEARNED)?;
            self.needs_rows(dim);
            let (whitens, rotates) = (if whitens { "W" } else { "" }, if rotates { "R" } else { "" });
            self.write(format_args!("PCA{whitens}{rotates}{out}"));
            self.dim = out;
        } else if token.takes("OPQ") {
            let parts = self.number(&mut token, text, 1, dim)?;
            let out = if token.takes("_") { self.number(&mut token, text, 1, dim)? } else { dim };
            self.learned(text, MOST_OPQ)?;
            self.divides(text, parts, out)?;
            self.needs_rows(dim.max(ROWS_A_CENTROID << OPQ_BITS));
            self.write(format_args!("OPQ{parts}_{out}"));
            self.dim = out;
        } else if token.takes("RR") {
            let out = if token.is_empty() { dim } else { self.number(&mut token, text, 1, dim)? };
            self.learned(text, MOST_LEARNED)?;
            self.write(format_args!("RR{out}"));
            self.dim = out;
        } else if token.takes("L2norm") || token.takes("L2Norm") {
            self.write(format_args!("L2norm"));
        } else if token.takes("Pad") {
            let out = self.number(&mut token, text, dim, sepal_types::limits::MAX_DIMENSIONS)?;
            self.write(format_args!("Pad{out}"));
            self.dim = out;
        } else {
            return Ok(false);
        }
        self.ends(&token, text)?;
        Ok(true)
    }

    fn cells(&mut self, text: &str) -> Result<(), IndexError> {
        let mut token = Token::new(text);
        token.takes("IVF");
        let mut cells = self.number(&mut token, text, 1, MOST_CELLS)?;
        if token.takes("k") {
            cells *= 1_024;
        }
        if cells > MOST_CELLS {
            return Err(self.wrong(format!("\"{text}\" makes {cells} cells; the most are {MOST_CELLS}")));
        }
        if token.takes("_HNSW") {
            let links = self.links(&mut token, text)?;
            self.write(format_args!("IVF{cells}_HNSW{links}"));
        } else {
            self.write(format_args!("IVF{cells}"));
        }
        self.needs_rows(cells);
        (self.factory.cells, self.factory.select) = (Some(cells), Select::Cells);
        self.ends(&token, text)
    }

    fn walk(&mut self, text: &str, code: &str) -> Result<(), IndexError> {
        let mut token = Token::new(text);
        token.takes("HNSW");
        let links = self.links(&mut token, text)?;
        self.ends(&token, text)?;
        if code.contains("fs") || code.starts_with("RaBitQ") {
            return Err(self.wrong(format!("HNSW has no codes \"{code}\"; it has Flat, SQ… and PQ…")));
        }
        self.write(format_args!("HNSW{links}"));
        self.keeps(2 * 32 * links + WALK_BITS);
        self.code(code)?;
        (self.factory.walks, self.factory.select) = (true, Select::Plain);
        Ok(())
    }

    fn hash(&mut self, text: &str) -> Result<(), IndexError> {
        let mut token = Token::new(text);
        token.takes("LSH");
        let digits = token.starts_with_digit();
        let bits = if digits { self.number(&mut token, text, 1, self.dim)? } else { self.dim };
        let (rotates, trains) = (token.takes("r"), token.takes("t"));
        if rotates {
            self.learned(text, MOST_LEARNED)?;
        }
        let (rotates, trains) = (if rotates { "r" } else { "" }, if trains { "t" } else { "" });
        self.write(format_args!("LSH{bits}{rotates}{trains}"));
        self.keeps(bits);
        self.ends(&token, text)
    }

    /// What is kept of each row.
    fn code(&mut self, text: &str) -> Result<(), IndexError> {
        let has_cells = self.factory.cells.is_some();
        let plain = if has_cells { Select::Cells } else { Select::Plain };
        if let Some((known, bits)) = CODES.into_iter().find(|(known, _)| *known == text) {
            (self.factory.lossless, self.factory.select) = (known == "Flat", plain);
            self.keeps(bits * self.dim);
            self.write(format_args!("{known}"));
            return Ok(());
        }
        let mut token = Token::new(text);
        if !token.takes("PQ") {
            return Err(self.wrong(format!("\"{text}\" is not read by Sepal")));
        }
        let parts = self.number(&mut token, text, 1, self.dim)?;
        self.divides(text, parts, self.dim)?;
        // Not with the `r` of FAISS: over residuals it searches wrong cells when a query brings its number of probes.
        if token.takes("x4fs") {
            self.learns_centroids(text, parts, BITS_OF_FAST_SCAN, false)?;
            self.write(format_args!("PQ{parts}x4fs"));
        } else {
            let bits = if token.takes("x") {
                self.number(&mut token, text, 1, MOST_CODE_BITS as usize)? as u32
            } else {
                8
            };
            token.takes("np");
            self.learns_centroids(text, parts, bits, has_cells)?;
            self.write(format_args!("PQ{parts}x{bits}np"));
        }
        self.ends(&token, text)
    }

    /// For a product quantizer: how many rows its centroids need, and how large FAISS' table for residuals becomes.
    fn learns_centroids(
        &mut self,
        text: &str,
        parts: usize,
        bits: u32,
        residual: bool,
    ) -> Result<(), IndexError> {
        let centroids = 1usize << bits;
        if self.dim * centroids > MOST_CENTROIDS {
            let why = format!(
                "\"{text}\" has {centroids} centroids of {} dimensions: fewer bits, please",
                self.dim
            );
            return Err(self.wrong(why));
        }
        self.needs_rows(ROWS_A_CENTROID * centroids);
        self.keeps(parts * bits as usize);
        if let Some(cells) = self.factory.cells.filter(|_| residual) {
            self.factory.table_bytes = cells * parts * centroids * size_of::<f32>();
        }
        Ok(())
    }

    fn links(&self, token: &mut Token, text: &str) -> Result<usize, IndexError> {
        if token.starts_with_digit() { self.number(token, text, 2, 128) } else { Ok(HNSW_LINKS) }
    }

    fn number(&self, token: &mut Token, text: &str, least: usize, most: usize) -> Result<usize, IndexError> {
        let number = token.number();
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
            let has = number.map_or("none".to_owned(), |number| number.to_string());
            self.wrong(format!("\"{text}\" needs a number from {least} to {most} where it has {has}"))
        })
    }

    fn divides(&self, text: &str, parts: usize, dim: usize) -> Result<(), IndexError> {
        if dim.is_multiple_of(parts) {
            return Ok(());
        }
        Err(self.wrong(format!(
            "\"{text}\" divides {dim} dimensions into {parts} parts; {parts} must divide them"
        )))
    }

    fn learned(&self, text: &str, most: usize) -> Result<(), IndexError> {
        if self.dim <= most {
            return Ok(());
        }
        Err(self.wrong(format!("\"{text}\" takes vectors of up to {most} dimensions, not of {}", self.dim)))
    }

    fn ends(&self, token: &Token, text: &str) -> Result<(), IndexError> {
        if token.is_empty() { Ok(()) } else { Err(self.wrong(format!("\"{text}\" is not read by Sepal"))) }
    }

    /// Of each row.
    fn keeps(&mut self, bits: usize) {
        self.factory.row_bytes += bits.div_ceil(8);
    }

    fn needs_rows(&mut self, rows: usize) {
        self.factory.least_rows = self.factory.least_rows.max(rows);
    }

    fn write(&mut self, component: std::fmt::Arguments) {
        let written = &mut self.factory.written;
        if !written.is_empty() {
            written.push(',');
        }
        // Writing to a string cannot fail.
        let _ = written.write_fmt(component);
    }

    fn wrong(&self, why: String) -> IndexError {
        IndexError::Factory { factory: self.given.chars().take(MOST_BYTES).collect(), why }
    }
}

fn is_refinement(component: &str) -> bool {
    let inner = component.strip_prefix("Refine(").and_then(|rest| rest.strip_suffix(')'));
    component == "RFlat"
        || inner.is_some_and(|inner| ["Flat", "SQ4", "SQ6", "SQ8", "SQfp16", "SQbf16"].contains(&inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &str) -> Factory {
        Factory::parse(given, 64).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(given: &str) -> String {
        match Factory::parse(given, 64) {
            Err(IndexError::Factory { factory, why }) => {
                assert!(given.starts_with(&factory));
                why
            }
            other => panic!("{given}: {other:?}"),
        }
    }

    #[test]
    fn what_faiss_gets() {
        let cases = [
            ("Flat", "Flat"),
            ("IVF4096,PQ64x4fs,RFlat", "IVF4096,PQ64x4fs"),
            ("IVF4k,PQ32", "IVF4096,PQ32x8np"),
            ("IVF1024_HNSW,SQ8,Refine(SQfp16)", "IVF1024_HNSW32,SQ8"),
            ("OPQ16_32,IVF256,PQ16x4fs", "OPQ16_32,IVF256,PQ16x4fs"),
            ("PCAWR32,L2Norm,IVF100,Flat", "PCAWR32,L2norm,IVF100,Flat"),
            ("HNSW", "HNSW32,Flat"),
            ("HNSW16,PQ8x6np", "HNSW16,PQ8x6np"),
            ("RR,PQ16", "RR64,PQ16x8np"),
            ("Pad96,PQ12x4fs", "Pad96,PQ12x4fs"),
            ("LSHrt", "LSH64rt"),
            ("IVF64,RaBitQ", "IVF64,RaBitQ"),
        ];
        for (given, written) in cases {
            let factory = read(given);
            assert_eq!((&*factory.given, factory.written.as_str()), (given, written));
        }
    }

    #[test]
    fn what_is_known_of_an_index() {
        let cells = read("IVF4096,PQ64x4fs,RFlat");
        assert_eq!((cells.cells, cells.select, cells.least_rows), (Some(4096), Select::Cells, 4096));
        assert!(cells.plain_cells && !cells.lossless && !cells.walks && cells.table_bytes == 0);
        let residuals = read("IVF16,PQ8");
        assert_eq!((residuals.table_bytes, residuals.least_rows), (16 * 8 * 256 * 4, 39 * 256));
        assert!(!read("RR,IVF16,Flat").plain_cells && !read("RR,IVF16,Flat").lossless);
        assert!(read("IVF16,Flat").lossless && read("HNSW,Flat").lossless && !read("HNSW,SQ8").lossless);
        let walk = read("HNSW32,PQ16");
        assert_eq!((walk.select, walk.walks, walk.cells), (Select::Plain, true, None));
        for (given, bytes) in [
            ("Flat", 4 * 64),
            ("IVF16,SQ6", 48),
            ("IVF4096,PQ64x4fs,RFlat", 32),
            ("OPQ16_32,PQ16", 16),
            ("PCA32,SQ8", 32),
            ("HNSW16,SQ8", 2 * 16 * 4 + 20 + 64),
            ("LSH10", 2),
            ("RaBitQ", 8),
        ] {
            assert_eq!(read(given).row_bytes, bytes, "{given}");
        }
        for (given, select) in [
            ("PQ16", Select::Never),
            ("PQ16x4fs", Select::Never),
            ("LSH", Select::Never),
            ("SQ8", Select::Plain),
        ] {
            assert_eq!(read(given).select, select, "{given}");
        }
    }

    #[test]
    fn what_could_harm_is_refused() {
        // FAISS divides by these, or ends the process.
        for given in
            ["PQ0", "OPQ0,Flat", "IVF0,Flat", "HNSW0", "HNSW1", "IVF16(Index5),Flat", "PCA0,Flat", "LSH0"]
        {
            refused(given);
        }
        // It would allocate what no machine has, or compute for days.
        for given in [
            "IVF99999999,Flat",
            "IVF65k,Flat",
            "PQ8x24",
            "Pad99999999,Flat",
            "HNSW9999999",
            "PQ99999999999999999999",
        ] {
            refused(given);
        }
        for given in [
            "",
            ",",
            "Flat,",
            ",Flat",
            "flat",
            "Flat ",
            "IVF16",
            "IVF16,",
            "RFlat",
            "Flat,Flat",
            "PQ7",
            "PQ65",
            "SQ5",
            "SQ8_direct",
            "IDMap,Flat",
            "NSG32",
            "RQ8x8",
            "IVF16,IVF16,Flat",
            "HNSW32,PQ16x4fs",
            "HNSW32,RaBitQ",
            "PQ16fs",
            "Refine(Flat)",
            "Flat,Refine(IVF16,Flat)",
            "IVF16,PQ16x4fsr",
            "PCA65,Flat",
            "RR,RR,RR,RR,RR,Flat",
            "LSH65",
            "Flat\0",
            "Fläche",
        ] {
            refused(given);
        }
        assert!(refused(&"PCA8,".repeat(50)).contains("250 bytes"));
        assert!(refused("IVF16,PQ7").contains("7 must divide"));
        let wide = Factory::parse("OPQ8,Flat", 4_000).unwrap_err().to_string();
        assert!(wide.contains("up to 2048 dimensions, not of 4000"), "{wide}");
        assert!(Factory::parse("PQ8x12", 16_000).is_err());
    }
}
