//! The truth about jobs: a durable store of them, and the dispatcher that works it off. Engines forget; this does not.

mod error;
mod id;
mod request;

mod access;

mod event;
mod job;
mod row;
mod upload;
mod video;
mod watch;
mod webhook;

mod store;

mod sql;

mod cluster;
mod dispatcher;

pub use access::{Access, ApiKey, NewKey, NewUploadToken, Policy, Scope, Shown, Tenant, UploadToken};
pub use cluster::{Cluster, Failure};
pub use dispatcher::{Dispatcher, Settings};
pub use error::{Error, Result};
pub use event::{Event, Kind};
pub use id::Id;
pub use job::{Ended, Job, Phase, State};
pub use request::{Cut, Order, Request, VIDEO};
pub use row::{Attempt, Row, RowState};
pub use sql::{SqlStore, check_tenant, drawn};
pub use store::{Claim, Counts, Created, Ending, Filter, NewJob, Page, Progress, Report, Standing, Store};
pub use upload::{NewUpload, Sources, Upload, UploadHold, UploadState, Uploads};
pub use video::Video;
pub use watch::{NewWatch, Watch, Watches};
pub use webhook::{Delivery, DeliveryHold, DeliveryState, Sent, Webhook, Webhooks};
