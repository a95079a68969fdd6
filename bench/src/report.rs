//! How are figures told? As tables for people, and as JSON for whoever compares.

use serde::Serialize;

/// A table of figures.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// Names and units of the columns.
    pub columns: Vec<String>,
    /// A measurement each.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a measurement, and tells on stderr that it was made.
    pub fn add(&mut self, row: Vec<String>) {
        let told: Vec<String> =
            self.columns.iter().zip(&row).map(|(name, value)| format!("{name} {value}")).collect();
        eprintln!("{}: {}", self.title, told.join(", "));
        self.rows.push(row);
    }

    /// The table in Markdown.
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
    fn a_table_is_markdown() {
        let mut table = Table::new("Rows", &["rows", "ms"]);
        table.add(vec!["10".to_owned(), "2.5".to_owned()]);
        assert_eq!(table.markdown(), "### Rows\n\n| rows | ms |\n| --- | --- |\n| 10 | 2.5 |\n");
    }
}
