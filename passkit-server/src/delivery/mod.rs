//! Delivery records say how far a change came on its way to the phones. They help to answer "why
//! does my phone not update?".
//!
//! The service and the publisher write records through a [`DeliveryRecorder`]. Answers to phones do
//! not wait for it. A [`DeliveryLog`], which most stores implement, keeps the records for all
//! instances.

mod event;
mod list_detail;
mod recorder;

use std::time::SystemTime;

use async_trait::async_trait;

use crate::{
    PassId,
    identifiers::{DeviceIdentifier, TypeIdentifier},
    store::StoreError,
};

pub use event::{Complaint, Denial, Event, PushFailure};
pub use list_detail::ListDetail;
pub use recorder::{DeliveryRecorder, RecorderTotals};

/// A store for delivery records.
///
/// A record says how often something happened to a subject, and when it last happened. A
/// [`Subject`] has at most one record per [`Event`], so the number of its records is limited,
/// whatever phones send.
///
/// The records help operators, and nothing else depends on them. A crash may lose the latest
/// records.
///
/// # Contract
/// * **D1, merged.** If a record of the same subject and event exists, [`record`](Self::record)
///   merges the new record into it as [`Record::merge`] describes. The order in which records are
///   merged does not matter, neither within one call nor between instances.
/// * **D2, subjects are apart.** [`records`](Self::records) returns the records of exactly the
///   subjects that it is asked for, in their order. A subject without records has an empty list.
/// * **D3, forgotten.** After [`forget`](Self::forget), the subject has no records. After
///   [`discard_before`](Self::discard_before), no record whose last time is before the given time
///   remains, and all other records are unchanged.
/// * **D4, shared.** A call that begins after a call has returned `Ok` sees its effect, in every
///   instance that shares the store.
///
/// # Cancel safety and errors
/// A dropped or failed call may have taken effect for some of the records, but never for a part of
/// a record. Do not repeat a failed `record`, because its records could be counted twice. A store
/// that repeats calls itself after a broken connection may count a record twice.
#[async_trait]
pub trait DeliveryLog: Send + Sync {
    /// Merges records into the stored ones. Any number of records of a subject may occur.
    async fn record(&self, records: &[Record]) -> Result<(), StoreError>;

    /// Returns the records of each subject. The records of a subject are in no particular order.
    ///
    /// Records of events that this version does not know, because a newer instance wrote them, are
    /// left out.
    async fn records(&self, subjects: &[Subject]) -> Result<Vec<Vec<Record>>, StoreError>;

    /// Removes all records of these subjects.
    async fn forget(&self, subjects: &[Subject]) -> Result<(), StoreError>;

    /// Removes up to about `limit` records whose last time is before `time`, or all of them if the
    /// store needs no limit. Returns `true` if none remains, and `false` if some may remain.
    async fn discard_before(&self, time: SystemTime, limit: usize) -> Result<bool, StoreError>;
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A pass or an order, on all its devices together.
    Pass(PassId),
    /// A device, with all its passes of a type.
    Device(TypeIdentifier, DeviceIdentifier),
    /// A type, with all its passes and devices.
    Type(TypeIdentifier),
}

impl Subject {
    /// Returns the subject as three texts, for stores: its kind (`pass`, `device` or `type`), its
    /// type, and its serial number or device identifier. The last text is empty for a type.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str, &str) {
        match self {
            Self::Pass(pass) => ("pass", pass.type_id.as_str(), pass.serial.as_str()),
            Self::Device(type_id, device) => ("device", type_id.as_str(), device.as_str()),
            Self::Type(type_id) => ("type", type_id.as_str(), ""),
        }
    }
}

/// How often an event happened to a subject, and when it last happened. No number in a record is
/// greater than [`Record::MAX_NUMBER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The pass, device or type to which the event happened.
    pub subject: Subject,
    /// What happened.
    pub event: Event,
    /// The version that the event is about, such as the version that was fetched. 0 if the event is
    /// not about a version.
    pub version: u64,
    /// How often the event happened with this version.
    pub count: u64,
    /// When the event last happened with this version, in microseconds since the Unix epoch.
    pub at: u64,
    /// More about the last time. The text has at most [`Record::MAX_DETAIL`] bytes, no control
    /// characters and no secret.
    pub detail: String,
}

impl Record {
    /// The longest [`detail`](Self::detail), in bytes.
    pub const MAX_DETAIL: usize = 200;

    /// The greatest [`version`](Self::version), [`count`](Self::count) and [`at`](Self::at):
    /// 2^53 - 1. A store may therefore compute with floating-point numbers.
    pub const MAX_NUMBER: u64 = (1 << 53) - 1;

    /// Merges a record of the same subject and event into this one.
    ///
    /// The record with the greater version stays and the other is dropped. If the versions are
    /// equal, the counts are added (up to [`MAX_NUMBER`](Self::MAX_NUMBER)), and the later time
    /// stays with its detail. If the times are equal too, the detail that is greater by its bytes
    /// stays.
    pub fn merge(&mut self, other: Self) {
        if other.version > self.version {
            *self = other;
        } else if other.version == self.version {
            self.count = self.count.saturating_add(other.count).min(Self::MAX_NUMBER);
            if (other.at, &other.detail) > (self.at, &self.detail) {
                self.at = other.at;
                self.detail = other.detail;
            }
        }
    }
}
