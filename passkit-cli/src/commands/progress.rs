//! How far something long has come, on stderr.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a line is written so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    is_terminal: bool,
    said: Cell<Instant>,
}

impl Progress {
    /// Counts `what`. With a length in bytes it is known how much is left.
    pub(super) fn new(what: &'static str, length: Option<u64>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = match (is_terminal, length) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(length)) => ProgressBar::new(length),
            (true, None) => ProgressBar::new_spinner(),
        };
        let template = match length {
            Some(_) => "{wide_bar} {percent:>3} %  {msg}  {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        // The templates are well-formed; should one not be, the bar looks as bars do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, what, is_terminal, said: Cell::new(Instant::now()) }
    }

    /// So many are done, and so many bytes.
    pub(super) fn set(&self, count: u64, bytes: u64) {
        self.show(bytes, || format!("{count} {}", self.what));
    }

    /// As far as `position` of the length, in these words.
    pub(super) fn show(&self, position: u64, words: impl FnOnce() -> String) {
        if self.is_terminal {
            self.bar.set_message(words());
            self.bar.set_position(position);
        } else if self.said.get().elapsed() >= LINE_EVERY {
            self.said.set(Instant::now());
            eprintln!("passkit: {} so far", words());
        }
    }

    /// Writes a line above the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("passkit: {line}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
