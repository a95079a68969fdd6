//! Reads any bytes as an MP4: the result is an error, or an index whose samples lie in the file and whose
//! windows are no larger than their content.
#![no_main]

use bytes::Bytes;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use spool_media::source::{
    index::{ReadAt, mp4},
    window,
};

struct Memory(Bytes);

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read_at(&self, range: std::ops::Range<u64>) -> Result<Bytes, spool_storage::Error> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let file = Memory(Bytes::copy_from_slice(bytes));
    let Ok(index) = block_on(mp4::read(&file)) else { return };
    let _ = window::plan_probe(&index);
    for (stream, track) in index.tracks.iter().enumerate() {
        for sample in &track.samples {
            assert!(
                sample.offset.checked_add(u64::from(sample.size)).is_some_and(|end| end <= file.len()),
                "a sample beyond the file"
            );
        }
        let (first, end) = (track.first_pts().unwrap_or(0), track.end_pts().unwrap_or(0));
        let middle = first.midpoint(end);
        for span in [window::Span::All, window::Span::Pts { first: middle, end }] {
            if let Ok(plan) = window::plan(&index, stream, span) {
                assert!(plan.bytes_read() <= file.len(), "a window reads more than there is");
            }
        }
    }
});
