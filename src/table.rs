//! Tables for a terminal: columns as wide as what is in them, numbers on the right.

/// Rows of text under a heading.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Whether a column stands on the right.
    right: Vec<bool>,
}

impl Table {
    /// With these headings; those that begin with '>' stand on the right, as numbers do.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let names = headings
            .iter()
            .map(|h| h.trim_start_matches('>').to_owned());
        Table {
            rows: vec![names.collect()],
            right,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // What others named may hold anything: a line of a table stays one line.
        let clean = |cell: String| cell.replace(char::is_control, "?");
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Whether there is nothing under the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, with two blanks between columns.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let padding = " ".repeat(width - cell.chars().count());
                let (before, after) = if *right {
                    (padding.as_str(), "")
                } else {
                    ("", padding.as_str())
                };
                line.push_str(&format!("{before}{cell}{after}  "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A number of bytes as people say it, with one decimal beyond the first thousand.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        unit => format!("{value:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let mut table = Table::new(&["name", ">bytes"]);
        table.row(["a".to_owned(), "7".to_owned()]);
        table.row(["longest\n".to_owned(), "1234567".to_owned()]);
        let expected = "name        bytes\na               7\nlongest?  1234567\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
