//! Measures how much memory this process uses. This works only on Linux.

use std::fs;

/// The memory use at some time. The later peak is compared with it.
#[derive(Debug)]
pub struct Memory {
    before: f64,
}

impl Memory {
    /// Returns the memory use now.
    #[must_use]
    pub fn now() -> Self {
        let _unknown_elsewhere = fs::write("/proc/self/clear_refs", "5");
        Self {
            before: status("VmRSS:"),
        }
    }

    /// Returns by how many kilobytes the later peak was higher.
    #[must_use]
    pub fn more_at_peak(&self) -> f64 {
        status("VmHWM:") - self.before
    }
}

/// Returns a line of `/proc/self/status`, in kilobytes.
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
