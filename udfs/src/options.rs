//! Which settings does a job carry from whoever submits it to every executor?

use datafusion::common::{config::ConfigExtension, extensions_options};

extensions_options! {
    /// A job's settings, which the session that it is submitted in carries as `spool.*`.
    pub struct SpoolOptions {
        /// Threads of each encode. A setting of the job, because the bytes depend on it.
        pub threads: u32, default = 1
        /// Refuse what is damaged or cut off, instead of making the best of it.
        pub strict: bool, default = false
        /// Keep playlists of what is encoded so far, `live.m3u8`, at the destination; rows go in the order of the title then.
        pub live: bool, default = false
    }
}

impl ConfigExtension for SpoolOptions {
    const PREFIX: &'static str = "spool";
}
