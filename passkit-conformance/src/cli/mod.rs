//! The command line of the program: its arguments, output and exit codes. `passkit-conformance` and
//! `passkit conformance` use it.

mod init;

use std::{
    collections::BTreeSet,
    fs::File,
    future::pending,
    io::{IsTerminal as _, Write as _, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use passkit_server::text::{OneLine, closest};
use tokio::signal::unix::{SignalKind, signal};

pub use self::init::Init;
use crate::{
    Case, Level, Limits, Outcome, Report, length,
    random::{self, Random},
    service::{LONG, Progress, PushService, ServiceCase, Target, TargetFile, cases, run_watched},
};

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends the requests of phones to the web service at a URL, and reports which rules it breaks.
    ///
    /// The run makes its own devices and unregisters them at the end, even after Ctrl-C. A second
    /// Ctrl-C ends the program at once. The run changes passes as the target file says. Other
    /// devices and their registrations are not touched.
    ///
    /// Exit code: 0 if all cases passed or were skipped, 1 if a case failed, 2 if the service could
    /// not be tested.
    Run(Run),

    /// Writes a target file to start from.
    ///
    /// Types, serial numbers and authentication tokens are read from the given archives. Without
    /// archives, the file has placeholders to fill in.
    Init(Init),
}

/// Which cases to run, against which service, and where to write the reports.
#[derive(Args, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The URL of the web service, which is the webServiceURL of its passes. If several instances of
    /// one service have own URLs, give --url for each. Then each request goes to the next instance.
    #[arg(long, required_unless_present = "list")]
    url: Vec<String>,

    /// A file with some passes, their authentication tokens, and a way to change a pass
    #[arg(long, value_name = "FILE.toml", required_unless_present = "list")]
    target: Option<PathBuf>,

    /// The cases to run: ids, groups such as list/, or patterns such as get/*-304. A case with a
    /// complete id runs even if it is below the level. Default: all cases of the level
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// The lowest level of the cases to run: must, should or advisory.
    #[arg(long, default_value = "should")]
    level: Level,

    /// Only list the cases with their levels and rules
    #[arg(long)]
    list: bool,

    /// Write a report as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    /// Write a report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a report as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write a badge with the result, for a README
    #[arg(long, value_name = "FILE.svg")]
    badge: Option<PathBuf>,

    /// The longest time to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,

    /// How long the case history/long-history-adds-up takes, such as 90s, 10m or 2h. Default: 1s
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,

    /// Make the same calls in history/long-history-adds-up as the run that printed this number
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

fn time(text: &str) -> Result<Duration, &'static str> {
    length::read(text).ok_or("not a time such as 90s, 10m or 2h")
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if !(0.001..=3600.0).contains(&seconds) {
        return Err("not between 0.001 and 3600");
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Command {
    /// Runs the subcommand and prints its results.
    ///
    /// # Errors
    ///
    /// Fails if the cases could not run. The error is one line with the reason. The exit code is
    /// then 2.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with time and I/O enabled.
    pub async fn run(self) -> Result<ExitCode, String> {
        match self {
            Self::Run(run) => run.run().await,
            Self::Init(init) => init.run().await,
        }
    }
}

impl Run {
    async fn run(self) -> Result<ExitCode, String> {
        let all = cases();
        let chosen = chosen(&all, &self.ids, self.level)?;
        if self.list {
            list(&chosen);
            return Ok(ExitCode::SUCCESS);
        }
        let (false, Some(file)) = (self.url.is_empty(), &self.target) else {
            return Err("--url and --target are needed".into());
        };
        let is_long = chosen.iter().any(|one| one.case.id == LONG);
        if !is_long && (self.time.is_some() || self.seed.is_some()) {
            return Err(format!(
                "--for and --seed are for {LONG}, which is not among the chosen cases: add its id"
            ));
        }
        let files = self.report_files()?;
        let limits = Limits {
            time: self.timeout,
            ..Limits::default()
        };
        let target = self.long(target(file, &self.url, limits).await);
        let (mut report, problem) = match target {
            Ok(target) => {
                let mut lines = Lines::new(chosen.len());
                let report = run_watched(
                    chosen,
                    &target,
                    |progress| lines.show(progress),
                    interrupted(),
                )
                .await;
                let problem = report.stopped().map(str::to_owned);
                (report, problem)
            }
            Err(problem) => (
                Report::not_run(chosen.iter().map(|one| one.case), &problem),
                Some(problem),
            ),
        };
        let urls: Vec<_> = self
            .url
            .iter()
            .map(|url| OneLine::url(url).to_string())
            .collect();
        report.target = urls.join(", ");
        report.level = Some(self.level);
        for (path, mut file, render) in files {
            file.write_all(render(&report).as_bytes())
                .map_err(|error| cannot_write(path, &error))?;
        }
        conclude(&report);
        let counts = report.counts();
        match problem {
            Some(problem) if counts.fail == 0 => Err(problem),
            Some(problem) => {
                say(&format!("the run ended early: {problem}"));
                Ok(ExitCode::FAILURE)
            }
            None if counts.fail > 0 => Ok(ExitCode::FAILURE),
            None if counts.error > 0 => Ok(ExitCode::from(2)),
            None => Ok(ExitCode::SUCCESS),
        }
    }

    /// Sets the time and the seed of the long case, and prints the seed if either was given.
    fn long(&self, target: Result<Target, String>) -> Result<Target, String> {
        let mut target = target?;
        if self.time.is_some() || self.seed.is_some() {
            let given = random::seed().ok().flatten();
            let seed = self.seed.or(given).unwrap_or_else(Random::short_seed);
            say(&format!("{LONG} has the seed {seed}"));
            target = target.seeded(seed);
        }
        Ok(match self.time {
            Some(time) => target.lasting(time),
            None => target,
        })
    }

    /// Creates the files for the reports. This happens before any case runs, so that a wrong path
    /// fails at once.
    fn report_files(&self) -> Result<Vec<(&Path, File, Render)>, String> {
        let wanted: [(&Option<PathBuf>, Render); 4] = [
            (&self.junit, Report::junit),
            (&self.json, Report::json),
            (&self.html, Report::html),
            (&self.badge, Report::badge),
        ];
        wanted
            .into_iter()
            .filter_map(|(path, render)| Some((path.as_deref()?, render)))
            .map(|(path, render)| match File::create(path) {
                Ok(file) => Ok((path, file, render)),
                Err(error) => Err(cannot_write(path, &error)),
            })
            .collect()
    }
}

/// Makes the target. Starts its push service if the file says so, and prints what the web service
/// needs to know about it.
async fn target(file: &Path, urls: &[String], limits: Limits) -> Result<Target, String> {
    let file = TargetFile::load(file)?;
    let mut targets = Vec::new();
    for url in urls {
        targets.push(file.target(url, limits)?);
    }
    let first = targets.remove(0);
    let target = Target::spread(first, targets);
    Ok(match file.push_service().await? {
        Some((pushes, folder)) => {
            say(&pushes_to(&pushes, &folder));
            target.pushing_to(pushes)
        }
        None => target,
    })
}

/// Returns the text that says how to set up a web service for the push service.
fn pushes_to(pushes: &PushService, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "The web service must send its pushes to https://localhost:{}/3/device/TOKEN and trust the certificate in\n\
         {folder}/root.pem. Any client certificate or provider token is accepted, such as {folder}/TYPE.pem.",
        pushes.port()
    )
}

type Render = fn(&Report) -> String;

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("can't write {}: {error}", path.display())
}

