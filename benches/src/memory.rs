//! What this process takes, on Linux.

use std::fs;

/// A moment from which the most memory that is taken counts.
#[derive(Debug)]
pub struct Memory {
    before: f64,
}

impl Memory {
    /// From now on.
    #[must_use]
    pub fn now() -> Self {
        let _unknown_elsewhere = fs::write("/proc/self/clear_refs", "5");
        Self {
            before: status("VmRSS:"),
        }
    }

    /// How many kilobytes more than then were taken at the most.
    #[must_use]
    pub fn more_at_peak(&self) -> f64 {
        status("VmHWM:") - self.before
    }
}

/// A number of kilobytes.
fn status(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(f64::NAN)
}
