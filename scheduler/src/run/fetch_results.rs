//! Result fetch: gets the rows of a finished job from the executors that hold them.

use ballista_core::{
    client::BallistaClient,
    serde::{protobuf::PartitionLocation, scheduler::PartitionId},
};
use datafusion::arrow::array::RecordBatch;
use futures::TryStreamExt;

use crate::error::{Error, Result};

/// Attempts to fetch a partition from an executor, and the wait between them.
const ATTEMPTS_MAX: u8 = 3;
const RETRY_DELAY_MS: u64 = 200;

/// Flow-control windows of the connection: results are small.
const WINDOW_BYTES: u32 = 1 << 20;

/// Fetches every partition, in order.
pub(crate) async fn fetch_results(
    mut locations: Vec<PartitionLocation>,
    max_message_bytes: u32,
) -> Result<Vec<RecordBatch>> {
    // Locations are listed as their tasks ended; a statement without ORDER BY still reads better in the order
    // of its rows.
    locations.sort_by_key(|location| {
        (location.partition_id.as_ref().map(|id| id.partition_id), location.map_partition_id)
    });
    let mut batches = Vec::new();
    for location in locations {
        batches.extend(fetch_partition(location, max_message_bytes as usize).await?);
    }
    Ok(batches)
}

async fn fetch_partition(location: PartitionLocation, max_message_bytes: usize) -> Result<Vec<RecordBatch>> {
    let layout = location.layout();
    let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
        return Err(Error::Engine { message: "a result names no executor".to_owned() });
    };
    let job = partition.job_id.into();
    let partition = PartitionId::new(&job, partition.stage_id as usize, partition.partition_id as usize);
    let port = u16::try_from(executor.port).map_err(|_| Error::Engine {
        message: format!("executor {} has the invalid port {}", executor.id, executor.port),
    })?;
    let failed = |e: String| Error::from_engine(&e);
    let mut client = BallistaClient::try_new(
        &executor.host,
        port,
        max_message_bytes,
        false,
        None,
        ATTEMPTS_MAX,
        RETRY_DELAY_MS,
        WINDOW_BYTES,
        WINDOW_BYTES,
    )
    .await
    .map_err(|e| failed(e.to_string()))?;
    let stream = client
        .fetch_partition(&executor.id, &partition, location.file_id, layout, true)
        .await
        .map_err(|e| failed(e.to_string()))?;
    stream.try_collect().await.map_err(|e| failed(e.to_string()))
}
