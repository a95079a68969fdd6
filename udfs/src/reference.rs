//! Function reference: `docs/functions.md`, generated from the functions' own documentation; a test compares
//! the file.

use std::{fmt::Write, sync::Arc};

use spool_media::encode::worker::Worker;

use crate::functions::{FunctionKind, documented_functions};

/// Returns the text of `docs/functions.md`.
///
/// # Errors
/// Returns the names of the functions without documentation.
pub fn markdown(worker: &Arc<Worker>) -> Result<String, String> {
    let mut text = String::from(
        "# SQL functions\n\nGenerated from the functions' own documentation by `make docs`. Statements can \
            also use all of\n\
         [DataFusion's SQL](https://datafusion.apache.org/user-guide/sql/index.html).\n",
    );
    let mut undocumented = Vec::new();
    for (name, kind, documentation) in documented_functions(worker) {
        let Some(documentation) = documentation else {
            undocumented.push(name);
            continue;
        };
        let kind = match kind {
            FunctionKind::Table => "table function",
            FunctionKind::Scalar => "scalar function",
            FunctionKind::Aggregate => "aggregate function",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n## `{name}`\n\n_{kind}_\n\n{}\n\n```sql\n{}\n```\n",
            documentation.description, documentation.syntax_example
        );
        for (argument, description) in documentation.arguments.iter().flatten() {
            let _ = write!(text, "\n- **{argument}**: {description}");
        }
        if let Some(example) = &documentation.sql_example {
            let _ = write!(text, "\n\nExample:\n\n{example}\n");
        }
    }
    if undocumented.is_empty() { Ok(text) } else { Err(undocumented.join(", ")) }
}
