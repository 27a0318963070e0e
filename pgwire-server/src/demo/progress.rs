//! Progress that a person sees on a terminal and a log file can hold: a bar there, a line per quarter here.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// One long step.
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    total: u64,
    started: Instant,
    /// `None` where stderr is no terminal.
    bar: Option<ProgressBar>,
    /// Quarters already told as lines.
    told: u64,
}

impl Progress {
    pub fn start(what: &'static str, unit: &'static str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let template = format!("  {what} [{{bar:40}}] {{human_pos}} of {{human_len}} {unit}  {{msg}}");
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("█▉▊▋▌▍▎▏ ");
            let bar = ProgressBar::new(total).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { what, unit, total, started: Instant::now(), bar, told: 0 }
    }

    /// `done` of the total so far.
    pub fn set(&mut self, done: u64) {
        let done = done.min(self.total);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{} {}/s", thousands(self.rate(done)), self.unit));
            return;
        }
        let quarter = (done * 4).checked_div(self.total).unwrap_or(4);
        if quarter > self.told {
            self.told = quarter;
            println!(
                "  {}: {} of {} {} ({:.1} s)",
                self.what,
                thousands(done),
                thousands(self.total),
                self.unit,
                self.started.elapsed().as_secs_f64()
            );
        }
    }

    /// A word on what is being done right now.
    pub fn phase(&self, phase: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(phase.to_owned());
        }
    }

    /// Removes the bar and tells how long it took.
    pub fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }

    fn rate(&self, done: u64) -> u64 {
        let milliseconds = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        done.saturating_mul(1_000) / milliseconds
    }
}

/// 10,240
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(super::thousands(number), text);
        }
    }
}
