//! Does the code keep the rules a machine can judge?
//!
//! The last paragraph of the house style: `//!` present, the import table of `docs/architecture.md`, paths
//! named in docs exist, every `#[expect]` has a reason and there is no `#[allow]`, file and function sizes as
//! a ratchet. `tidy_ratchet.txt` lists what is over the line and how far, each with a word of why; an entry may
//! shrink and must go when it is not needed. Needs no server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use crate::server::repository;

/// Physical lines of a file, tests and comments included.
const MAX_FILE_LINES: usize = 600;
/// Physical lines of a function, from its `fn` to its closing brace.
const MAX_FUNCTION_LINES: usize = 70;
const RATCHET: &str = "tests/tidy_ratchet.txt";

/// A Rust file, relative to the repository.
struct Source {
    path: String,
    text: String,
    /// The text with comments and the insides of literals blanked, line by line the same.
    code: String,
}

fn walk(directory: &Path, wanted: &dyn Fn(&Path) -> bool, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().expect("a name").to_string_lossy();
        if path.is_dir() {
            if !["target", "node_modules", ".git", "__pycache__", "shared"].contains(&name.as_ref()) {
                walk(&path, wanted, out);
            }
        } else if wanted(&path) {
            out.push(path);
        }
    }
}

fn files(extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    walk(&repository(), &|path| path.extension().is_some_and(|found| found == extension), &mut out);
    out
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).expect("in the repository").display().to_string()
}

fn sources() -> Vec<Source> {
    let sources: Vec<Source> = files("rs")
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("a source file");
            Source { path: relative(path), code: blank(&text), text }
        })
        .collect();
    assert!(sources.len() > 50, "only {} source files found: the walk is wrong", sources.len());
    sources
}

fn none_wrong(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let mut wrong = Vec::new();
    for source in sources() {
        let said: usize =
            source.text.lines().take_while(|line| line.starts_with("//!")).map(|line| line.len() - 3).sum();
        if said < 20 {
            wrong.push(source.path);
        }
    }
    none_wrong("these files do not open with `//!`: what it is, who calls it, what it never does", &wrong);
}

#[test]
fn expectations_have_reasons_and_nothing_is_allowed() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (at, _) in source.code.match_indices("#[expect(").chain(source.code.match_indices("#![expect(")) {
            let end = source.code[at..].find(")]").map_or(source.code.len(), |end| at + end);
            if !source.code[at..end].contains("reason =") {
                wrong.push(format!(
                    "{}:{} #[expect] without a reason",
                    source.path,
                    line_of(&source.code, at)
                ));
            }
        }
        for attribute in ["#[allow(", "#![allow("] {
            for (at, _) in source.code.match_indices(attribute) {
                wrong.push(format!("{}:{} {attribute}…)]", source.path, line_of(&source.code, at)));
            }
        }
    }
    none_wrong("write #[expect(lint, reason = \"…\")]", &wrong);
}

