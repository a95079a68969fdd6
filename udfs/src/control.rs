//! How does an executor reach into a function that runs? By what it puts into the task's configuration.

use std::{any::Any, fmt};

use datafusion::{
    common::config::{ConfigExtension, ConfigOptions, ExtensionOptions},
    config::ConfigEntry,
    error::{DataFusionError, Result},
};
use tokio_util::sync::CancellationToken;

/// One task's lifeline. It has no entries, so it is never serialised: each process makes its own.
#[derive(Clone, Default)]
pub struct TaskControl {
    /// Fires when the task ends, whichever way: what still runs for it must stop.
    pub token: CancellationToken,
    /// The job that the task is of, by the engine's name.
    pub job: String,
}

impl TaskControl {
    /// The lifeline of the task that these options belong to; outside an executor one that never fires, of no job.
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