/// Returns the cases that `ids` select, or all cases of the level if `ids` is empty.
fn chosen<'a>(
    all: &'a [ServiceCase],
    ids: &[String],
    level: Level,
) -> Result<Vec<&'a ServiceCase>, String> {
    let mut wanted = BTreeSet::new();
    for id in ids {
        let named: Vec<_> = all.iter().filter(|one| names(id, one.case.id)).collect();
        if named.is_empty() {
            return Err(unknown(id, all));
        }
        // A case with a complete id runs at any level. A group or pattern selects only cases of the
        // level.
        let of_level = |one: &&&ServiceCase| one.case.id == id || one.case.level <= level;
        wanted.extend(named.iter().filter(of_level).map(|one| one.case.id));
        if !named.iter().any(|one| wanted.contains(one.case.id)) {
            return Err(format!(
                "all cases of {id:?} are below the level {level}: give a lower --level"
            ));
        }
    }
    let is_wanted = |one: &&ServiceCase| match ids {
        [] => one.case.level <= level,
        _ => wanted.contains(one.case.id),
    };
    Ok(all.iter().filter(is_wanted).collect())
}

/// Returns whether the text selects the case. The text is an id, a prefix up to the slash, or a
/// pattern with `*`.
fn names(written: &str, id: &str) -> bool {
    if written.ends_with('/') {
        return id.starts_with(written);
    }
    let Some((start, rest)) = written.split_once('*') else {
        return written == id;
    };
    let Some(mut left) = id.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else {
            return false;
        };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

fn unknown(id: &str, all: &[ServiceCase]) -> String {
    let of_stores = ["store/", "queue/", "coordination/", "delivery/"];
    if of_stores.iter().any(|group| id.starts_with(group)) {
        return format!(
            "{id:?} is a case of a store, which runs in the store's own tests, not against a URL"
        );
    }
    let near = closest(id, all.iter().map(|one| one.case.id));
    if near.is_empty() {
        format!("no case is called {id:?}; --list shows them all")
    } else {
        format!(
            "no case is called {id:?}; did you mean {}?",
            near.join(" or ")
        )
    }
}

fn list(cases: &[&ServiceCase]) {
    for Case {
        id, level, rules, ..
    } in cases.iter().map(|one| one.case)
    {
        let rules: Vec<_> = rules.iter().map(|rule| rule.id()).collect();
        say(&format!("{id:55} {level:9} {}", rules.join(" ")));
    }
}

/// Prints the failures in full, what to fix, and the counts.
fn conclude(report: &Report) {
    for failure in report.results.iter().filter_map(|result| result.failure()) {
        say(&format!("\n{}", failure.trim_end()));
    }
    let tried = report
        .results
        .iter()
        .any(|result| !matches!(result.outcome, Outcome::Error(_)));
    if tried {
        say(report.verdicts().trim_end());
        say("");
    }
    say(&report.counts().to_string());
}

/// Returns at the first signal to end the program. A second signal ends the program at once.
async fn interrupted() {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return pending().await;
    };
    let mut next_signal = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next_signal().await;
    tokio::spawn(async move {
        next_signal().await;
        #[expect(clippy::exit, reason = "the user does not want to wait")]
        std::process::exit(130);
    });
}

