//! `parts`: the part records of a destination, with the executor and the time of each.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Fields},
    },
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider},
    error::Result,
    logical_expr::Documentation,
};
use datafusion_macros::user_doc;
use spool_media::{package::part_store, plan::segments::Segment};

use super::{Host, literals::Literals, rows::Rows};
use crate::{
    error::engine_error,
    options::SpoolOptions,
    schema::{PART_RENDITION, SEGMENT},
    value,
};

pub(crate) const NAME: &str = "parts";
const USAGE: &str = "parts('destination')";

static COLUMNS: LazyLock<Fields> = LazyLock::new(|| {
    let rendition = Arc::new(Field::new("rendition", DataType::Struct(PART_RENDITION.clone()), false));
    SEGMENT.iter().cloned().chain([rendition]).collect()
});

/// Lists the part records of a destination.
#[user_doc(
    doc_section(label = "Video Functions"),
    description = "Lists the part records of a destination: one row per segment and rung that is encoded, \
        with the segment's columns and a struct `rendition` (key, name, codecs, media segments, encode_ms, \
        host).",
    syntax_example = "parts(destination)",
    sql_example = "```sql\nSELECT index, rendition['name'], rendition['encode_ms'], rendition['host'] FROM \
        parts('s3://media/talk/') ORDER BY 1, 2;\n```",
    argument(
        name = "destination",
        description = "Folder or URI prefix that `transcode` wrote to: a literal."
    )
)]
#[derive(Debug)]
pub struct Parts {
    host: Host,
}

impl Parts {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    pub(crate) fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

impl TableFunctionImpl for Parts {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let literals = Literals { usage: USAGE, args: args.exprs() };
        literals.at_most(1)?;
        let destination = literals.text(0, "destination")?;
        if let Some(policy) = SpoolOptions::path_policy(args.session().config_options()) {
            policy.check_write(&destination).map_err(engine_error)?;
        }
        let worker = self.host.0.clone();
        let fetch = move || {
            let (worker, destination) = (worker.clone(), destination.clone());
            Box::pin(async move {
                let location = worker.environment().stores.locate(&destination).map_err(engine_error)?;
                let records = part_store::list(&location).await.map_err(engine_error)?;
                let segments: Vec<&Segment> = records.iter().map(|r| &r.segment).collect();
                let renditions: Vec<_> = records.iter().map(|r| &r.rendition).collect();
                let plain = value::batch(&SEGMENT, &segments)?;
                let rendition = value::structs(&PART_RENDITION, &renditions)?;
                let columns = plain.columns().iter().cloned().chain([rendition]).collect();
                Ok(vec![RecordBatch::try_new(value::schema(&COLUMNS), columns)?])
            }) as _
        };
        Ok(Arc::new(Rows { schema: value::schema(&COLUMNS), fetch: Arc::new(fetch) }))
    }
}
