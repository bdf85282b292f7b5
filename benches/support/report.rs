//! The arguments of a benchmark and its results.
//!
//! ```text
//! cargo bench --bench NAME -- [PART] [--clients 1000,100000] [--peers sse-hub,...] [--rounds N] [--test]
//! ```
//!
//! `PART` is a text that the names of the wanted parts contain. `--test` is the smoke run of CI: a
//! few rounds with few clients, and nothing is saved.
//!
//! Results are saved to `bench-results/NAME.tsv` in cargo's target directory, with the columns
//! bench, peer, clients, metric, value and unit. A run replaces the lines that it measured anew and
//! keeps the others, so parts can be measured on their own.

// Each benchmark uses a part of this file.
#![allow(dead_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

pub(crate) struct Bench {
    name: &'static str,
    part: Option<String>,
    clients: Option<Vec<usize>>,
    peers: Option<Vec<String>>,
    rounds: Option<usize>,
    is_smoke: bool,
    rows: Vec<Row>,
}

struct Row {
    peer: String,
    clients: usize,
    metric: String,
    value: f64,
    unit: &'static str,
}

impl Row {
    /// The columns that tell this result from others of the same benchmark.
    fn key(&self) -> (String, String, String) {
        (self.peer.clone(), self.clients.to_string(), self.metric.clone())
    }
}

impl Bench {
    /// Reads the arguments of the program.
    pub(crate) fn start(name: &'static str) -> Self {
        let mut bench = Self {
            name,
            part: None,
            clients: None,
            peers: None,
            rounds: None,
            is_smoke: false,
            rows: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} of what?"));
            let number = |text: &str| text.replace('_', "").parse().expect("a number");
            match argument.as_str() {
                // Cargo adds `--bench`.
                "--bench" => {}
                "--test" => bench.is_smoke = true,
                "--clients" => bench.clients = Some(value().split(',').map(number).collect()),
                "--peers" => bench.peers = Some(value().split(',').map(String::from).collect()),
                "--rounds" => bench.rounds = Some(number(&value())),
                part if !part.starts_with('-') => bench.part = Some(part.into()),
                unknown => panic!("unknown argument {unknown}"),
            }
        }
        bench
    }

    pub(crate) fn is_smoke(&self) -> bool {
        self.is_smoke
    }

    /// Returns whether a part of the benchmark is wanted.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.part.as_ref().is_none_or(|wanted| part.contains(wanted))
    }

    pub(crate) fn wants_peer(&self, peer: &str) -> bool {
        self.peers.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| peer.contains(wanted)))
    }

    /// Returns the numbers of clients to measure: those of the arguments, or `smoke`, or `full`.
    pub(crate) fn clients(&self, full: &[usize], smoke: usize) -> Vec<usize> {
        match &self.clients {
            Some(clients) => clients.clone(),
            None if self.is_smoke => vec![smoke],
            None => full.to_vec(),
        }
    }

    pub(crate) fn rounds(&self, full: usize, smoke: usize) -> usize {
        self.rounds.unwrap_or(if self.is_smoke { smoke } else { full })
    }

    pub(crate) fn record(
        &mut self,
        peer: impl Into<String>,
        clients: usize,
        metric: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) {
        self.rows.push(Row { peer: peer.into(), clients, metric: metric.into(), value, unit });
    }

    /// Records the median of each peer, and the median of the first peer's ratios to each other peer.
    /// A ratio compares values of one round, so that a change in the machine's speed affects both.
    pub(crate) fn compare(
        &mut self,
        metric: &str,
        clients: usize,
        unit: &'static str,
        peers: &[(&str, Vec<f64>)],
    ) {
        for (peer, values) in peers {
            self.record(*peer, clients, metric, median(values.clone()), unit);
        }
        let Some(((first, values), others)) = peers.split_first() else { return };
        for (other, their) in others {
            let ratios = values.iter().zip(their).map(|(ours, theirs)| ours / theirs).collect();
            let pair = format!("{first} / {other}");
            self.record(pair, clients, metric, median(ratios), "x");
        }
        if !self.is_smoke {
            eprintln!("{}", self.table(metric));
        }
    }

    /// Saves the results, and prints all of them.
    pub(crate) fn finish(self) {
        let mut metrics: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !metrics.contains(&row.metric.as_str()) {
                metrics.push(&row.metric);
            }
        }
        for metric in metrics {
            println!("{}", self.table(metric));
        }
        if !self.is_smoke {
            self.save();
        }
    }

    /// Returns a line for each number of clients, with a column for each peer and pair.
    fn table(&self, metric: &str) -> String {
        let rows = || self.rows.iter().filter(|row| row.metric == metric);
        let (mut columns, mut lines) = (Vec::new(), Vec::new());
        for row in rows() {
            let column = (row.peer.as_str(), row.unit);
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !lines.contains(&row.clients) {
                lines.push(row.clients);
            }
        }
        let unit = columns.iter().map(|(_, unit)| *unit).find(|&unit| unit != "x").unwrap_or("x");
        let mut table = format!("{}: {metric}, {unit}\n{:>10}", self.name, "clients");
        // Of a ratio only the peer's name.
        let head = |(peer, unit): &(&str, &str)| match peer.split_once(" / ") {
            Some((_, peer)) if *unit == "x" => format!("x {peer}"),
            _ => (*peer).to_string(),
        };
        let heads: Vec<String> = columns.iter().map(head).collect();
        for head in &heads {
            write!(table, "  {head:>9}").expect("a String");
        }
        for clients in lines {
            write!(table, "\n{clients:>10}").expect("a String");
            for ((peer, unit), head) in columns.iter().zip(&heads) {
                let row = rows().find(|row| {
                    (row.peer.as_str(), row.unit, row.clients) == (peer, unit, clients)
                });
                let digits = if *unit == "x" { 2 } else { 1 };
                let cell = row.map_or_else(|| "-".into(), |row| format!("{:.digits$}", row.value));
                write!(table, "  {cell:>0$}", head.len().max(9)).expect("a String");
            }
        }
        table + "\n"
    }

    fn save(&self) {
        let executable = std::env::current_exe().expect("the path of this program");
        // target/release/deps/NAME
        let target = executable.ancestors().nth(3).expect("cargo's target directory");
        let path: PathBuf = target.join("bench-results").join(self.name).with_extension("tsv");
        type Key = (String, String, String);
        let mut lines: Vec<(Option<Key>, String)> = Vec::new();
        for line in fs::read_to_string(&path).unwrap_or_default().lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            if let [_, peer, clients, metric, _, _] = fields[..] {
                lines.push((Some((peer.into(), clients.into(), metric.into())), line.into()));
            }
        }
        let mut at: HashMap<_, _> =
            lines.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
        for row in &self.rows {
            let (peer, clients, metric) = row.key();
            let Row { value, unit, .. } = row;
            let line = format!("{}\t{peer}\t{clients}\t{metric}\t{value:.4}\t{unit}", self.name);
            let key = Some(row.key());
            match at.get(&key) {
                Some(&at) => lines[at].1 = line,
                None => {
                    at.insert(key.clone(), lines.len());
                    lines.push((key, line));
                }
            }
        }
        let text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for results");
        fs::write(&path, text).expect("the results can be saved");
        println!("saved to {}", path.display());
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}
