//! `ladder`: the entries of a preset or of a ladder in the short form.

use datafusion::{
    arrow::{array::Array, datatypes::DataType},
    common::ScalarValue,
    error::Result,
    logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};
use datafusion_macros::user_doc;
use spool_media::plan::ladder::LadderEntry;
use std::sync::Arc;

use crate::{
    error::{engine_error, refusal},
    schema::LADDER_LINE,
    value,
};

pub(crate) const NAME: &str = "ladder";

/// Returns the entries of a ladder, to read or to edit.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Returns the entries of a preset or a short form as a list of structs (codec, height, \
        max_bitrate_bps, crf, preset): video from the highest to the lowest, then audio, which has no \
        height. Read the list with `unnest`, or edit it and pass it to `transcode`. A NULL field is derived \
        from the source.",
    syntax_example = "ladder(name)",
    sql_example = "```sql\nSELECT unnest(ladder('web'));\n```",
    argument(
        name = "name",
        description = "A preset such as `'web'`, or the short form such as \
            `'1080p-av1,720p:2800k,480p,aac,opus:96k'`."
    )
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ladder {
    signature: Signature,
}

impl Ladder {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Ladder {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::new_list(DataType::Struct(LADDER_LINE.clone()), true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [names] = arrays.as_slice() else {
            return Err(refusal("ladder takes one argument: write ladder('web')"));
        };
        let lists: Result<Vec<ScalarValue>> = (0..names.len())
            .map(|row| {
                let name = ScalarValue::try_from_array(names, row)?;
                let Some(Some(name)) = name.try_as_str() else {
                    return Err(refusal("ladder takes a text: write ladder('web')"));
                };
                let ladder = spool_media::plan::ladder::Ladder::parse(name).map_err(engine_error)?;
                let lines = value::structs(&LADDER_LINE, &Vec::<LadderEntry>::from(ladder))?;
                let lines: Result<Vec<ScalarValue>> =
                    (0..lines.len()).map(|line| ScalarValue::try_from_array(&lines, line)).collect();
                Ok(ScalarValue::List(ScalarValue::new_list_nullable(
                    &lines?,
                    &DataType::Struct(LADDER_LINE.clone()),
                )))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::clone(&ScalarValue::iter_to_array(lists?)?)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
