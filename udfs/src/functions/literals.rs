//! Arguments of table functions: literals, in order, since the planner knows no other values when it calls a
//! table function.

use datafusion::{common::ScalarValue, error::Result, logical_expr::Expr};

use crate::error::refusal;

/// The arguments of one call of a table function.
pub(crate) struct Literals<'a> {
    /// Syntax of the call, for messages.
    pub(crate) usage: &'static str,
    pub(crate) args: &'a [Expr],
}

impl Literals<'_> {
    /// Returns an error if there are more than `count` arguments.
    pub(crate) fn at_most(&self, count: usize) -> Result<()> {
        if self.args.len() > count {
            Err(refusal(format!("too many arguments: write {}", self.usage)))
        } else {
            Ok(())
        }
    }

    /// Returns the text at this position.
    pub(crate) fn text(&self, position: usize, name: &str) -> Result<String> {
        match self.literal(position, name)? {
            Some(
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)),
            ) => Ok(text.clone()),
            _ => Err(refusal(format!("{name} must be a text in single quotes: write {}", self.usage))),
        }
    }

    /// Returns the text at this position; `None` if there is no such argument, or if it is NULL.
    pub(crate) fn optional_text(&self, position: usize, name: &str) -> Result<Option<String>> {
        let given = self.literal(position, name)?.is_some_and(|value| !value.is_null());
        given.then(|| self.text(position, name)).transpose()
    }

    /// Returns the number at this position; `None` if there is no such argument, or if it is NULL.
    pub(crate) fn number(&self, position: usize, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.literal(position, name)?.filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        match value.cast_to(&datafusion::arrow::datatypes::DataType::Float64) {
            Ok(ScalarValue::Float64(Some(number))) if value.data_type().is_numeric() => Ok(Some(number)),
            _ => Err(refusal(format!("{name} must be a number: write {}", self.usage))),
        }
    }

    fn literal(&self, position: usize, name: &str) -> Result<Option<&ScalarValue>> {
        match self.args.get(position) {
            None => Ok(None),
            Some(Expr::Literal(value, _)) => Ok(Some(value)),
            Some(other) => Err(refusal(format!(
                "{name} must be a literal, not {other}: table functions take literals in order, and no \
                    columns; write {}",
                self.usage
            ))),
        }
    }
}
