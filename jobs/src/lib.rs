//! Job store and dispatcher: the durable record of jobs, uploads, credentials, webhooks and watches, and the
//! dispatcher that has jobs run. Schedulers and executors keep no durable state; this crate keeps it.

mod error;
mod fencing_token;
mod id;
mod secret;
mod statement_limits;

mod event;
mod job;
mod request;
mod row;
mod video;

mod cleanup;
mod credentials;
mod store;
mod uploads;
mod watches;
mod webhooks;

mod sql;

mod backend;
mod dispatcher;

pub use backend::{Failure, JobBackend};
pub use cleanup::CleanupQueue;
pub use credentials::{
    ApiKey, Credential, CredentialStore, NewApiKey, NewUploadToken, Scope, Tenant, TenantPolicy, UploadToken,
};
pub use dispatcher::{Dispatcher, DispatcherSettings};
pub use error::{Error, Result};
pub use event::{Event, EventKind};
pub use fencing_token::FencingToken;
pub use id::Id;
pub use job::{Job, JobError, JobState, Phase};
pub use request::{Cut, JobSpec, Request, VIDEO_PLACEHOLDER};
pub use row::{Attempt, Row, RowState};
pub use secret::random_secret;
pub use sql::{SqlStore, check_tenant_name};
pub use statement_limits::{StatementTooLarge, check_statement};
pub use store::{
    Counts, Created, JobFilter, JobProgress, JobStore, Lease, LeaseStatus, NewJob, Outcome, Page, Report,
};
pub use uploads::{NewUpload, Upload, UploadLease, UploadState, UploadStore};
pub use video::Video;
pub use watches::{NewWatch, Watch, WatchStore};
pub use webhooks::{Delivery, DeliveryLease, DeliveryOutcome, DeliveryState, Webhook, WebhookStore};
