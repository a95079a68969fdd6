//! `probe`: the tracks and properties of one file.

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{Array, AsArray},
        datatypes::DataType,
    },
    error::Result,
    logical_expr::{
        ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        async_udf::AsyncScalarUDFImpl,
    },
};
use datafusion_macros::user_doc;
use spool_media::listing;

use super::Host;
use crate::{
    error::{engine_error, refusal},
    options::SpoolOptions,
    schema::PROBE,
    value,
};

pub(crate) const NAME: &str = "probe";

/// Returns the tracks and properties of one file.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Returns the properties of one file as a struct: container, duration, picture size, \
        rotation, frame rate, codecs, HDR, audio tracks. Reads the index and a few samples of MP4 and MOV, \
        and other containers wholly. A file that cannot be read is an error; `media` lists such files with \
        their error instead.",
    syntax_example = "probe(uri)",
    sql_example = "```sql\nSELECT probe('talk.mp4')['duration_ms'];\n```",
    argument(name = "uri", description = "Path or URI of the file.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    host: Host,
    signature: Signature,
}

impl Probe {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, signature: Signature::exact(vec![DataType::Utf8], Volatility::Volatile) }
    }
}

impl ScalarUDFImpl for Probe {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(PROBE.clone()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(refusal("probe was called where the engine cannot wait for it: write SELECT probe('talk.mp4')"))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Probe {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [uris] = arrays.as_slice() else {
            return Err(refusal("probe takes one argument: write probe('talk.mp4')"));
        };
        let path_policy = SpoolOptions::path_policy(&args.config_options);
        let uris = uris.as_string::<i32>();
        let mut files = Vec::with_capacity(uris.len());
        for uri in uris {
            let Some(uri) = uri else { return Err(refusal("probe was given NULL: write probe('talk.mp4')")) };
            if let Some(policy) = &path_policy {
                policy.check_source(uri).map_err(engine_error)?;
            }
            files.push(listing::file(self.host.0.timelines(), uri).await.map_err(engine_error)?);
        }
        Ok(ColumnarValue::Array(value::structs(&PROBE, &files)?))
    }
}
