//! `segments`: the rows that a source is encoded in.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{RecordBatch, StructArray},
        datatypes::{DataType, Field, Fields},
    },
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider},
    error::Result,
    logical_expr::Documentation,
};
use datafusion_macros::user_doc;
use spool_media::plan::{
    deinterlace::Deinterlace,
    rows,
    segments::{DEFAULT_MEDIA_SEGMENT_SECONDS, Lengths},
};

use super::{
    Host,
    literals::Literals,
    rows::{Rows, split_rows},
};
use crate::{
    error::{engine_error, refusal},
    options::SpoolOptions,
    schema::SEGMENT,
    value,
};

pub(crate) const NAME: &str = "segments";
const USAGE: &str = "segments('source' [, seconds [, media_segment_seconds [, deinterlace]]])";

/// Columns of a segment, and the struct of all of them that `transcode` takes.
static COLUMNS: LazyLock<Fields> = LazyLock::new(|| {
    let segment = Arc::new(Field::new("segment", DataType::Struct(SEGMENT.clone()), false));
    SEGMENT.iter().cloned().chain([segment]).collect()
});

/// Lists the segments of a source, one row per audio track and one per video segment.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Lists the segments of a video: first one row per audio track, then contiguous rows of \
        video that cover the output frame grid exactly once. The rows depend on the source and the arguments \
        only. The column `segment` holds all other columns as a struct, for `transcode`.",
    syntax_example = "segments(source [, seconds [, media_segment_seconds [, deinterlace]]])",
    sql_example = "```sql\nSELECT index, track, first_frame, frames, start_ms FROM segments('talk.mp4', \
        30);\n```",
    argument(name = "source", description = "Path or URI of the video: a literal."),
    argument(
        name = "seconds",
        description = "Approximate length of a segment in seconds. Default (or NULL): 30, or a quarter of a \
            short source. Boundaries move to where little must be decoded twice."
    ),
    argument(
        name = "media_segment_seconds",
        description = "Length of an HLS media segment in seconds, rounded to whole frames. Default (or \
            NULL): 4."
    ),
    argument(
        name = "deinterlace",
        description = "How interlaced frames are deinterlaced: `'frame'` makes one frame of each, `'field'` \
            one of each field, at twice the rate. Default (or NULL): `'frame'`."
    )
)]
#[derive(Debug)]
pub struct Segments {
    host: Host,
}

impl Segments {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    pub(crate) fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

impl TableFunctionImpl for Segments {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let literals = Literals { usage: USAGE, args: args.exprs() };
        literals.at_most(4)?;
        let source = literals.text(0, "source")?;
        if let Some(policy) = SpoolOptions::path_policy(args.session().config_options()) {
            policy.check_source(&source).map_err(engine_error)?;
        }
        let media_seconds =
            literals.number(2, "media_segment_seconds")?.unwrap_or(DEFAULT_MEDIA_SEGMENT_SECONDS);
        let lengths = Lengths::new(literals.number(1, "seconds")?, media_seconds).map_err(engine_error)?;
        let deinterlace = match literals.optional_text(3, "deinterlace")? {
            Some(how) => how.parse::<Deinterlace>().map_err(refusal)?,
            None => Deinterlace::default(),
        };
        let worker = self.host.0.clone();
        let fetch = move || {
            let (worker, source) = (worker.clone(), source.clone());
            Box::pin(async move {
                let title = worker.open(&source, deinterlace).await.map_err(engine_error)?;
                let segments = rows::rows(&title, lengths).map_err(engine_error)?;
                let plain = value::batch(&SEGMENT, &segments)?;
                let whole = Arc::new(StructArray::from(plain.clone()));
                let columns = plain.columns().iter().cloned().chain([whole as _]).collect();
                Ok(split_rows(&RecordBatch::try_new(value::schema(&COLUMNS), columns)?))
            }) as _
        };
        Ok(Arc::new(Rows { schema: value::schema(&COLUMNS), fetch: Arc::new(fetch) }))
    }
}
