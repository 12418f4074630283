//! Measures a case and its floor in turns, so that other load on the machine affects both alike.

use std::{
    fs,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{data, plot, results::Row};

/// Makes this number of calls, and returns how long they took.
pub type Side = Box<dyn FnMut(u64) -> Duration>;

/// The number of samples of each side.
const SAMPLES: usize = 15;

/// A bench. It measures with criterion, which reports whether a case became slower since the last run. It also compares each
/// case with its floor.
pub struct Bench {
    name: &'static str,
    criterion: Criterion,
    rows: Vec<Row>,
    notes: Vec<(String, f64)>,
}

impl Bench {
    /// Reads the arguments of the program.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        let criterion = Criterion::default()
            .without_plots()
            .sample_size(SAMPLES)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_millis(600))
            .configure_from_args();
        Self {
            name,
            criterion,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Measures one case, unless the arguments leave it out. `make` returns the floor first. It is called only if it is
    /// needed.
    pub fn compare(
        &mut self,
        subject: &str,
        case: &str,
        size: usize,
        make: impl FnOnce() -> (Side, Side),
    ) {
        let (mut make, mut made) = (Some(make), None);
        let mut turns: Vec<(f64, f64)> = Vec::new();
        let mut group = self.criterion.benchmark_group(self.name);
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(
            BenchmarkId::new(format!("{subject}/{case}"), size),
            |bencher| {
                if let Some(make) = make.take() {
                    made = Some(make());
                }
                let (floor, own) = made.as_mut().expect("made above");
                bencher.iter_custom(|calls| {
                    let (on_floor, on_own) = if turns.len().is_multiple_of(2) {
                        let on_floor = floor(calls);
                        (on_floor, own(calls))
                    } else {
                        let on_own = own(calls);
                        (floor(calls), on_own)
                    };
                    let each = |time: Duration| time.as_secs_f64() * 1e6 / calls as f64;
                    turns.push((each(on_floor), each(on_own)));
                    on_own
                });
            },
        );
        group.finish();
        if turns.is_empty() {
            return;
        }
        // The earlier turns only warm up both sides.
        let turns = &turns[turns.len().saturating_sub(SAMPLES)..];
        self.rows.push(Row {
            case: case.to_owned(),
            subject: subject.to_owned(),
            size,
            floor: median(turns.iter().map(|turn| turn.0)),
            own: median(turns.iter().map(|turn| turn.1)),
            ratio: median(turns.iter().map(|turn| turn.1 / turn.0)),
        });
    }

    /// Adds a number without a floor below the table.
    pub fn note(&mut self, what: impl Into<String>, number: f64) {
        let what = what.into();
        if !self.notes.iter().any(|(known, _)| *known == what) {
            self.notes.push((what, number));
        }
    }

    /// Prints the table, and writes it to `target/passkit-bench` as JSON and as a drawing for each subject.
    pub fn finish(self) {
        self.criterion.final_summary();
        if self.rows.is_empty() && self.notes.is_empty() {
            return;
        }
        println!(
            "\n{}: microseconds for a call; growth is from the smallest size; sizes are registrations, devices or callers",
            self.name
        );
        println!(
            "{:<12}{:<40}{:>12}{:>8}{:>8}{:>12}{:>12}",
            "", "", "size", "ratio", "growth", "floor", "own"
        );
        let mut rows = Vec::new();
        for row in &self.rows {
            let same = |other: &&Row| other.subject == row.subject && other.case == row.case;
            let smallest = self.rows.iter().filter(same).min_by_key(|other| other.size);
            let growth = smallest.map_or(1.0, |smallest| row.own / smallest.own);
            println!(
                "{:<12}{:<40}{:>12}{:>8.2}{:>8.2}{:>12.2}{:>12.2}",
                row.subject,
                row.case,
                data::grouped(row.size),
                row.ratio,
                growth,
                row.floor,
                row.own
            );
            rows.push(json!({
                "subject": row.subject, "case": row.case, "size": row.size, "ratio": row.ratio,
                "growth": growth, "floor_us": row.floor, "own_us": row.own,
            }));
        }
        for (what, number) in &self.notes {
            println!("{what}: {number:.1}");
        }
        let notes: serde_json::Map<_, _> = self
            .notes
            .iter()
            .map(|(what, number)| (what.clone(), json!(number)))
            .collect();
        let json = json!({ "bench": self.name, "rows": rows, "notes": notes });
        let folder = data::folder();
        let write = |name: String, text: String| {
            fs::create_dir_all(&folder)
                .and_then(|()| fs::write(folder.join(name), text))
                .expect("written");
        };
        write(format!("{}.json", self.name), format!("{json:#}\n"));
        for (subject, drawing) in plot::by_subject(self.name, &self.rows) {
            write(format!("{}-{subject}.svg", self.name), drawing);
        }
        println!("written to {}", folder.display());
    }
}

/// Returns the median.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the runtime of all benches.
#[must_use]
pub fn runtime() -> &'static Runtime {
    static RUNTIME: std::sync::LazyLock<Runtime> =
        std::sync::LazyLock::new(|| Runtime::new().expect("a runtime"));
    &RUNTIME
}

/// Returns a side with this number of callers that share the calls. Each caller makes one call after the other. `call` gets
/// the number of the call.
pub fn called<F>(callers: usize, call: impl Fn(usize) -> F + Clone + Send + 'static) -> Side
where
    F: Future<Output = ()> + Send,
{
    let mut first = 0;
    Box::new(move |calls| {
        let asked = calls as usize;
        // If calls are slow, criterion requests few calls. Each caller must make at least one call.
        let calls = if callers == 1 {
            asked
        } else {
            asked.max(2 * callers)
        };
        let numbers = first..first + calls;
        first += calls;
        runtime().block_on(async {
            let start = Instant::now();
            if callers == 1 {
                for number in numbers {
                    call(number).await;
                }
                return start.elapsed();
            }
            let tasks: Vec<_> = (0..callers)
                .map(|caller| {
                    let (call, numbers) =
                        (call.clone(), numbers.clone().skip(caller).step_by(callers));
                    tokio::spawn(async move {
                        for number in numbers {
                            call(number).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("the caller ends");
            }
            start.elapsed().mul_f64(asked as f64 / calls as f64)
        })
    })
}
