//! What does a process take? Read from `/proc`.

use std::{fs, time::Duration};

/// The unit of times in `/proc`: USER_HZ, which is this on every processor that Spool is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has taken so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// User and system time of its own, without its children's.
    pub cpu: Duration,
    /// Memory that it has resident now.
    pub rss_mb: f64,
    /// The most that it had.
    pub peak_mb: f64,
}

/// What the process has taken; `None` once it is gone.
pub fn taken(pid: u32) -> Option<Taken> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are numbers, the third of all first.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mb = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0 / 1e6)
    };
    Some(Taken {
        cpu: Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND),
        rss_mb: mb("VmRSS:")?,
        peak_mb: mb("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_taken_something() {
        let taken = taken(std::process::id()).unwrap();
        assert!(taken.rss_mb > 0.5 && taken.peak_mb >= taken.rss_mb, "{taken:?}");
    }
}
