//! The results: a table for the reader, and a file for programs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use crate::Result;

/// Columns: bench, peer, clients, metric, value, unit. No header.
const FILE: &str = "bench-results/end_to_end.tsv";

#[derive(Default)]
pub(crate) struct Results(Vec<Row>);

struct Row {
    bench: &'static str,
    peer: &'static str,
    clients: u64,
    metric: &'static str,
    value: f64,
    unit: &'static str,
}

/// The place of results.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) bench: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) clients: u64,
}

impl Results {
    pub(crate) fn add(&mut self, at: At, metric: &'static str, value: f64, unit: &'static str) {
        let At { bench, peer, clients } = at;
        self.0.push(Row { bench, peer, clients, metric, value, unit });
    }

    /// Adds the median of the rounds, and of the ratios to the first peer in the same round.
    pub(crate) fn add_rounds(
        &mut self,
        at: At,
        metric: [&'static str; 2],
        (rounds, first): (&[f64], &[f64]),
        unit: &'static str,
    ) {
        self.add(at, metric[0], median(rounds.to_vec()), unit);
        let ratios = rounds.iter().zip(first).map(|(value, first)| value / first);
        self.add(at, metric[1], median(ratios.collect()), "x");
    }

    /// Returns a table for each bench and number of clients: a line for each peer.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        let mut last = None;
        let mut peer = None;
        for row in &self.0 {
            let group = (row.bench, row.clients);
            if last.replace(group) != Some(group) {
                peer = None;
                _ = write!(text, "\n\n{}, {} clients", row.bench, row.clients);
            }
            if peer.replace(row.peer) != Some(row.peer) {
                _ = write!(text, "\n  {:<20}", row.peer);
            }
            let Row { metric, value, unit, .. } = row;
            let digits = if value.abs() < 100.0 { 2 } else { 0 };
            _ = write!(text, "  {metric} {value:.digits$} {unit}");
        }
        text
    }

    /// Writes the results into the directory of the build. Benches that did not run keep the
    /// results that the file has.
    pub(crate) fn save(&self) -> Result<PathBuf> {
        // target/release/deps/end_to_end-0123
        let program = env::current_exe()?;
        let target = program.ancestors().nth(3).ok_or("no target directory")?;
        let path = target.join(FILE);
        fs::create_dir_all(path.parent().expect("a directory"))?;
        let old = fs::read_to_string(&path).unwrap_or_default();
        let mut text = String::new();
        for line in old.lines() {
            let ran = |row: &Row| {
                let mut columns = line.split('\t');
                columns.next() == Some(row.bench)
                    && columns.nth(1) == Some(&row.clients.to_string())
            };
            if !self.0.iter().any(ran) {
                _ = writeln!(text, "{line}");
            }
        }
        for Row { bench, peer, clients, metric, value, unit } in &self.0 {
            _ = writeln!(text, "{bench}\t{peer}\t{clients}\t{metric}\t{value:.3}\t{unit}");
        }
        fs::write(&path, text)?;
        Ok(path)
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
