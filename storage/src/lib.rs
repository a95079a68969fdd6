//! Storage: reads and writes objects at local paths, in buckets and on the web. No other crate talks to an
//! object store.
//!
//! [`Stores`] resolves a path or a URI to a [`Location`]. A location reads, writes, lists and deletes. A
//! [`SourceReader`] reads a large object that must not change meanwhile. Local files and buckets behave
//! alike: an object appears as a whole, acknowledged writes are durable, and of concurrent calls of
//! [`Location::create`] or [`Location::replace`] one succeeds.

mod address;
mod backend;
mod backoff;
mod blocking;
mod bucket_client;
mod clients;
mod concurrency;
mod error;
mod files;
mod kind;
mod location;
pub mod net;
mod object;
mod object_kind;
pub mod path_policy;
mod pinning;
mod presign;
mod profile;
pub mod read_cache;
mod reader;
mod stores;
mod upload;
mod wire;

pub use self::{
    address::{is_within, name, redact, redact_in},
    backoff::Backoff,
    concurrency::{ConcurrencyLimit, ConcurrencyPermit},
    error::{AddressProblem, Denial, Error},
    kind::ErrorKind,
    location::Location,
    object::{Entry, PutOutcome, SMALL_OBJECT_MAX_BYTES, Version},
    object_kind::ObjectKind,
    presign::{Amazon, PartLink},
    reader::{ReadAt, Source, SourceReader, bytes_read},
    stores::Stores,
    upload::part_bytes,
    wire::Answer,
};