#[test]
fn no_folder_is_a_drawer_for_everything() {
    let mut wrong = Vec::new();
    for source in sources() {
        let parts: Vec<&str> = source.path.split('/').collect();
        let bad = ["util", "utils", "common", "helper", "helpers", "misc"];
        if parts.iter().any(|part| bad.contains(&part.trim_end_matches(".rs"))) {
            wrong.push(source.path);
        }
    }
    none_wrong("a folder is a noun of the product", &wrong);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code.lines().enumerate() {
            let opens = line.contains("unsafe {") || line.contains("unsafe impl");
            // The word stands within a few lines above: a comment, perhaps an attribute or the call's start.
            let from = number.saturating_sub(8);
            if opens && !lines[from..=number].iter().any(|line| line.contains("SAFETY:")) {
                wrong.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    none_wrong("`unsafe` without // SAFETY:", &wrong);
}

/// What is over the line today, by key.
fn over_the_line() -> BTreeMap<String, usize> {
    let mut over = BTreeMap::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > MAX_FILE_LINES {
            over.insert(format!("file {}", source.path), lines);
        }
        for (name, lines) in functions(&source.code) {
            if lines > MAX_FUNCTION_LINES {
                let longest = over.entry(format!("fn {}::{name}", source.path)).or_insert(lines);
                *longest = lines.max(*longest);
            }
        }
    }
    over
}

/// Lines of the ratchet: key, number, why.
fn ratchet() -> BTreeMap<String, (usize, String)> {
    let text = fs::read_to_string(repository().join(RATCHET)).expect(RATCHET);
    let entries = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    entries
        .map(|line| {
            let (entry, why) = line.split_once(" # ").unwrap_or((line, ""));
            let (key, number) = entry.trim().rsplit_once(' ').expect("`key number # why`");
            (key.to_owned(), (number.parse().expect("a number of lines"), why.trim().to_owned()))
        })
        .collect()
}

#[test]
fn nothing_small_grows_past_the_line_without_a_word_of_why() {
    let (over, ratchet) = (over_the_line(), ratchet());
    let mut wrong = Vec::new();
    for (key, lines) in &over {
        match ratchet.get(key) {
            None => wrong.push(format!(
                "{key} has {lines} lines: split it, or add `{key} {lines} # why` to {RATCHET}"
            )),
            Some((most, _)) if lines > most => {
                wrong.push(format!("{key} grew from {most} to {lines} lines: split it"))
            }
            Some((most, _)) if lines < most => {
                wrong.push(format!("{key} shrank to {lines} lines: write that in {RATCHET}"))
            }
            Some((_, why)) if why.is_empty() => wrong.push(format!("{key}: {RATCHET} does not say why")),
            Some(_) => {}
        }
    }
    for key in ratchet.keys().filter(|key| !over.contains_key(*key)) {
        wrong.push(format!("{key} is below the line now: take it out of {RATCHET}"));
    }
    none_wrong("sizes", &wrong);
}

/// `types, crypto` of a row of the import table.
fn allowed_imports(cell: &str, crates: &BTreeSet<String>) -> BTreeSet<String> {
    let engine = ["types", "crypto", "index", "storage", "query", "control"];
    let words = cell.split([',', ' ', '`']).filter(|word| !word.is_empty());
    let mut allowed: BTreeSet<String> =
        words.filter(|word| crates.contains(*word)).map(ToOwned::to_owned).collect();
    if cell.contains("every engine crate") {
        allowed.extend(engine.map(ToOwned::to_owned));
    }
    allowed
}

#[test]
fn crates_import_what_the_architecture_page_allows() {
    let page = fs::read_to_string(repository().join("docs/architecture.md")).expect("docs/architecture.md");
    let mut manifests = BTreeMap::new();
    for path in files("toml").iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(path).expect("a manifest");
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"sepal-")?.strip_suffix('"'));
        if let Some(name) = name {
            manifests.insert(name.to_owned(), text);
        }
    }
    let crates: BTreeSet<String> = manifests.keys().cloned().collect();
    let rows: BTreeMap<String, BTreeSet<String>> = page
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            let [name, may, _] = cells[..] else { return None };
            let name = name.trim_matches('`');
            crates.contains(name).then(|| (name.to_owned(), allowed_imports(may, &crates)))
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, manifest) in &manifests {
        if ["tests", "benches"].contains(&name.as_str()) {
            continue;
        }
        let Some(allowed) = rows.get(name) else {
            wrong.push(format!("{name} has no row in the import table of docs/architecture.md"));
            continue;
        };
        let shipped = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in shipped.lines().filter_map(|line| line.strip_prefix("sepal-")) {
            let imported: String =
                line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            if !allowed.contains(&imported) {
                wrong.push(format!("{name} imports {imported}, which the import table does not allow"));
            }
        }
    }
    none_wrong("the import table of docs/architecture.md", &wrong);
}

#[test]
fn only_one_crate_names_each_danger() {
    let seams = [
        ("datafusion", &["engine/query/", "engine/database/"][..]),
        ("aes", &["engine/crypto/"]),
        ("wasmtime", &["plugins/"]),
        ("faiss_sys", &["engine/index/"]),
        ("rusqlite", &["engine/control/"]),
        ("object_store", &["plugins/", "backup/"]),
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, homes) in seams {
            let at_home =
                homes.iter().any(|home| source.path.starts_with(home)) || source.path.starts_with("benches/");
            let uses =
                source.code.contains(&format!("use {name}::")) || source.code.contains(&format!(" {name}::"));
            if uses && !at_home {
                wrong.push(format!("{} names {name}, which belongs in {}", source.path, homes.join(" and ")));
            }
        }
    }
    none_wrong("one seam per danger", &wrong);
}

