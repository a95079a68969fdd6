//! Processor time and memory of a process, read from `/proc`.

use std::{fs, time::Duration};

/// Unit of times in `/proc`: USER_HZ, which has this value on every processor that Spool is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resources that a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time, without that of child processes.
    pub cpu: Duration,
    /// Resident memory now.
    pub rss_mb: f64,
    /// Highest resident memory so far.
    pub peak_mb: f64,
}

/// Returns the usage of a process, or `None` if it has ended.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold any character. The field after it is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0 / 1e6)
    };
    Some(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND),
        rss_mb: mb("VmRSS:")?,
        peak_mb: mb("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_this_process_is_not_zero() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_mb > 0.5 && usage.peak_mb >= usage.rss_mb, "{usage:?}");
    }
}
