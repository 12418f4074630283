//! Shows the progress of a long command on stderr.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use passkit_server::store::StoreError;

use crate::failure::Chain;

/// How often a line is written if there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How many times a call is tried while the store is unavailable.
const TRIES: u32 = 10;

pub(super) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    is_terminal: bool,
    said: Cell<Instant>,
}

impl Progress {
    /// Makes a progress display that counts `what`. If the length is known, the display shows
    /// how much is left.
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
        // The templates are valid. With an invalid one, the bar would have its default look.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            what,
            is_terminal,
            said: Cell::new(Instant::now()),
        }
    }

    /// Sets how many items and bytes are done.
    pub(super) fn set(&self, count: u64, bytes: u64) {
        self.show(bytes, || format!("{count} {}", self.what));
    }

    /// Sets the progress to `position` of the length, and shows this text.
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

    /// Makes a call of a store. Repeats it while the store is unavailable.
    pub(super) async fn patiently<T>(
        &self,
        call: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 1;
        let mut said = String::new();
        loop {
            match call().await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    let line = format!("will try again: {}", Chain(&error));
                    if said != line {
                        self.say(&line);
                        said = line;
                    }
                    tokio::time::sleep(Duration::from_millis(200) * tries).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