/// Words in backticks and link targets of a page.
fn mentioned(page: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        out.extend(line.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            out.push(rest[..rest.find(')').unwrap_or(rest.len())].to_owned());
        }
    }
    out
}

#[test]
fn paths_named_in_docs_exist() {
    let root = repository();
    let folders: BTreeSet<String> = fs::read_dir(&root)
        .expect("the repository")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in files("md") {
        let text = fs::read_to_string(&page).expect("a page");
        for word in mentioned(&text) {
            let path = word.split(['#', ':']).next().unwrap_or_default();
            let first = path.split('/').next().unwrap_or_default();
            let is_path = path.contains('/')
                && !path.contains([' ', '<', '*', '{', '…', '$', '('])
                && folders.contains(first);
            if !is_path {
                continue;
            }
            checked += 1;
            let beside = page.parent().expect("a folder").join(path);
            if !root.join(path).exists() && !beside.exists() {
                wrong.push(format!("{} names {path}", relative(&page)));
            }
        }
    }
    assert!(checked > 3, "only {checked} paths found in the docs: the search is wrong");
    none_wrong("these paths do not exist", &wrong);
}

#[test]
fn the_judge_can_read_rust() {
    let text = "fn a() {\n    let s = \"}}\\\"{\"; // }\n    let c = '}'; let l: &'static str = r#\"}\"#;\n}\n/* fn no() { */\nfn b<'a>(x: &'a u8) -> u8\nwhere\n    u8: Copy,\n{\n    *x\n}\ntrait T { fn c(); }\n";
    let code = blank(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let mut expected = String::new();
    for (name, lines) in functions(&code) {
        let _ = write!(expected, "{name} {lines} ");
    }
    assert_eq!(expected, "a 4 b 6 ");
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Replaces comments and the insides of string and character literals by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = skip(bytes, at);
        if end > at {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).expect("spaces are UTF-8")
}

/// Where the comment or literal that starts here ends; `at` if none does.
fn skip(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
    let in_word = before.is_ascii_alphanumeric() || before == b'_';
    let until = |from: usize, end: &[u8]| {
        let found = bytes[from..].windows(end.len()).position(|window| window == end);
        found.map_or(bytes.len(), |found| from + found + end.len())
    };
    match rest {
        [b'/', b'/', ..] => until(at, b"\n") - 1,
        [b'/', b'*', ..] => block_comment(bytes, at),
        [b'r', b'"' | b'#', ..] if !in_word || before == b'b' => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at;
            }
            let end: Vec<u8> = [&b"\""[..], &b"#".repeat(hashes)].concat();
            until(at + 2 + hashes, &end)
        }
        [b'"', ..] => quoted(bytes, at, b'"'),
        // A lifetime has no closing quote; a character has one within a few bytes.
        [b'\'', b'\\', ..] => quoted(bytes, at, b'\''),
        [b'\'', _, ..] => match rest[1..].iter().take(6).position(|byte| *byte == b'\'') {
            Some(length)
                if length > 0
                    && std::str::from_utf8(&rest[1..=length]).is_ok_and(|c| c.chars().count() == 1) =>
            {
                at + length + 2
            }
            _ => at,
        },
        _ => at,
    }
}

fn quoted(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn block_comment(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// Names and line counts of functions with a body.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut out = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if before.is_alphanumeric() || before == '_' || name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(code.as_bytes(), at) {
            out.push((name, line_of(code, end) - line_of(code, at) + 1));
        }
    }
    out
}

/// The closing brace of the function whose `fn` is here; `None` for a declaration.
fn body_end(code: &[u8], from: usize) -> Option<usize> {
    let (mut braces, mut others) = (0_i32, 0_i32);
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others -= 1,
            b';' if braces == 0 && others == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && others == 0 {
                    return Some(at);
                }
                if braces < 0 {
                    return None;
                }
            }
            _ => {}
        }
    }
    None
}
