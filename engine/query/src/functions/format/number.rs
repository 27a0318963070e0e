//! Numbers as a pattern wants them (`NUM_processor`): `9`, `0`, `.`, `,`, `D`, `G`, `FM`, `S`, `MI`, `PL`, `SG`, `PR`,
//! `TH`, and what is copied.

use sepal_types::{Error, SqlState};

use super::moment::suffix;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Nine,
    Zero,
    Point,
    Comma,
    /// `S`
    Sign,
    /// `MI`
    Minus,
    /// `PL`
    Plus,
    /// `SG`
    Either,
    /// `PR`
    Brackets,
    /// `TH`, `th`
    Ordinal(bool),
    Literal(char),
}

struct Pattern {
    parts: Vec<Part>,
    /// `FM`: no blanks, and no zeros at the end that `0` does not ask for.
    bare: bool,
    /// Digits before and after the point.
    before: usize,
    after: usize,
}

/// Refused by name: what Postgres has beyond [`Part`].
const REFUSED: [&str; 12] = ["EEEE", "eeee", "RN", "rn", "V", "v", "L", "l", "B", "b", "C", "c"];
const WORDS: [(&str, Part); 20] = [
    ("9", Part::Nine),
    ("0", Part::Zero),
    (".", Part::Point),
    ("D", Part::Point),
    ("d", Part::Point),
    (",", Part::Comma),
    ("G", Part::Comma),
    ("g", Part::Comma),
    ("SG", Part::Either),
    ("sg", Part::Either),
    ("S", Part::Sign),
    ("s", Part::Sign),
    ("MI", Part::Minus),
    ("mi", Part::Minus),
    ("PL", Part::Plus),
    ("pl", Part::Plus),
    ("PR", Part::Brackets),
    ("pr", Part::Brackets),
    ("TH", Part::Ordinal(true)),
    ("th", Part::Ordinal(false)),
];

