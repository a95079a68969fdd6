//! `publish`: writes the playlists of a ladder whose objects all exist, the multivariant playlist last.

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::DataType,
    error::Result,
    logical_expr::{
        ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        async_udf::AsyncScalarUDFImpl,
    },
};
use datafusion_macros::user_doc;
use spool_media::package::{merge::HlsLadder, publish};

use super::Host;
use crate::{
    error::{engine_error, refusal},
    options::SpoolOptions,
    schema::{HLS_LADDER, PUBLISHED},
    value,
};

pub(crate) const NAME: &str = "publish";
const USAGE: &str = "publish(hls_ladder(part))";

/// Writes the playlists of a merged ladder, the multivariant playlist last.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Checks that every object of a ladder exists, writes its media playlists, and replaces \
        `master.m3u8` last, in one step: a reader sees the old ladder or the new one. Returns the URI of \
        `master.m3u8`, the duration, the bytes, and each rendition with its codecs, resolution, and measured \
        average and peak bit rate.",
    syntax_example = "publish(ladder)",
    sql_example = "```sql\nSELECT publish(hls_ladder(part))['master']\nFROM (SELECT transcode(segment, \
        'web', 'out/talk') AS part FROM segments('talk.mp4'));\n```",
    argument(name = "ladder", description = "The result of `hls_ladder`.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    host: Host,
    signature: Signature,
}

impl Publish {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, signature: Signature::variadic_any(Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Publish {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Struct(fields)]
                if HLS_LADDER.iter().all(|wanted| fields.find(wanted.name()).is_some()) =>
            {
                Ok(DataType::Struct(PUBLISHED.clone()))
            }
            _ => Err(refusal(format!("publish takes the result of hls_ladder: write {USAGE}"))),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(refusal(format!("publish was called where the engine cannot wait for it: write {USAGE}")))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Publish {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(1)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [ladders] = arrays.as_slice() else {
            return Err(refusal(format!("publish takes one argument: write {USAGE}")));
        };
        let path_policy = SpoolOptions::path_policy(&args.config_options);
        let mut published = Vec::with_capacity(ladders.len());
        for ladder in value::values::<HlsLadder>(ladders)? {
            let Some(ladder) = ladder else {
                return Err(refusal("there is nothing to publish: the statement selected no segments"));
            };
            if let Some(policy) = &path_policy {
                policy.check_write(&ladder.destination).map_err(engine_error)?;
            }
            published
                .push(publish::run(&self.host.0.environment().stores, &ladder).await.map_err(engine_error)?);
        }
        Ok(ColumnarValue::Array(value::structs(&PUBLISHED, &published)?))
    }
}
