//! `hls_ladder`: merges the parts of one video into one ladder.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, StringArray},
        datatypes::{DataType, Field, FieldRef},
    },
    common::ScalarValue,
    error::{DataFusionError, Result},
    logical_expr::{
        Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
};
use datafusion_macros::user_doc;
use spool_media::package::{merge, parts::Part};

use crate::{
    error::{engine_error, refusal},
    schema::{HLS_LADDER, PART},
    value,
};

pub(crate) const NAME: &str = "hls_ladder";
const USAGE: &str = "SELECT publish(hls_ladder(part)) FROM (SELECT transcode(segment, 'web', 'destination') \
    AS part FROM segments('source'))";

/// Merges parts into one ladder, and refuses those that do not join.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Merges the parts of one video, in any order, into one ladder: the content of the \
        playlists. Writes nothing. Refuses gaps, duplicates, frame counts that do not add up, differing \
        decoder configurations and parts of two sources.",
    syntax_example = "hls_ladder(part)",
    sql_example = "```sql\nSELECT hls_ladder(part)['renditions']\nFROM (SELECT transcode(segment, '720p', \
        'out/talk') AS part FROM segments('talk.mp4'));\n```",
    argument(name = "part", description = "The result of `transcode`.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HlsLadder {
    signature: Signature,
}

impl HlsLadder {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for HlsLadder {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Struct(fields)] if PART.iter().all(|wanted| fields.find(wanted.name()).is_some()) => {
                Ok(types.to_vec())
            }
            _ => Err(refusal(format!("hls_ladder takes the result of transcode: write {USAGE}"))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(HLS_LADDER.clone()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let parts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        Ok(vec![Arc::new(Field::new(format!("{}[parts]", args.name), parts, true))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Merge::default()))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// Accumulated parts. They are sent between stages as JSON: names and numbers, never media bytes.
#[derive(Debug, Default)]
struct Merge {
    parts: Vec<Part>,
}

impl Accumulator for Merge {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for column in columns {
            self.parts.extend(value::values(column)?.into_iter().flatten());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.parts.is_empty() {
            return ScalarValue::try_from(&DataType::Struct(HLS_LADDER.clone()));
        }
        let ladder = merge::merge(std::mem::take(&mut self.parts)).map_err(engine_error)?;
        ScalarValue::try_from_array(&value::structs(&HLS_LADDER, &[ladder])?, 0)
    }

    fn size(&self) -> usize {
        let media_segments: usize = self
            .parts
            .iter()
            .flat_map(|part| &part.renditions)
            .map(|rendition| rendition.media_segments.capacity())
            .sum();
        size_of::<Self>()
            + self.parts.capacity() * size_of::<Part>()
            + media_segments * size_of::<spool_media::package::parts::MediaSegmentRef>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let texts: Result<Vec<ScalarValue>> = self
            .parts
            .iter()
            .map(|part| {
                serde_json::to_string(part)
                    .map(ScalarValue::from)
                    .map_err(|e| DataFusionError::External(Box::new(e)))
            })
            .collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&texts?, &DataType::Utf8))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states.iter().flat_map(|state| state.as_list::<i32>().iter()).flatten() {
            let texts: &StringArray = list.as_string();
            for text in texts.iter().flatten() {
                self.parts
                    .push(serde_json::from_str(text).map_err(|e| DataFusionError::External(Box::new(e)))?);
            }
        }
        Ok(())
    }
}
