//! The state of the service.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use passkit_server::{
    delivery::{Event, Record, Subject},
    identifiers::TypeIdentifier,
    push::Backlog,
};

use super::{
    Page,
    answer::Answer,
    known::{InFolders, InStore},
    request::Refusal,
    view::{self, Line, Overview},
};
use crate::explain::{Time, text};

/// The page shows this many types.
const MAX_TYPES: usize = 50;
/// Changes that have been pending for longer are shown as a problem.
const LATE: Duration = Duration::from_secs(3600);
/// Certificates that expire within this time are shown as a problem.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);

impl Page {
    pub(super) async fn overview(&self) -> Result<Answer, Refusal> {
        let report = self.health.report().await;
        let in_folders = self.in_folders().await?;
        let in_store = self.in_store();
        let mut types = in_folders.types.clone();
        types.extend(in_store.iter().flat_map(|known| known.types.clone()));
        let mut overview = Overview {
            problems: report.problems,
            warnings: report.warnings,
            service: service(&in_folders, in_store.as_deref(), &types),
            pending: Vec::new(),
            certificates: self.certificates().await,
            refusals: Vec::new(),
            complaints: Vec::new(),
            pushes: Vec::new(),
            keeps_records: self.keeps_records,
            now: Time::now().to_string(),
            signed_in: true,
            search: String::new(),
        };
        match self.ask(self.store.store.backlog()).await {
            Ok(backlog) => {
                overview.pending = pending(&backlog);
                types.extend(backlog.into_iter().map(|one| one.type_id));
            }
            Err(_) => return Ok(without_store(overview)),
        }
        match self.records(types).await {
            Ok(records) => {
                overview.refusals = lines(&records, |event| match event {
                    Event::Refused(denial) => Some(text::denial_text(denial)),
                    _ => None,
                });
                overview.complaints = lines(&records, |event| match event {
                    Event::Complaint(complaint) => Some(text::complaint_text(complaint)),
                    _ => None,
                });
                overview.pushes = lines(&records, |event| match event {
                    Event::PushAccepted => Some("accepted"),
                    Event::PushFailed(failure) => Some(text::failure_text(failure)),
                    _ => None,
                });
            }
            Err(_) => return Ok(without_store(overview)),
        }
        Ok(view::page(&overview))
    }

    async fn certificates(&self) -> Vec<Line> {
        let now = SystemTime::now();
        let line = |name: String, not_after: SystemTime| {
            let left = not_after.duration_since(now).unwrap_or_default();
            let days = left.as_secs() / (24 * 3600);
            let text = match days {
                0 if left.is_zero() => "has expired".to_owned(),
                1 => "1 day left".to_owned(),
                days => format!("{days} days left"),
            };
            Line::new(name, text).bad_if(left < RENEW)
        };
        let certificates = self.health.check_certificates().await;
        let mut lines: Vec<Line> = certificates
            .into_iter()
            .take(MAX_TYPES)
            .map(|(type_id, not_after)| line(format!("pushes of {type_id}"), not_after))
            .collect();
        if let Some(tls) = &self.tls {
            lines.push(line("HTTPS".into(), tls.not_after()));
        }
        lines
    }

    /// Reads the records of all these types.
    async fn records(&self, types: BTreeSet<TypeIdentifier>) -> Result<Vec<Record>, Refusal> {
        let types = types.into_iter().take(MAX_TYPES);
        let subjects: Vec<Subject> = types.map(Subject::Type).collect();
        let records = self.ask(self.store.store.records(&subjects)).await?;
        Ok(records.into_iter().flatten().collect())
    }
}

fn service(
    in_folders: &InFolders,
    in_store: Option<&InStore>,
    types: &BTreeSet<TypeIdentifier>,
) -> Vec<Line> {
    let mut lines = vec![
        Line::new("Version", env!("CARGO_PKG_VERSION")),
        Line::new(
            "Passes and orders in folders",
            in_folders.passes.to_string(),
        ),
        Line::new("Types", types.len().to_string()),
    ];
    match in_store {
        Some(known) => {
            lines.push(Line::new("Phones", known.devices.to_string()));
            lines.push(Line::new("Registrations", known.registrations.to_string()));
        }
        None => lines.push(Line::new("Phones", "being counted")),
    }
    lines
}

/// Shows what is known without the store.
fn without_store(mut overview: Overview) -> Answer {
    let problem = "the store does not answer the page; the log has the reason";
    if overview.problems.is_empty() {
        overview.problems.push(problem.into());
    }
    view::page(&overview).status(http::StatusCode::SERVICE_UNAVAILABLE)
}

fn pending(backlog: &[Backlog]) -> Vec<Line> {
    let now = SystemTime::now();
    let pending = backlog.iter().filter(|one| one.pending > 0).take(MAX_TYPES);
    pending
        .map(|one| {
            let age = one
                .since
                .and_then(|since| now.duration_since(since).ok())
                .unwrap_or_default();
            let what = if one.pending == 1 {
                "change"
            } else {
                "changes"
            };
            let value = format!("{} {what}, the oldest {}", one.pending, ago(age));
            Line::new(one.type_id.to_string(), value).bad_if(age >= LATE)
        })
        .collect()
}

/// Writes how long ago something was.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} hours ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// Sums the records of each kind over all types.
fn lines(records: &[Record], name_of: impl Fn(Event) -> Option<&'static str>) -> Vec<Line> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for record in records {
        if let Some(name) = name_of(record.event) {
            let (count, last) = sums.entry(name).or_default();
            *count = count.saturating_add(record.count);
            *last = record.at.max(*last);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (_, last))| std::cmp::Reverse(*last));
    sums.into_iter()
        .map(|(name, (count, last))| {
            let value = format!("{}, the last at {}", text::times(count), Time(last));
            Line::new(name, value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7200, "2 hours ago"),
            (200_000, "2 days ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
