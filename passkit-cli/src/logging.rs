//! The log on stderr.

use std::io::IsTerminal as _;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use tracing::Level;
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::log_lines::LogLines;

/// Another consumer of events and spans, besides the log.
pub(crate) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The options about the log.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LogOptions {
    /// How much is written to stderr. At `debug`, the log shows each step of a change on its way to a phone.
    #[arg(long, env = "PASSKIT_LOG", value_name = "LEVEL", ignore_case = true, value_parser = level())]
    log: Option<Level>,

    /// The form of the log: lines for people, or one JSON object in each line.
    #[arg(
        long,
        env = "PASSKIT_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

fn level() -> impl clap::builder::TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .try_map(|level| level.parse::<Level>())
}

/// Changes the level of the log.
pub(crate) struct LogLevel {
    usual: Level,
    targets: reload::Handle<Targets, Registry>,
}

impl LogOptions {
    /// Starts the log, at `usual` if the user chose no level.
    pub(crate) fn start(&self, usual: Level) -> LogLevel {
        self.start_with(usual, None)
    }

    /// Starts the log, and a consumer with a separate filter.
    pub(crate) fn start_with(&self, usual: Level, beside: Option<BoxedLayer>) -> LogLevel {
        let targets = targets(self.log.unwrap_or(usual));
        let targets = write_log(targets, self.log_format, beside);
        LogLevel { usual, targets }
    }
}

impl LogLevel {
    /// Uses the level of these options from now on.
    pub(crate) fn set(&self, options: &LogOptions) {
        // This fails only if the log has ended.
        let _ = self
            .targets
            .reload(targets(options.log.unwrap_or(self.usual)));
    }
}

/// The log never shows events from libraries below the level `info`. The HTTP/2 library logs nothing, because a client can
/// cause any number of its warnings.
fn targets(level: Level) -> Targets {
    let level = LevelFilter::from_level(level);
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("h2", LevelFilter::OFF)
        .with_target("passkit", level)
}

/// Starts a log for commands without another log. It only warns if other users can open files of the store.
pub(crate) fn start_warning_of_readers() {
    let module = "passkit_server::private_files";
    write_log(
        Targets::new().with_target(module, LevelFilter::WARN),
        LogFormat::Text,
        None,
    );
}

fn write_log(
    targets: Targets,
    format: LogFormat,
    beside: Option<BoxedLayer>,
) -> reload::Handle<Targets, Registry> {
    let lines = fmt::layer().with_span_events(FmtSpan::CLOSE);
    let lines = match format {
        LogFormat::Text => lines
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(LogLines::Text)
            .boxed(),
        // The names of the fields are documented in docs/operating.md.
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(true)
            .with_writer(LogLines::Json)
            .boxed(),
    };
    let (targets, handle) = reload::Layer::new(targets);
    let mut layers = vec![lines.with_filter(targets).boxed()];
    layers.extend(beside);
    tracing_subscriber::registry().with(layers).init();
    handle
}
