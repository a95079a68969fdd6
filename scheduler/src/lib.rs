//! Runs statements on Ballista: the one way in which any statement is executed.

mod error;
mod run;
mod service;

mod attempt;
mod pace;
mod phases;
mod results;
mod rows;
mod turnstile;

mod executors;
mod explain;
mod gate;
mod jobs;
mod live;

mod door;
mod flight_sql;
mod http;
mod remote;
mod scaler;
mod statements;

pub use error::{Error, Result};
pub use remote::Remote;
pub use run::{Outcome, Spent};
pub use service::{Scheduler, Service, Settings};
