//! The results of a run: a table for people, and JSON for programs.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Value, json};

use super::{
    load::{Part, Visits},
    schedule::Rate,
    tally::{Call, Counts, Times},
};

pub(super) struct Report {
    pub(super) url: String,
    pub(super) devices: usize,
    pub(super) passes: usize,
    pub(super) connections: usize,
    pub(super) rate: Rate,
    pub(super) interrupted: bool,
    pub(super) registering: Part,
    /// `None` if no phone could register.
    pub(super) visits: Option<Visits>,
    /// `None` if the phones stay registered.
    pub(super) unregistering: Option<Part>,
    pub(super) left_registered: usize,
}

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("max", 1.0),
];

impl Report {
    /// How often each kind of error happened, in all parts of the run.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        let visits = self.visits.as_ref().map(|visits| &visits.part);
        let mut errors = BTreeMap::new();
        for part in [Some(&self.registering), visits, self.unregistering.as_ref()]
            .into_iter()
            .flatten()
        {
            for (words, count) in &part.tally.lock().errors {
                *errors.entry(words.clone()).or_default() += count;
            }
        }
        errors
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "url": self.url,
            "devices": self.devices,
            "passes": self.passes,
            "connections": self.connections,
            "rate": match self.rate {
                Rate::PerSecond(rate) => json!(rate),
                Rate::Max => json!("max"),
            },
            "interrupted": self.interrupted,
            "registering": registering(&self.registering),
            "duration_seconds": 0.0,
            "visits": null,
            "calls": {},
            "bytes_received": 0,
            "errors": self.errors(),
            "left_registered": self.left_registered,
        });
        if let Some(Visits {
            part,
            due,
            not_begun,
        }) = &self.visits
        {
            let counts = part.tally.lock();
            json["duration_seconds"] = json!(rounded(part.took.as_secs_f64()));
            json["visits"] = json!({
                "due": due,
                "done": counts.done,
                "failed": counts.failed,
                "not_begun": not_begun,
                "per_second": per_second(counts.done, part.took),
                "corrected": self.rate != Rate::Max,
                "latency_ms": latency(&counts.visits),
            });
            json["bytes_received"] = json!(counts.bytes);
            for (&(call, status), times) in &counts.calls {
                json["calls"][call_name(call, status)] = json!({
                    "count": times.count(),
                    "per_second": per_second(times.count(), part.took),
                    "latency_ms": latency(times),
                });
            }
        }
        json
    }

    /// Returns the visits if more than one in a hundred never started.
    fn fell_behind(&self) -> Option<&Visits> {
        self.visits
            .as_ref()
            .filter(|visits| visits.not_begun * 100 > visits.due)
    }
}

fn registering(part: &Part) -> Value {
    let counts = part.tally.lock();
    let registered = counts
        .calls
        .get(&(Call::Register, 201))
        .map_or(0, Times::count);
    json!({
        "seconds": rounded(part.took.as_secs_f64()),
        "phones": counts.done,
        "registrations": registered,
        "per_second": per_second(registered, part.took),
        "latency_ms": counts.calls.get(&(Call::Register, 201)).map_or_else(|| latency(&Times::default()), latency),
    })
}

fn latency(times: &Times) -> Value {
    QUANTILES
        .iter()
        .map(|(name, quantile)| ((*name).to_owned(), json!(times.quantile(*quantile))))
        .collect()
}

fn call_name(call: Call, status: u16) -> String {
    format!("{} {status}", call.name())
}

fn per_second(count: u64, took: Duration) -> f64 {
    rounded(count as f64 / took.as_secs_f64().max(0.001))
}

/// Rounds to thousandths.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Writes a row of the table.
fn row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    count: u64,
    took: Duration,
    times: &Times,
) -> fmt::Result {
    write!(f, "{name:22}{count:>9}{:>10.1}", per_second(count, took))?;
    for (_, quantile) in QUANTILES {
        match times.quantile(quantile) {
            Some(time) => write!(f, "{time:>9.2}")?,
            None => write!(f, "{:>9}", "-")?,
        }
    }
    writeln!(f)
}

fn rows(f: &mut fmt::Formatter<'_>, counts: &Counts, took: Duration) -> fmt::Result {
    counts.calls.iter().try_for_each(|((call, status), times)| {
        row(
            f,
            &format!("  {}", call_name(*call, *status)),
            times.count(),
            took,
            times,
        )
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:22}{:>9}{:>10}", "", "count", "a second")?;
        QUANTILES
            .iter()
            .try_for_each(|(name, _)| write!(f, "{:>9}", name.replace('_', ".")))?;
        writeln!(f, "   ms")?;
        {
            let counts = self.registering.tally.lock();
            row(
                f,
                "phones registering",
                counts.done,
                self.registering.took,
                &counts.visits,
            )?;
            rows(f, &counts, self.registering.took)?;
        }
        if let Some(Visits { part, .. }) = &self.visits {
            let counts = part.tally.lock();
            let name = match self.rate {
                Rate::PerSecond(_) => "visits, from when due",
                Rate::Max => "visits, not corrected",
            };
            row(f, name, counts.done, part.took, &counts.visits)?;
            rows(f, &counts, part.took)?;
        }
        let errors = self.errors();
        if errors.is_empty() {
            writeln!(f, "no errors")?;
        }
        errors
            .iter()
            .try_for_each(|(words, count)| writeln!(f, "error: {words}: {count}"))?;
        if let Some(Visits { due, not_begun, .. }) = self.fell_behind() {
            writeln!(
                f,
                "fell behind: {not_begun} of {due} due visits did not start before the end; their waiting \
                time counts as the time of a visit; try a lower --rate, or more --connections"
            )?;
        }
        if self.visits.is_none() {
            writeln!(f, "no visits: no phone could register")?;
        }
        if self.left_registered > 0 {
            writeln!(f, "left registered: {}", self.left_registered)?;
        }
        Ok(())
    }
}
