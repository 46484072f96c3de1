//! Tables that appear row by row, and the targets that their figures are held against.

use std::fmt;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// This or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// This or more.
    AtLeast(f64),
}

impl Target {
    /// Whether a figure meets it. What could not be measured (not a number) meets nothing.
    pub fn met_by(self, figure: f64) -> bool {
        match self {
            Target::AtMost(limit) => figure <= limit,
            Target::Below(limit) => figure < limit,
            Target::AtLeast(limit) => figure >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtMost(limit) => write!(formatter, "<= {limit}"),
            Target::Below(limit) => write!(formatter, "< {limit}"),
            Target::AtLeast(limit) => write!(formatter, ">= {limit}"),
        }
    }
}

/// How many targets are met of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    met: u32,
    of: u32,
}

impl Score {
    /// Holds a figure against its target, and returns the mark for the table.
    pub fn judge(&mut self, figure: f64, target: Target) -> String {
        self.mark(target.met_by(figure))
    }

    /// Counts a target, and returns the mark for the table.
    pub fn mark(&mut self, met: bool) -> String {
        self.of += 1;
        self.met += u32::from(met);
        if met { "met" } else { "MISSED" }.to_owned()
    }
}

impl fmt::Display for Score {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "targets met: {} of {}", self.met, self.of)
    }
}

/// A table that is printed while it is measured, so the widths of its columns must be known before.
pub struct Table<const N: usize> {
    widths: [usize; N],
}

/// The width of a column at least.
const CELL: usize = 8;

impl<const N: usize> Table<N> {
    /// Prints what the table is about and its headings. Spaces behind a heading widen its column.
    pub fn begin(about: &str, headings: [&str; N]) -> Self {
        let widths = headings.map(|heading| heading.chars().count().max(CELL));
        let table = Table { widths };
        println!("\n{about}\n");
        println!(
            "{}",
            table.line(&headings.map(|heading| heading.trim_end().to_owned()))
        );
        let rules = widths.map(|width| "-".repeat(width));
        println!("{}", table.line(&rules));
        table
    }

    /// Prints a row.
    pub fn row(&self, cells: [String; N]) {
        println!("{}", self.line(&cells));
    }

    /// Prints what stands in a row's place if it could not be measured.
    pub fn failed(&self, row: &str, error: &anyhow::Error, score: &mut Score) {
        println!("{row}: {} {error:#}", score.mark(false));
    }

    /// The first cell to the left, the others to the right.
    fn line(&self, cells: &[String; N]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(self.widths).enumerate() {
            if at == 0 {
                line += &format!("{cell:<width$}");
            } else {
                line += &format!("  {cell:>width$}");
            }
        }
        line
    }
}

/// Millions per second, with three digits that say something.
pub fn millions(per_second: f64) -> String {
    match per_second / 1e6 {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// A ratio.
pub fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// The middle of some figures; not a number if there are none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => (figures[even / 2 - 1] + figures[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_or_missed_and_counted() {
        let mut score = Score::default();
        assert_eq!(score.judge(1.3, Target::AtMost(1.3)), "met");
        assert_eq!(score.judge(0.1, Target::Below(0.1)), "MISSED");
        assert_eq!(score.judge(1.79, Target::AtLeast(1.8)), "MISSED");
        assert_eq!(score.judge(f64::NAN, Target::AtLeast(0.0)), "MISSED");
        assert_eq!(score.judge(f64::NAN, Target::AtMost(9.0)), "MISSED");
        assert_eq!(score.to_string(), "targets met: 1 of 5");
        assert_eq!(Target::AtLeast(1.8).to_string(), ">= 1.8");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median([3.0, 1.0]), 2.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn columns_line_up() {
        let table = Table { widths: [6, 8] };
        let lines =
            [["q0", "1.00"], ["count", "12.34"]].map(|cells| table.line(&cells.map(str::to_owned)));
        assert_eq!(lines, ["q0          1.00", "count      12.34"]);
    }

    #[test]
    fn rates_have_three_digits() {
        let rates = [1.234e6, 12.34e6, 123.4e6].map(millions);
        assert_eq!(rates, ["1.23", "12.3", "123"]);
    }
}
