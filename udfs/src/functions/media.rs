//! `media`: the files in a folder or a bucket, with their tracks.

use std::sync::Arc;

use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider},
    error::Result,
    logical_expr::Documentation,
};
use datafusion_macros::user_doc;
use spool_media::listing;

use super::{Host, literals::Literals, rows::Rows};
use crate::{error::engine_error, options::SpoolOptions, schema::PROBE, value};

pub(crate) const NAME: &str = "media";
const USAGE: &str = "media('s3://uploads/*.mp4')";

/// Lists the files that match a pattern.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Lists the files that match a pattern, as a table: uri, etag, bytes, container, \
        duration_ms, width, height, rotation, fps, video_codec, pixel_format, hdr, interlaced, audio tracks. \
        A file that is not a video has a row with its `error`.",
    syntax_example = "media(glob)",
    sql_example = "```sql\nSELECT uri, width, height, duration_ms FROM media('s3://uploads/2026/*.mp4') \
        WHERE error IS NULL;\n```",
    argument(
        name = "glob",
        description = "Path or URI; `*` and `?` match within a folder, `**` across folders, `[ab]` one of a \
            set."
    )
)]
#[derive(Debug)]
pub struct Media {
    host: Host,
}

impl Media {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    pub(crate) fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

impl TableFunctionImpl for Media {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let literals = Literals { usage: USAGE, args: args.exprs() };
        literals.at_most(1)?;
        let glob = literals.text(0, "glob")?;
        if let Some(policy) = SpoolOptions::path_policy(args.session().config_options()) {
            policy.check_pattern(&glob).map_err(engine_error)?;
        }
        let worker = self.host.0.clone();
        let fetch = move || {
            let (worker, glob) = (worker.clone(), glob.clone());
            Box::pin(async move {
                let files = listing::glob(worker.timelines(), &glob).await.map_err(engine_error)?;
                Ok(vec![value::batch(&PROBE, &files)?])
            }) as _
        };
        Ok(Arc::new(Rows { schema: value::schema(&PROBE), fetch: Arc::new(fetch) }))
    }
}
