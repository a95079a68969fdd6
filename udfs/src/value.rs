//! How do the structs of the video domain become Arrow values, and back?
//!
//! Each has serde on one side and a schema here on the other; arrow-json carries the values between, so there is no
//! conversion code to keep in step.

use std::sync::{Arc, LazyLock};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
        datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
    },
    error::{DataFusionError, Result},
};
use serde::{Serialize, de::DeserializeOwned};

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, false))
}

fn optional(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

fn list(name: &str, fields: &Fields) -> FieldRef {
    field(name, DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), false))))
}

use DataType::{Boolean, Float64, Int64, UInt8, UInt16, UInt32, UInt64, Utf8};

/// [`spool_media::plan::segments::Segment`].
pub(crate) static SEGMENT: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("source", Utf8),
        field("etag", Utf8),
        field("track", Utf8),
        field("index", UInt32),
        field("first_frame", UInt64),
        field("frames", UInt64),
        field("timebase", Utf8),
        field("start_ms", Int64),
        field("duration_ms", Int64),
        field("media_segment_frames", UInt32),
        field("title_frames", UInt64),
        field("lost_ms", Int64),
        field("deinterlace", Utf8),
    ])
});

/// [`spool_media::package::parts::MediaSegmentRef`].
static MEDIA_SEGMENT: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("number", UInt32),
        field("path", Utf8),
        field("start_ticks", UInt64),
        field("duration_ticks", UInt64),
        field("bytes", UInt64),
    ])
});

/// [`spool_media::plan::audio_label::Label`].
static LABEL: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("track", UInt32),
        optional("language", Utf8),
        optional("title", Utf8),
        optional("role", Utf8),
        field("default", Boolean),
    ])
});

/// [`spool_media::package::parts::PartRendition`].
pub(crate) static PART_RENDITION: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("key", Utf8),
        field("name", Utf8),
        field("codecs", Utf8),
        field("timescale", UInt32),
        field("width", UInt32),
        field("height", UInt32),
        field("max_bitrate_bps", UInt64),
        field("channels", UInt16),
        optional("label", DataType::Struct(LABEL.clone())),
        field("init", Utf8),
        field("init_bytes", UInt64),
        list("media_segments", &MEDIA_SEGMENT),
        field("encode_ms", UInt64),
        field("host", Utf8),
        field("damaged_frames", UInt64),
        field("encoded", Boolean),
    ])
});

/// [`spool_media::package::parts::Part`].
pub(crate) static PART: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("destination", Utf8),
        field("segment", DataType::Struct(SEGMENT.clone())),
        list("renditions", &PART_RENDITION),
    ])
});

/// [`spool_media::package::merge::HlsLadder`].
pub(crate) static HLS_LADDER: LazyLock<Fields> = LazyLock::new(|| {
    let rendition = Fields::from(vec![
        field("track", Utf8),
        field("name", Utf8),
        field("codecs", Utf8),
        field("timescale", UInt32),
        field("width", UInt32),
        field("height", UInt32),
        optional("frame_rate", Utf8),
        field("channels", UInt16),
        optional("label", DataType::Struct(LABEL.clone())),
        field("init", Utf8),
        field("init_bytes", UInt64),
        list("media_segments", &MEDIA_SEGMENT),
    ]);
    Fields::from(vec![
        field("destination", Utf8),
        field("source", Utf8),
        field("duration_ms", Int64),
        field("lost_ms", Int64),
        field("damaged_frames", UInt64),
        list("renditions", &rendition),
    ])
});

/// [`spool_media::package::publish::Published`].
pub(crate) static PUBLISHED: LazyLock<Fields> = LazyLock::new(|| {
    let rendition = Fields::from(vec![
        field("name", Utf8),
        field("codecs", Utf8),
        field("width", UInt32),
        field("height", UInt32),
        optional("frame_rate", Utf8),
        field("average_bps", UInt64),
        field("peak_bps", UInt64),
        field("media_segments", UInt64),
        field("bytes", UInt64),
        field("playlist", Utf8),
    ]);
    Fields::from(vec![
        field("master", Utf8),
        field("duration_ms", Int64),
        field("bytes", UInt64),
        field("lost_ms", Int64),
        field("damaged_frames", UInt64),
        list("renditions", &rendition),
    ])
});

/// [`spool_media::plan::ladder::Line`].
pub(crate) static LADDER_LINE: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        optional("codec", Utf8),
        optional("height", UInt32),
        optional("max_bitrate_bps", UInt32),
        optional("crf", UInt8),
        optional("preset", Utf8),
    ])
});

/// What `media` says of one file, and, as a struct, what `probe` says.
pub(crate) static PROBE: LazyLock<Fields> = LazyLock::new(|| {
    let audio = Fields::from(vec![
        field("stream", UInt32),
        field("codec", Utf8),
        field("sample_rate", UInt32),
        field("channels", UInt16),
        optional("language", Utf8),
        optional("title", Utf8),
        optional("role", Utf8),
        field("default", Boolean),
    ]);
    Fields::from(vec![
        field("uri", Utf8),
        field("etag", Utf8),
        field("bytes", UInt64),
        optional("container", Utf8),
        optional("duration_ms", Int64),
        optional("width", UInt32),
        optional("height", UInt32),
        optional("rotation", UInt16),
        optional("fps", Float64),
        optional("video_codec", Utf8),
        optional("pixel_format", Utf8),
        optional("hdr", Boolean),
        optional("interlaced", Boolean),
        list("audio", &audio),
        optional("error", Utf8),
    ])
});

/// The schema with these columns.
pub(crate) fn schema(fields: &Fields) -> SchemaRef {
    Arc::new(Schema::new(fields.clone()))
}

/// One record batch with a row per value.
pub(crate) fn batch<T: Serialize>(fields: &Fields, values: &[T]) -> Result<RecordBatch> {
    let schema = schema(fields);
    if values.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    let mut decoder =
        arrow_json::ReaderBuilder::new(schema.clone()).with_batch_size(values.len()).build_decoder()?;
    decoder.serialize(values)?;
    decoder
        .flush()?
        .ok_or_else(|| DataFusionError::Internal("arrow-json gave no batch for its rows".to_owned()))
}

/// One struct array with an element per value.
pub(crate) fn structs<T: Serialize>(fields: &Fields, values: &[T]) -> Result<ArrayRef> {
    Ok(Arc::new(StructArray::from(batch(fields, values)?)))
}

/// The values of a struct array, by field name; a null element is `None`.
///
/// # Errors
/// Where the array holds no structs, or structs without the fields of `T`.
pub fn values<T: DeserializeOwned>(array: &dyn Array) -> Result<Vec<Option<T>>> {
    let Some(structs) = array.as_struct_opt() else {
        return Err(DataFusionError::Plan(format!("a struct was expected, not {}", array.data_type())));
    };
    (0..structs.len())
        .map(|row| if structs.is_null(row) { Ok(None) } else { value(structs, row).map(Some) })
        .collect()
}

fn value<T: DeserializeOwned>(structs: &StructArray, row: usize) -> Result<T> {
    let one = structs.slice(row, 1);
    let schema = Arc::new(Schema::new(one.fields().clone()));
    let batch = RecordBatch::try_new(schema, one.columns().to_vec())?;
    let mut json = Vec::new();
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut json);
    writer.write(&batch)?;
    writer.finish()?;
    serde_json::from_slice(&json)
        .map_err(|e| DataFusionError::Plan(format!("the value does not have the expected fields: {e}")))
}