/// Prints a line of results. Ignores errors, because the reader of the output may have ended, as in
/// `… | head -1`.
fn say(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

/// Writes the output during a run: a line for each finished case, and on a terminal the running
/// case.
struct Lines {
    all: usize,
    begun: usize,
    terminal: bool,
}

impl Lines {
    fn new(all: usize) -> Self {
        Self {
            all,
            begun: 0,
            terminal: stderr().is_terminal(),
        }
    }

    fn show(&mut self, progress: Progress<'_>) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        match progress {
            Progress::Begins(case) => {
                self.begun += 1;
                if self.terminal {
                    let _ = write!(stderr(), "{clear}[{}/{}] {}", self.begun, self.all, case.id);
                }
            }
            Progress::Done(result) => {
                let _ = write!(stderr(), "{clear}");
                say(&result.line());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    fn parsed(arguments: &str) -> Result<Run, String> {
        let arguments = std::iter::once("program").chain(arguments.split(' '));
        let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
        match program.command {
            Command::Run(run) => Ok(run),
            Command::Init(_) => Err("not a run".into()),
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Program::command().debug_assert();
        let run = parsed("run --url http://h --target t.toml register/ --level must --timeout 0.5")
            .unwrap();
        assert_eq!(
            (run.level, run.timeout, run.ids.len()),
            (Level::Must, Duration::from_millis(500), 1)
        );
        assert!(parsed("run --list").is_ok());
        let run = parsed("run --url http://h --url http://i --target t.toml --for 10m --seed 7");
        let run = run.unwrap();
        assert_eq!(
            (run.url.len(), run.time, run.seed),
            (2, Some(Duration::from_secs(600)), Some(7))
        );
        for wrong in [
            "run",
            "run --url http://h",
            "run --list --level most",
            "run --list --timeout 0",
            "run --list --timeout x",
            "run --list --timeout inf",
            "run --list --for 10",
            "run --list --seed x",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_case_has_many_names() {
        for (written, id, expected) in [
            ("list/quiet", "list/quiet", true),
            ("list/quiet", "list/quiet-2", false),
            ("list/", "list/quiet", true),
            ("list", "list/quiet", false),
            ("list/*", "list/quiet", true),
            ("*/quiet", "list/quiet", true),
            ("*", "list/quiet", true),
            ("l*q*t", "list/quiet", true),
            ("l*q*x*t", "list/quiet", false),
            ("list/quiet*t", "list/quiet", false),
        ] {
            assert_eq!(names(written, id), expected, "{written} {id}");
        }
    }

    #[test]
    fn a_case_that_is_named_runs_whatever_its_level() {
        let mut all = cases();
        let mut other = all[0];
        other.case.id = "register/advice";
        other.case.level = Level::Advisory;
        all.push(other);
        let ids = |ids: &[&str], level| {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            chosen(&all, &ids, level)
                .map(|cases| cases.iter().map(|one| one.case.id).collect::<Vec<_>>())
        };
        assert!(
            !ids(&[], Level::Should)
                .unwrap()
                .contains(&"register/advice")
        );
        assert!(
            ids(&[], Level::Advisory)
                .unwrap()
                .contains(&"register/advice")
        );
        assert_eq!(
            ids(&["register/advice"], Level::Must).unwrap(),
            ["register/advice"]
        );
        assert!(
            !ids(&["register/"], Level::Must)
                .unwrap()
                .contains(&"register/advice")
        );
        assert!(
            ids(&["*/advice"], Level::Must)
                .unwrap_err()
                .contains("--level")
        );
        assert!(
            ids(&["register/advise"], Level::Must)
                .unwrap_err()
                .contains("did you mean register/advice?")
        );
        assert!(
            ids(&["store/no-tag-lists-all"], Level::Must)
                .unwrap_err()
                .contains("a case of a store")
        );
        assert!(
            ids(&["nonsense"], Level::Must)
                .unwrap_err()
                .contains("--list")
        );
    }
}