/// Errors: 0A000 for a pattern that Postgres has and Sepal has not; 42601 for two points or signs.
fn parse(pattern: &str) -> Result<Pattern, Error> {
    let (mut parts, mut bare, mut rest) = (Vec::new(), false, pattern);
    while let Some(first) = rest.chars().next() {
        let word = |words: &str| rest.strip_prefix(words);
        if let Some(after) = word("FM").or_else(|| word("fm")) {
            (bare, rest) = (true, after);
        } else if let Some(name) = REFUSED.into_iter().find(|name| rest.starts_with(name)) {
            let message = format!("the pattern \"{name}\" of to_char() is not supported for numbers");
            return Err(Error::unsupported(message));
        } else if let Some((part, after)) =
            WORDS.into_iter().find_map(|(name, part)| Some((part, rest.strip_prefix(name)?)))
        {
            parts.push(part);
            rest = after;
        } else if first == '"' {
            let (text, after) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
            parts.extend(text.chars().map(Part::Literal));
            rest = after;
        } else {
            parts.push(Part::Literal(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    let points = parts.iter().filter(|part| **part == Part::Point).count();
    let signs = parts.iter().filter(|part| **part == Part::Sign).count();
    for (count, what) in [(points, "decimal points"), (signs, "\"S\"")] {
        if count > 1 {
            let message = format!("multiple {what}");
            return Err(Error::new(SqlState::SyntaxError, message));
        }
    }
    let point = parts.iter().position(|part| *part == Part::Point).unwrap_or(parts.len());
    let digits = |parts: &[Part]| parts.iter().filter(|part| matches!(part, Part::Nine | Part::Zero)).count();
    let (before, after) = (digits(&parts[..point]), digits(&parts[point..]));
    Ok(Pattern { parts, bare, before, after })
}

/// A number in digits: the ones before the point, none for zero, and as many after it as the pattern has.
struct Digits {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Digits {
    fn of(text: &str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole = whole.trim_start_matches('0').to_owned();
        let zero = whole.is_empty() && fraction.bytes().all(|digit| digit == b'0');
        Self { negative: negative && !zero, whole, fraction: fraction.to_owned() }
    }
}

pub(super) fn write_decimal(value: i128, scale: i8, pattern: &str) -> Result<String, Error> {
    let pattern = parse(pattern)?;
    let scale = u32::from(scale.max(0).unsigned_abs());
    let wanted = u32::try_from(pattern.after).unwrap_or(u32::MAX);
    let magnitude = value.unsigned_abs();
    let rounded = match scale.checked_sub(wanted).map(|more| 10u128.checked_pow(more)) {
        Some(Some(power)) => {
            let rest = magnitude % power;
            magnitude / power + u128::from(rest >= power - rest)
        }
        Some(None) => 0,
        None => magnitude,
    };
    // Digits that the number has not are zeros.
    let kept = scale.min(wanted) as usize;
    let digits = format!("{rounded:0width$}", width = kept + 1);
    let (whole, fraction) = digits.split_at(digits.len() - kept);
    let zeros = "0".repeat(pattern.after - kept);
    let sign = if value < 0 { "-" } else { "" };
    Ok(pattern.write(&Digits::of(&format!("{sign}{whole}.{fraction}{zeros}"))))
}

pub(super) fn write_float(value: f64, pattern: &str) -> Result<String, Error> {
    let pattern = parse(pattern)?;
    if value.is_nan() {
        let blanks = if pattern.bare { 0 } else { pattern.before + 1 };
        return Ok(format!("{:>blanks$}", "NaN"));
    }
    if value.is_infinite() {
        let whole = "9".repeat(pattern.before + 1);
        return Ok(pattern.write(&Digits {
            negative: value < 0.0,
            whole,
            fraction: "0".repeat(pattern.after),
        }));
    }
    Ok(pattern.write(&Digits::of(&format!("{value:.digits$}", digits = pattern.after))))
}

/// What is written so far.
struct Writer {
    out: String,
    /// The sign that stands directly before the digits; known from the first place of one on.
    slot: Option<&'static str>,
    /// Digits before the point that were passed.
    passed: usize,
    /// A digit, or the point, is written: from now on nothing is left out.
    begun: bool,
    after_point: usize,
}

impl Pattern {
    fn write(&self, digits: &Digits) -> String {
        let has = |part: Part| self.parts.contains(&part);
        let overflows = digits.whole.len() > self.before;
        let leading = match digits.negative {
            _ if has(Part::Minus) || has(Part::Either) => None,
            _ if has(Part::Sign) && !self.sign_leads() => None,
            true if has(Part::Brackets) => Some("<"),
            true => Some("-"),
            false if has(Part::Sign) => Some("+"),
            false if self.bare => None,
            false => Some(" "),
        };
        let mut writer = Writer { out: String::new(), slot: None, passed: 0, begun: false, after_point: 0 };
        for part in &self.parts {
            if matches!(part, Part::Nine | Part::Zero | Part::Point) && writer.slot.is_none() {
                writer.slot = Some(leading.unwrap_or_default());
            }
            match part {
                Part::Nine | Part::Zero if self.is_whole(&writer) => {
                    self.whole_digit(digits, overflows, &mut writer);
                }
                Part::Nine | Part::Zero => self.fraction_digit(digits, overflows, &mut writer),
                Part::Point => {
                    self.place_sign(&mut writer);
                    writer.begun = true;
                    if self.after > 0 {
                        writer.out.push('.');
                    }
                }
                Part::Comma if writer.begun => writer.out.push(','),
                Part::Comma => self.blank(&mut writer),
                Part::Sign if self.sign_leads() => {}
                Part::Sign | Part::Either => writer.out.push(if digits.negative { '-' } else { '+' }),
                Part::Minus if digits.negative => writer.out.push('-'),
                Part::Plus if !digits.negative => writer.out.push('+'),
                Part::Brackets if digits.negative => writer.out.push('>'),
                Part::Minus | Part::Plus | Part::Brackets => self.blank(&mut writer),
                Part::Ordinal(upper) if !digits.negative && self.after == 0 => {
                    let suffix = suffix(if digits.whole.is_empty() { "0" } else { &digits.whole });
                    writer.out.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_owned() });
                }
                Part::Ordinal(_) => {}
                Part::Literal(text) => writer.out.push(*text),
            }
        }
        writer.out
    }

    /// `S` before the digits stands directly before the first of them.
    fn sign_leads(&self) -> bool {
        let digit = self.parts.iter().position(|part| matches!(part, Part::Nine | Part::Zero | Part::Point));
        let sign = self.parts.iter().position(|part| *part == Part::Sign);
        sign.zip(digit).is_some_and(|(sign, digit)| sign < digit)
    }

    fn is_whole(&self, writer: &Writer) -> bool {
        writer.passed < self.before
    }

    fn blank(&self, writer: &mut Writer) {
        if !self.bare {
            writer.out.push(' ');
        }
    }

    /// Directly before the first digit, behind the blanks of those that are not there.
    fn place_sign(&self, writer: &mut Writer) {
        if !writer.begun
            && let Some(sign) = writer.slot
        {
            writer.out.push_str(sign);
        }
    }

    fn whole_digit(&self, digits: &Digits, overflows: bool, writer: &mut Writer) {
        let place = writer.passed;
        writer.passed += 1;
        if overflows {
            self.place_sign(writer);
            writer.begun = true;
            writer.out.push('#');
            return;
        }
        let missing = self.before - digits.whole.len();
        // A zero without digits behind the point shows in its last place.
        let last = place + 1 == self.before && digits.whole.is_empty() && self.after == 0;
        if place < missing && !writer.begun && !last && !self.zero_by(place) {
            self.blank(writer);
            return;
        }
        self.place_sign(writer);
        writer.begun = true;
        let digit = place.checked_sub(missing).and_then(|place| digits.whole.as_bytes().get(place));
        writer.out.push(digit.map_or('0', |digit| char::from(*digit)));
    }

    /// Whether a `0` stands at this place or before it.
    fn zero_by(&self, place: usize) -> bool {
        let mut places = self.parts.iter().filter(|part| matches!(part, Part::Nine | Part::Zero));
        places.by_ref().take(place + 1).any(|part| *part == Part::Zero)
    }

    fn fraction_digit(&self, digits: &Digits, overflows: bool, writer: &mut Writer) {
        let place = writer.after_point;
        writer.after_point += 1;
        if overflows {
            writer.out.push('#');
            return;
        }
        // FM leaves out the zeros at the end that no `0` asks for.
        let after = self.parts.iter().skip_while(|part| **part != Part::Point);
        let asked = after.filter(|part| matches!(part, Part::Nine | Part::Zero)).enumerate();
        let asked = asked.filter(|(_, part)| **part == Part::Zero).map(|(place, _)| place + 1).last();
        let significant = digits.fraction.trim_end_matches('0').len().max(asked.unwrap_or(0));
        if self.bare && place >= significant {
            return;
        }
        writer.out.push(digits.fraction.as_bytes().get(place).map_or('0', |digit| char::from(*digit)));
    }
}
