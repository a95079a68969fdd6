//! Which settings does a job carry from whoever submits it to every executor?

use std::any::Any;

use datafusion::{
    common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions},
    error::{DataFusionError, Result},
};
use spool_storage::path_policy::PathPolicy;

/// Threads that an encode may have: none would be as many as a machine has, and other bytes on each.
const THREADS: std::ops::RangeInclusive<u32> = 1..=64;

/// A job's settings, which the session that it is submitted in carries as `spool.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Threads of each encode. A setting of the job, because the bytes depend on it.
    pub threads: u32,
    /// Refuse what is damaged or cut off, instead of making the best of it.
    pub strict: bool,
    /// Keep playlists of what is encoded so far, `live.m3u8`, at the destination; rows go in the order of the title then.
    pub live: bool,
    /// The places that the job may touch; any unless given.
    pub confines: Option<PathPolicy>,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { threads: 1, strict: false, live: false, confines: None }
    }
}

impl SpoolOptions {
    /// The places that a statement may touch, by the settings that it runs with.
    pub fn confines(options: &ConfigOptions) -> Option<PathPolicy> {
        options.extensions.get::<Self>()?.confines.clone()
    }
}

impl ConfigExtension for SpoolOptions {
    const PREFIX: &'static str = "spool";
}

/// By hand: DataFusion's macro names its entries without the prefix, Ballista sends them by these names, and an executor that cannot set
/// `threads` says nothing and goes on with the default.
impl ExtensionOptions for SpoolOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "threads" => {
                let threads = parsed(key, value)?;
                if !THREADS.contains(&threads) {
                    let (least, most) = THREADS.into_inner();
                    let message = format!("spool.threads is {threads}: it must be from {least} to {most}");
                    return Err(DataFusionError::Configuration(message));
                }
                self.threads = threads;
            }
            "strict" => self.strict = parsed(key, value)?,
            "live" => self.live = parsed(key, value)?,
            "confines" if value.is_empty() => self.confines = None,
            "confines" => {
                // What cannot be read, such as what a newer version wrote, is no place at all: Ballista goes on after an error.
                self.confines = Some(PathPolicy::default());
                self.confines = Some(places(value)?);
            }
            _ => {
                let names: Vec<String> = self.entries().into_iter().map(|entry| entry.key).collect();
                return Err(DataFusionError::Configuration(format!(
                    "there is no spool.{key}: there are {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |name: &str, value: String, description| ConfigEntry {
            key: format!("{}.{name}", Self::PREFIX),
            value: Some(value),
            description,
        };
        vec![
            entry("threads", self.threads.to_string(), "Threads of each encode: the bytes depend on it."),
            entry(
                "strict",
                self.strict.to_string(),
                "Refuse what is damaged or cut off, instead of making the best of it.",
            ),
            entry(
                "live",
                self.live.to_string(),
                "Keep playlists of what is encoded so far, live.m3u8, at the destination.",
            ),
            // Texts always serialise.
            entry(
                "confines",
                self.confines
                    .as_ref()
                    .map(|confines| serde_json::to_string(confines).unwrap_or_default())
                    .unwrap_or_default(),
                "The places that may be read from and published to, as JSON; any where it is empty.",
            ),
        ]
    }
}

fn parsed<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    let what = std::any::type_name::<T>();
    value.trim().to_ascii_lowercase().parse().map_err(|_| {
        let what = if what == "bool" { "true or false" } else { "a whole number" };
        DataFusionError::Configuration(format!("spool.{key} is {value:?}: it must be {what}"))
    })
}

fn places(value: &str) -> Result<PathPolicy> {
    serde_json::from_str(value)
        .map_err(|e| DataFusionError::Configuration(format!("spool.confines cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionConfig;

    use super::*;

    #[test]
    fn what_is_sent_by_name_is_what_comes() {
        let config = || SessionConfig::new().with_option_extension(SpoolOptions::default());
        let mut sent = config();
        let confines = r#"{"sources":["s3://in/it's/"],"destinations":[]}"#;
        for (name, value) in [
            ("spool.threads", "3"),
            ("spool.strict", "true"),
            ("spool.live", "TRUE"),
            ("spool.confines", confines),
        ] {
            sent.options_mut().set(name, value).unwrap();
        }
        let mut came = config();
        for entry in sent.options().entries().into_iter().filter(|entry| entry.key.starts_with("spool")) {
            came.options_mut().set(&entry.key, &entry.value.unwrap()).unwrap();
        }
        let options =
            |config: &SessionConfig| config.options().extensions.get::<SpoolOptions>().cloned().unwrap();
        let confines =
            Some(PathPolicy { sources: vec!["s3://in/it's/".to_owned()], ..PathPolicy::default() });
        assert_eq!(options(&came), SpoolOptions { threads: 3, strict: true, live: true, confines });
        assert_eq!(options(&came), options(&sent));
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        let mut options = SpoolOptions::default();
        assert!(
            options
                .set("speed", "2")
                .unwrap_err()
                .to_string()
                .contains("there are spool.threads, spool.strict")
        );
        assert!(options.set("threads", "two").unwrap_err().to_string().contains("whole number"));
        assert!(["0", "65"].iter().all(|threads| {
            options.set("threads", threads).unwrap_err().to_string().contains("from 1 to 64")
        }));
        assert!(options.set("confines", "s3://in/").unwrap_err().to_string().contains("cannot be read"));
        assert_eq!(options.confines, Some(PathPolicy::default()), "what cannot be read opens nothing");
        assert!(options.set("strict", "maybe").unwrap_err().to_string().contains("true or false"));
    }
}
