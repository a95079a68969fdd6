//! What does the function reference say? It is generated from the functions' own documentation; a test compares the file.

use std::{fmt::Write, sync::Arc};

use spool_media::encode::worker::Worker;

use crate::functions::{Kind, documented};

/// The text of `docs/functions.md`; a function without documentation is named in the error.
///
/// # Errors
/// The names of the functions that say nothing.
pub fn markdown(worker: &Arc<Worker>) -> Result<String, String> {
    let mut text = String::from(
        "# SQL functions\n\nGenerated from the functions' own documentation by `make docs`. Beside them stands all of\n\
         [DataFusion's SQL](https://datafusion.apache.org/user-guide/sql/index.html).\n",
    );
    let mut silent = Vec::new();
    for (name, kind, documentation) in documented(worker) {
        let Some(documentation) = documentation else {
            silent.push(name);
            continue;
        };
        let kind = match kind {
            Kind::Table => "table function",
            Kind::Scalar => "scalar function",
            Kind::Aggregate => "aggregate function",
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
    if silent.is_empty() { Ok(text) } else { Err(silent.join(", ")) }
}
