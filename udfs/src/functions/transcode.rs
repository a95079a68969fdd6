//! `transcode`: encodes one segment at every rung of a ladder.

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, AsArray},
        compute::cast,
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{
        ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        async_udf::AsyncScalarUDFImpl,
    },
};
use datafusion_macros::user_doc;
use spool_media::{
    encode::encode_segment::{self, Request},
    plan::{
        ladder::{Ladder, LadderEntry},
        segments::Segment,
    },
};

use super::Host;
use crate::{
    control::TaskControl,
    error::{engine_error, refusal},
    options::SpoolOptions,
    schema::{PART, SEGMENT},
    value,
};

/// The function's name in SQL.
pub const NAME: &str = "transcode";
const USAGE: &str = "transcode(segment, 'web', 'destination') over the rows of segments('source')";

/// Encodes the missing rungs of a segment and returns its part.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Encodes one segment at every rung of a ladder in one FFmpeg run, writes the media \
        segments, commits a part record for each rung, and returns the `part`. Rungs with a part record are \
        not encoded again. Write the call once, in a subquery, over the rows of `segments`.",
    syntax_example = "transcode(segment, ladder, destination)",
    sql_example = "```sql\nSELECT publish(hls_ladder(part))\nFROM (SELECT transcode(segment, 'web', \
        's3://media/talk/') AS part\n      FROM segments('s3://uploads/talk.mp4', 30));\n```",
    argument(name = "segment", description = "The column `segment` of `segments`."),
    argument(
        name = "ladder",
        description = "A preset (`'web'`), the short form (`'1080p-av1,720p:2800k,480p,aac,opus:96k'`) or a \
            list of structs as `ladder` returns it."
    ),
    argument(
        name = "destination",
        description = "Folder or URI prefix to write to. With many sources it must depend on `source`."
    )
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Transcode {
    host: Host,
    signature: Signature,
}

impl Transcode {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, signature: Signature::variadic_any(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Transcode {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Checks the argument types: the engine does not coerce the arguments of an asynchronous function. They
    /// are cast when the function runs.
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [segment, ladder, destination] = types else {
            return Err(refusal(format!("transcode takes three arguments: write {USAGE}")));
        };
        let is_segment = match segment {
            DataType::Struct(fields) => SEGMENT.iter().all(|field| fields.find(field.name()).is_some()),
            _ => false,
        };
        if !is_segment {
            return Err(refusal(format!(
                "the first argument of transcode is the column `segment`: write {USAGE}"
            )));
        }
        let is_list =
            matches!(ladder, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
        if !is_list && !is_text(ladder) {
            return Err(refusal(format!(
                "a ladder is a text or a list of structs, not {ladder}: write {USAGE}"
            )));
        }
        if !is_text(destination) {
            return Err(refusal(format!("a destination is a text, not {destination}: write {USAGE}")));
        }
        Ok(DataType::Struct(PART.clone()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(refusal(format!("transcode was called where the engine cannot wait for it: write {USAGE}")))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

#[async_trait]
impl AsyncScalarUDFImpl for Transcode {
    /// One row is one FFmpeg run; the rows of a batch would run one after the other.
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(1)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [segments, ladders, destinations] = arrays.as_slice() else {
            return Err(refusal(format!("transcode takes three arguments: write {USAGE}")));
        };
        let options = args.config_options.extensions.get::<SpoolOptions>();
        let (threads, strict) = options.map_or((1, false), |options| (options.threads, options.strict));
        let path_policy = SpoolOptions::path_policy(&args.config_options);
        let destinations = cast(destinations, &DataType::Utf8)?;
        let destination = destinations.as_string::<i32>();
        let mut parts = Vec::with_capacity(segments.len());
        for (row, segment) in value::values::<Segment>(segments)?.into_iter().enumerate() {
            let Some(segment) = segment else {
                return Err(refusal(format!("the segment of row {row} is null: write {USAGE}")));
            };
            let ladder = ladder_at(ladders, row)?;
            if destination.is_null(row) {
                return Err(refusal(format!("the destination of row {row} is null: write {USAGE}")));
            }
            // Checked here, and not when the statement is planned: a row's values may come from any column.
            if let Some(policy) = &path_policy {
                policy.check_source(&segment.source).map_err(engine_error)?;
                policy.check_write(destination.value(row)).map_err(engine_error)?;
            }
            let TaskControl { token: cancel, job } = TaskControl::of(&args.config_options);
            let request = Request {
                segment,
                ladder,
                destination: destination.value(row).to_owned(),
                threads,
                strict,
                job,
                cancel,
            };
            parts.push(encode_segment::run(&self.host.0, request).await.map_err(engine_error)?);
        }
        Ok(ColumnarValue::Array(value::structs(&PART, &parts)?))
    }
}

/// Returns the ladder of one row, given as a text or as a list of structs.
///
/// # Errors
/// Returns an error if the value is neither, or is not a ladder.
pub fn ladder_at(ladders: &dyn Array, row: usize) -> Result<Ladder> {
    if ladders.is_null(row) {
        return Err(refusal(format!("the ladder of row {row} is null: write {USAGE}")));
    }
    if is_text(ladders.data_type()) {
        let texts = cast(ladders, &DataType::Utf8)?;
        return Ladder::parse(texts.as_string::<i32>().value(row)).map_err(engine_error);
    }
    let lines = match ladders.data_type() {
        DataType::LargeList(_) => ladders.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => ladders.as_fixed_size_list().value(row),
        _ => ladders.as_list::<i32>().value(row),
    };
    let lines: Vec<LadderEntry> = value::values(&lines)?.into_iter().flatten().collect();
    Ladder::try_from(lines).map_err(engine_error)
}
