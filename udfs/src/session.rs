//! Session of every role. It is the same for all, so that a function that resolves in one role resolves in
//! all.

use std::sync::Arc;

use datafusion::{
    error::Result,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{AggregateUDF, ScalarUDF, async_udf::AsyncScalarUDF},
    prelude::{SessionConfig, SessionContext},
};
use spool_media::encode::worker::Worker;

use crate::{
    control::TaskControl,
    functions::{
        Host, hls_ladder::HlsLadder, ladder::Ladder, media, media::Media, parts, parts::Parts, probe::Probe,
        publish::Publish, segments, segments::Segments, transcode::Transcode,
    },
    guard::{RelationGuard, StatementGuard},
    options::SpoolOptions,
    tenant_guard::TenantGuard,
};

/// Partitions of a stage. Few, because there are few rows and each is a process of its own; with one, the
/// last stage would be one task for all groups.
pub const TARGET_PARTITIONS: usize = 4;

/// Returns the configuration that every session starts from.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(TARGET_PARTITIONS)
        .with_information_schema(true)
        .with_option_extension(SpoolOptions::default())
        .with_option_extension(TaskControl::default());
    // A row is a whole FFmpeg run: a batch must never gather several of them.
    config.options_mut().execution.coalesce_batches = false;
    // This rule copies a call into every use of its result's fields: a call that is written once would run
    // twice.
    config.options_mut().optimizer.enable_leaf_expression_pushdown = false;
    config
}

/// Returns the state of a session with `config`, the functions of this crate, and the guards that refuse
/// statements.
///
/// # Errors
/// Returns an error if a function or a rule cannot be registered, which is a defect.
pub fn state(worker: &Arc<Worker>, config: SessionConfig) -> Result<SessionState> {
    let context = SessionContext::new_with_state(
        SessionStateBuilder::new().with_default_features().with_config(config).build(),
    );
    let host = Host(worker.clone());
    context.register_udtf(media::NAME, Arc::new(Media::new(host.clone())));
    context.register_udtf(segments::NAME, Arc::new(Segments::new(host.clone())));
    context.register_udtf(parts::NAME, Arc::new(Parts::new(host.clone())));
    context.register_udf(ScalarUDF::from(Ladder::new()));
    context.register_udf(AsyncScalarUDF::new(Arc::new(Probe::new(host.clone()))).into_scalar_udf());
    context.register_udf(AsyncScalarUDF::new(Arc::new(Transcode::new(host.clone()))).into_scalar_udf());
    context.register_udf(AsyncScalarUDF::new(Arc::new(Publish::new(host))).into_scalar_udf());
    context.register_udaf(AggregateUDF::from(HlsLadder::new()));
    context.register_relation_planner(Arc::new(RelationGuard))?;
    context.add_analyzer_rule(Arc::new(TenantGuard));
    context.add_analyzer_rule(Arc::new(StatementGuard));
    Ok(context.state())
}
