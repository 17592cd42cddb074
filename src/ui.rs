//! The only printer: progress (kdam) on a terminal, plain lines elsewhere, colour where it is
//! wanted, nothing but warnings with `--quiet`. Everything goes to stderr; stdout is for data.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kdam::{Bar, BarExt};

use crate::monitor::{Monitor, Phase, duration};

/// Without a terminal a phase says how far it is this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(20);
const BOLD: &str = "\x1b[1m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Prints to stderr.
#[derive(Debug)]
pub struct Ui {
    quiet: bool,
    bars: bool,
    stop: Arc<AtomicBool>,
    phase: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    label: String,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
    bar: Option<Bar>,
}

impl Ui {
    /// `stop` is raised by Ctrl-C.
    pub fn new(quiet: bool, stop: Arc<AtomicBool>) -> Self {
        let bars = !quiet && std::io::stderr().is_terminal();
        Self {
            quiet,
            bars,
            stop,
            phase: Mutex::new(None),
        }
    }

    /// A heading line.
    pub fn heading(&self, text: &str) {
        if !self.quiet {
            self.line(&format!("{BOLD}{text}{RESET}"));
        }
    }

    /// A failure, with its causes.
    pub fn error(&self, error: &anyhow::Error) {
        self.line(&format!("{RED}error:{RESET} {error:#}"));
    }

    /// Writes a line above the bar, if there is one. A closed stderr is no reason to stop.
    fn line(&self, text: &str) {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = anstream::stderr().lock();
        if phase.as_ref().is_some_and(|running| running.bar.is_some()) {
            let _ = write!(stderr, "\r\x1b[K");
        }
        let _ = writeln!(stderr, "{text}");
    }
}

impl Monitor for Ui {
    fn begin(&self, _phase: Phase, label: &str, total: u64) {
        let bar = (self.bars && total > 0)
            .then(|| {
                Bar::builder()
                    .total(total as usize)
                    .desc(label)
                    .unit(" images")
                    .leave(false)
                    .dynamic_ncols(true)
                    .build()
                    .ok()
            })
            .flatten();
        let now = Instant::now();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running {
            label: label.into(),
            total,
            done: 0,
            started: now,
            said: now,
            bar,
        });
    }

    fn advance(&self, count: u64) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = phase.as_mut() else {
            return;
        };
        running.done += count;
        if let Some(bar) = &mut running.bar {
            let _ = bar.update(count as usize);
        } else if !self.quiet && running.said.elapsed() > PLAIN_INTERVAL {
            running.said = Instant::now();
            let spent = running.started.elapsed().as_secs_f64();
            let left = spent / running.done.max(1) as f64
                * (running.total - running.done.min(running.total)) as f64;
            let text = format!(
                "{}: {} of {} images, {:.0} images/s, {} left",
                running.label,
                running.done,
                running.total,
                running.done as f64 / spent.max(1e-9),
                duration(left)
            );
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    fn end(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if phase.take().is_some_and(|running| running.bar.is_some()) {
            let _ = write!(anstream::stderr(), "\r\x1b[K");
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    fn warn(&self, text: &str) {
        self.line(&format!("{YELLOW}warning:{RESET} {text}"));
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
