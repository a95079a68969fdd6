//! Task control: an executor's data in a task's configuration, for the functions that the task runs.

use std::{any::Any, fmt};

use datafusion::{
    common::config::{ConfigExtension, ConfigOptions, ExtensionOptions},
    config::ConfigEntry,
    error::{DataFusionError, Result},
};
use tokio_util::sync::CancellationToken;

/// The cancellation and the job of one task. It has no entries, so it is never serialized: each process
/// creates its own.
#[derive(Clone, Default)]
pub struct TaskControl {
    /// Fires when the task ends, for any reason: processes that run for it must stop.
    pub token: CancellationToken,
    /// The engine's name of the task's job.
    pub job: String,
}

impl TaskControl {
    /// Returns the control of the task with these options. Outside of an executor it has no job and never
    /// fires.
    pub fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

impl fmt::Debug for TaskControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskControl")
            .field("job", &self.job)
            .field("canceled", &self.token.is_cancelled())
            .finish()
    }
}

impl ConfigExtension for TaskControl {
    const PREFIX: &'static str = "spool_task";
}

impl ExtensionOptions for TaskControl {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("{}.{key} is not a setting", Self::PREFIX)))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
