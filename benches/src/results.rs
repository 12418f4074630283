//! The result of a case.

/// Medians, in microseconds for a call.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) subject: String,
    pub(crate) size: usize,
    pub(crate) floor: f64,
    pub(crate) own: f64,
    /// The median ratio of all turns.
    pub(crate) ratio: f64,
}
