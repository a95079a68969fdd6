//! Tables of figures, in Markdown for people and in JSON for programs.

use serde::Serialize;

/// Table of figures.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// Subject of the measurement.
    pub title: String,
    /// Names and units of the columns.
    pub columns: Vec<String>,
    /// One measurement per row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns an empty table.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a measurement, and prints it on stderr.
    pub fn add(&mut self, row: Vec<String>) {
        let cells: Vec<String> =
            self.columns.iter().zip(&row).map(|(name, value)| format!("{name} {value}")).collect();
        eprintln!("{}: {}", self.title, cells.join(", "));
        self.rows.push(row);
    }

    /// Returns the table in Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = line(&vec!["---".to_owned(); self.columns.len()]);
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("### {}\n\n{}{rule}{rows}", self.title, line(&self.columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_renders_as_markdown() {
        let mut table = Table::new("Rows", &["rows", "ms"]);
        table.add(vec!["10".to_owned(), "2.5".to_owned()]);
        assert_eq!(table.markdown(), "### Rows\n\n| rows | ms |\n| --- | --- |\n| 10 | 2.5 |\n");
    }
}
