//! Measurements beside their floors, as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};

#[derive(Default)]
pub struct Report(Vec<Line>);

/// One measurement.
pub struct Line {
    pub what: String,
    pub unit: &'static str,
    pub ours: f64,
    pub floor: f64,
    /// What the figure is meant to clear; empty where there is no such thing.
    pub bar: &'static str,
    pub note: String,
}

impl Report {
    /// Shown at once, too: a run takes minutes.
    pub fn add(&mut self, line: Line) {
        eprintln!("{line}");
        self.0.push(line);
    }

    pub fn json(&self) -> Value {
        self.0.iter().map(Line::json).collect()
    }
}

impl Line {
    /// NaN when the floor is nothing.
    pub fn ratio(&self) -> f64 {
        if self.floor == 0.0 { f64::NAN } else { self.ours / self.floor }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "floor": self.floor,
            "ratio": self.ratio(),
            "bar": self.bar,
            "note": self.note,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, ours, floor, bar, note } = self;
        let digits = if (*floor).max(*ours) < 100.0 { 2 } else { 0 };
        let ratio = self.ratio();
        let ratio = if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
        write!(f, "{what:<52} {ours:>12.digits$} {floor:>12.digits$} {ratio:>7}  {unit:<12} {bar:<24} {note}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, floor) = ("ours", "floor");
        write!(f, "{:<52} {ours:>12} {floor:>12} {:>7}  {:<12} {:<24}", "measured", "ratio", "unit", "bar")?;
        self.0.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// The middle one of a few.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
