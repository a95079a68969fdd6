//! Arrow schemas of the structs of the video domain. The tests compare each with its struct, name by name.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{
    DataType::{self, Boolean, Float64, Int64, UInt8, UInt16, UInt32, UInt64, Utf8},
    Field, FieldRef, Fields,
};

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, false))
}

fn optional(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

fn list(name: &str, fields: &Fields) -> FieldRef {
    field(name, DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields.clone()), false))))
}

/// Fields of [`spool_media::plan::segments::Segment`].
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

/// Fields of [`spool_media::package::parts::MediaSegmentRef`].
static MEDIA_SEGMENT: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("number", UInt32),
        field("path", Utf8),
        field("start_ticks", UInt64),
        field("duration_ticks", UInt64),
        field("bytes", UInt64),
    ])
});

/// Fields of [`spool_media::plan::audio_label::AudioTrackLabel`].
static LABEL: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("track", UInt32),
        optional("language", Utf8),
        optional("title", Utf8),
        optional("role", Utf8),
        field("default", Boolean),
    ])
});

/// Fields of [`spool_media::package::parts::PartRendition`].
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

/// Fields of [`spool_media::package::parts::Part`].
pub(crate) static PART: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        field("destination", Utf8),
        field("segment", DataType::Struct(SEGMENT.clone())),
        list("renditions", &PART_RENDITION),
    ])
});

/// Fields of [`spool_media::package::merge::HlsLadder`].
pub(crate) static HLS_LADDER: LazyLock<Fields> = LazyLock::new(|| {
    let rendition = Fields::from(vec![
        field("track", Utf8),
        field("name", Utf8),
        field("codecs", Utf8),
        field("timescale", UInt32),
        field("width", UInt32),
        field("height", UInt32),
        optional("frame_rate", Utf8),
        field("max_bitrate_bps", UInt64),
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

/// Fields of [`spool_media::package::publish::Published`].
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

/// Fields of [`spool_media::plan::ladder::LadderEntry`].
pub(crate) static LADDER_LINE: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        optional("codec", Utf8),
        optional("height", UInt32),
        optional("max_bitrate_bps", UInt32),
        optional("crf", UInt8),
        optional("preset", Utf8),
    ])
});

/// Fields of [`spool_media::listing::FileInfo`]: the columns of `media`, and the struct of `probe`.
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
        field("discrete", Boolean),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::{Map, Value, json};
    use spool_media::{
        listing::FileInfo,
        package::{
            merge::HlsLadder,
            parts::{Part, PartRendition},
            publish::Published,
        },
        plan::{ladder::LadderEntry, segments::Segment},
    };

    use super::*;

    /// Returns a value that the field accepts: no NULL, and lists of one element, so that every nested field
    /// is present.
    fn sample(field: &Field) -> Value {
        match (field.name().as_str(), field.data_type()) {
            ("track", Utf8) => json!("video"),
            ("timebase" | "frame_rate", _) => json!("30/1"),
            ("deinterlace", _) => json!("frame"),
            ("role", _) => json!("commentary"),
            ("codec", _) => json!("avc"),
            (_, Utf8) => json!("text"),
            (_, Boolean) => json!(true),
            (_, Float64) => json!(1.5),
            (_, Int64 | UInt8 | UInt16 | UInt32 | UInt64) => json!(1),
            (_, DataType::Struct(fields)) => sample_struct(fields),
            (_, DataType::List(item)) => json!([sample(item)]),
            (name, other) => panic!("{name} has the type {other}: give it a sample"),
        }
    }

    fn sample_struct(fields: &Fields) -> Value {
        let values = fields.iter().map(|field| (field.name().clone(), sample(field)));
        Value::Object(values.collect::<Map<_, _>>())
    }

    /// Adds the path of every name in a value, such as `renditions.label.role`.
    fn collect_names(value: &Value, path: &str, names: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = format!("{path}.{name}");
                    collect_names(value, &path, names);
                    names.insert(path);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect_names(item, path, names)),
            _ => {}
        }
    }

    /// Reads a sample of the schema as the struct and writes it again: a name that one side lacks is a
    /// difference, or an error.
    fn assert_same_names<T: Serialize + DeserializeOwned>(fields: &Fields) {
        let of_schema = sample_struct(fields);
        let value: T = serde_json::from_value(of_schema.clone())
            .unwrap_or_else(|e| panic!("{}: {e} in {of_schema}", std::any::type_name::<T>()));
        let of_struct = serde_json::to_value(&value).unwrap();
        let names = |value: &Value| {
            let mut names = BTreeSet::new();
            collect_names(value, "", &mut names);
            names
        };
        assert_eq!(names(&of_schema), names(&of_struct), "{}", std::any::type_name::<T>());
    }

    #[test]
    fn every_schema_has_the_names_of_its_struct() {
        assert_same_names::<Segment>(&SEGMENT);
        assert_same_names::<PartRendition>(&PART_RENDITION);
        assert_same_names::<Part>(&PART);
        assert_same_names::<HlsLadder>(&HLS_LADDER);
        assert_same_names::<Published>(&PUBLISHED);
        assert_same_names::<LadderEntry>(&LADDER_LINE);
        assert_same_names::<FileInfo>(&PROBE);
    }
}
