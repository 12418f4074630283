use std::process::ExitCode;

use clap::Args;
use passkit_server::maintenance::StoreStats;

use crate::{
    failure::Failure,
    store::{self, StoreUrl},
};

/// Counts the devices, registrations and passes of each type in a store. Also shows the size of the
/// store.
#[derive(Args)]
pub(crate) struct Stats {
    /// The store to count in.
    #[arg(long, env = "PASSKIT_STORE", default_value = store::DEFAULT, value_name = "URL", hide_env_values = true)]
    store: StoreUrl,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let store = self.store.open().await?.store;
        let stats = store
            .stats()
            .await
            .map_err(|error| Failure::from_error("can't count in the store", &error))?;
        if self.json {
            print_json(&stats)
        } else {
            print(&stats)
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn registrations(stats: &StoreStats) -> u64 {
    stats.types.iter().map(|one| one.registrations).sum()
}

fn print(stats: &StoreStats) {
    say!("devices        {}", stats.devices);
    say!("registrations  {}", registrations(stats));
    match stats.storage_bytes {
        Some(bytes) => say!("storage        {:.1} MB", bytes as f64 / 1e6),
        None => say!("storage        unknown"),
    }
    if stats.types.is_empty() {
        return;
    }
    let width = stats
        .types
        .iter()
        .map(|one| one.type_id.as_str().len())
        .max()
        .unwrap_or(0)
        .max(4);
    say!(
        "\n{:width$}  {:>10}  {:>13}",
        "type",
        "passes",
        "registrations"
    );
    for one in &stats.types {
        say!(
            "{:width$}  {:>10}  {:>13}",
            one.type_id.as_str(),
            one.passes,
            one.registrations
        );
    }
}

fn print_json(stats: &StoreStats) {
    let types: Vec<_> = stats
        .types
        .iter()
        .map(|one| {
            serde_json::json!({
                "type": one.type_id.as_str(), "passes": one.passes, "registrations": one.registrations,
            })
        })
        .collect();
    let all = serde_json::json!({
        "devices": stats.devices, "registrations": registrations(stats),
        "storage_bytes": stats.storage_bytes, "types": types,
    });
    say!("{all:#}");
}
