//! A load test of a service. Its phones make the calls that real phones make after a push.

mod address;
mod caller;
mod load;
mod passes;
mod phone;
mod report;
mod schedule;
mod stop;
mod tally;

use std::{process::ExitCode, time::Duration};

use address::Address;
use clap::{Args, builder::RangedU64ValueParser};
use load::Load;
use passes::{Passes, Sources};
use passkit_conformance::{
    Limits,
    load::{Connection, NoAnswer},
};
use phone::Phone;
use report::Report;
use schedule::Rate;
use stop::Stop;

use crate::{failure::Failure, server};

/// The default time between two visits of a phone, in seconds.
const EVERY: f64 = 10.0;

/// Puts a Wallet web service under load, as thousands of phones do after a push.
///
/// First all phones register. Then, at even intervals, one phone after another makes a visit: it
/// lists what changed, and fetches the listed passes. In some visits, a phone lists unchanged
/// passes too, gets a new push token, or removes a pass and adds it again. At the end, all phones
/// unregister.
///
/// The time of a visit counts from the moment when the visit was due, not from when its first
/// request was sent. If the service stalls, all visits that had to wait are therefore late, and not
/// only the few visits that were being answered. This corrects for coordinated omission. With
/// --rate max, visits have no due time, and the times are not corrected.
///
/// A table goes to stderr, and JSON to stdout. Ctrl-C ends the run early. A second Ctrl-C ends it
/// at once.
///
/// Exit code: 0 no errors, 1 some errors, 2 the test could not be run.
#[derive(Args)]
pub(crate) struct Bench {
    /// The URL of the web service, which is the webServiceURL of its passes.
    #[arg(long)]
    url: String,

    /// The number of phones. Each phone holds up to three passes of one type.
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    devices: usize,

    /// The number of seconds during which the phones make visits.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    duration: Duration,

    /// The number of visits that are due per second. With max, each connection makes one visit
    /// after another. Default: each phone makes a visit every ten seconds.
    #[arg(long, value_name = "N")]
    rate: Option<Rate>,

    /// The largest number of connections.
    #[arg(long, default_value_t = 64, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=20_000))]
    connections: usize,

    #[command(flatten)]
    sources: Sources,

    /// The longest time for an answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,

    /// Leave the phones registered. Their identifiers start with be9cbe9c.
    #[arg(long)]
    keep: bool,

    /// Allow a service that is not on this machine. The load may take it down.
    #[arg(long)]
    yes_i_own_this: bool,
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number between 0.1 and 86400"),
    }
}

impl Bench {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let stop = Stop::on_signals();
        let service = Address::find(&self.url, self.yes_i_own_this).await?;
        let passes = self.sources.read(self.devices)?;
        server::raise_open_file_limit();
        let connection = self.connect(&service).await?;
        let phones = phones(self.devices, &passes)?;
        let connections = self.connections.min(self.devices);
        let rate = self
            .rate
            .unwrap_or(Rate::PerSecond(self.devices as f64 / EVERY));
        let mut load = Load::new(phones, service.url, connection, connections, stop.clone());

        let registering = load.register().await;
        let registered = registering.tally.lock().done;
        eprintln!(
            "passkit: {registered} phones registered in {:.1} s",
            registering.took.as_secs_f64()
        );
        let visits = if registered > 0 {
            Some(load.visit(rate, self.duration).await)
        } else {
            None
        };
        let unregistering = if self.keep {
            None
        } else {
            Some(load.unregister(registering.took).await)
        };
        let report = Report {
            url: self.url,
            devices: self.devices,
            passes: passes.len(),
            connections,
            rate,
            interrupted: stop.is_wanted(),
            registering,
            visits,
            unregistering,
            left_registered: load.registrations().await,
        };
        eprint!("{report}");
        say!("{:#}", report.json());
        Ok(if report.errors().is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn connect(&self, service: &Address) -> Result<Connection, Failure> {
        let mut limits = Limits::default();
        limits.time = self.timeout;
        let connection = Connection::new(&service.url, service.addresses.clone(), limits);
        let mut connection =
            connection.map_err(|problem| Failure::new(format!("--url: the url {problem}")))?;
        connection.connect().await.map_err(|reason| {
            let hint = match reason {
                NoAnswer::Refused => "; is the service running?",
                _ => "",
            };
            Failure::new(format!("can't reach {}: {reason}{hint}", self.url))
        })?;
        Ok(connection)
    }
}

fn phones(count: usize, passes: &Passes) -> Result<Vec<Phone>, Failure> {
    let seed =
        getrandom::u64().map_err(|error| Failure::from_error("can't make identifiers", &error))?;
    (0..count)
        .map(|number| {
            let (type_id, held) = passes.held_by(number);
            Phone::new(seed, number as u64, type_id, held)
        })
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::from_error("can't make identifiers", &error))
}
