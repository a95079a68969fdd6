//! The truth about jobs: a durable store of them, and the dispatcher that works it off. Engines forget; this does not.

mod error;
mod id;
mod request;

mod event;
mod job;
mod row;
mod upload;
mod video;

mod store;

mod sql;

mod cluster;
mod dispatcher;

pub use cluster::{Cluster, Failure};
pub use dispatcher::{Dispatcher, Settings};
pub use error::{Error, Result};
pub use event::{Event, Kind};
pub use id::Id;
pub use job::{Ended, Job, Phase, State};
pub use request::{Cut, Request, VIDEO};
pub use row::{Attempt, Row, RowState};
pub use sql::SqlStore;
pub use store::{Claim, Created, Ending, Filter, NewJob, Page, Progress, Report, Standing, Store};
pub use upload::{NewUpload, Upload, UploadHold, UploadState, Uploads};
pub use video::Video;
