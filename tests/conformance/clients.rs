//! Clients of other authors. Each receives an address, and reports callbacks.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::standard::Callback;
use crate::{DEADLINE, corpus};

/// A report of a client.
#[derive(Debug)]
pub(crate) enum Said {
    Callback(Callback),
    /// The library ended instead of reconnecting. The driver created a new client.
    GaveUp(String),
    /// The client cannot continue.
    Failed(String),
}

/// A client connected to a server, until the drop.
pub(crate) struct Run {
    said: mpsc::UnboundedReceiver<Said>,
    /// Callbacks that arrived while the test waited for another report.
    kept: VecDeque<Callback>,
    pub(crate) gave_up: Vec<String>,
    _stop: Box<dyn Send>,
}

impl Run {
    pub(crate) fn new(said: mpsc::UnboundedReceiver<Said>, stop: impl Send + 'static) -> Self {
        Self { said, kept: VecDeque::new(), gave_up: Vec::new(), _stop: Box::new(stop) }
    }

    /// # Errors
    ///
    /// The reason for which the client cannot continue.
    pub(crate) async fn next(&mut self) -> Result<Callback, String> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(kept);
        }
        match timeout(DEADLINE, self.called()).await {
            Ok(called) => called,
            Err(_) => Err(format!("no callback within {DEADLINE:?}")),
        }
    }

    async fn called(&mut self) -> Result<Callback, String> {
        loop {
            match self.said.recv().await {
                Some(Said::Callback(callback)) => return Ok(callback),
                Some(Said::GaveUp(why)) => self.gave_up.push(why),
                Some(Said::Failed(why)) => return Err(why),
                None => return Err("the driver of the client has exited".to_owned()),
            }
        }
    }

    /// Waits for `other`, unless the client fails meanwhile.
    pub(crate) async fn meanwhile<T>(
        &mut self,
        other: impl Future<Output = T>,
    ) -> Result<T, String> {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                called = self.called() => self.kept.push_back(called?),
            }
        }
    }

    /// Returns the callbacks up to the event of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Result<Vec<Callback>, String> {
        let mut callbacks = Vec::new();
        loop {
            let callback = self.next().await?;
            if callback.kind == kind {
                return Ok(callbacks);
            }
            callbacks.push(callback);
        }
    }
}

/// The types of the hub and of the tests.
pub(crate) fn types() -> Vec<String> {
    let ours =
        ["hub:open", "hub:gap", "hub:end", "hub:refused", "hub:heartbeat", "cut", "end", "n"];
    corpus::types().into_iter().chain(ours.map(str::to_owned)).collect()
}

/// The folder in which `tests/clients/install` installs clients.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let at = target.join("clients");
    assert!(at.join("installed").exists(), "the clients are missing: run tests/clients/install");
    at
}

/// A process that runs all clients of a language.
pub(crate) struct Driver {
    commands: mpsc::UnboundedSender<String>,
    runs: Arc<Mutex<Runs>>,
    /// Killed on drop.
    _process: Child,
}

#[derive(Default)]
struct Runs {
    number: u64,
    tell: HashMap<u64, mpsc::UnboundedSender<Said>>,
}

#[derive(Deserialize)]
struct Line {
    run: u64,
    r#type: Option<String>,
    data: Option<String>,
    id: Option<String>,
    #[serde(rename = "gaveUp")]
    gave_up: Option<String>,
    failed: Option<String>,
}

impl Driver {
    pub(crate) fn node() -> Self {
        let mut node = Command::new("node");
        // Node's warning about experimental clients is irrelevant here.
        node.arg("--no-warnings");
        Self::start(node, "driver.cjs")
    }

    pub(crate) fn python() -> Self {
        Self::start(Command::new(installed().join("venv/bin/python")), "driver.py")
    }

    fn start(mut command: Command, script: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
        let command = command.arg(script).current_dir(installed()).kill_on_drop(true);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {command:?}, install it: {error}");
        });
        let mut stdin = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (commands, mut to_send) = mpsc::unbounded_channel::<String>();
        tokio::spawn(async move {
            while let Some(command) = to_send.recv().await {
                if stdin.write_all(command.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let runs = Arc::new(Mutex::new(Runs::default()));
        let told = Arc::clone(&runs);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: Line = serde_json::from_str(&line).expect(&line);
                let tell = told.lock().unwrap().tell.get(&line.run).cloned();
                if let Some(tell) = tell {
                    let _ = tell.send(line.said());
                }
            }
            // Tell a test that waits for more.
            told.lock().unwrap().tell.clear();
        });
        Self { commands, runs, _process: process }
    }

    pub(crate) fn run(&self, client: &str, url: &str) -> Run {
        let (tell, said) = mpsc::unbounded_channel();
        let number = {
            let mut runs = self.runs.lock().unwrap();
            runs.number += 1;
            let number = runs.number;
            runs.tell.insert(number, tell);
            number
        };
        let start =
            serde_json::json!({ "start": number, "client": client, "url": url, "types": types() });
        self.commands.send(format!("{start}\n")).expect("the driver runs");
        let stop = Stop { number, commands: self.commands.clone(), runs: Arc::clone(&self.runs) };
        Run::new(said, stop)
    }
}

impl Line {
    fn said(self) -> Said {
        match self {
            Self { gave_up: Some(why), .. } => Said::GaveUp(why),
            Self { failed: Some(why), .. } => Said::Failed(why),
            Self { r#type, data, id, .. } => Said::Callback(Callback {
                kind: r#type.unwrap_or_default(),
                data: data.unwrap_or_default(),
                id: id.unwrap_or_default(),
            }),
        }
    }
}

struct Stop {
    number: u64,
    commands: mpsc::UnboundedSender<String>,
    runs: Arc<Mutex<Runs>>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.runs.lock().unwrap().tell.remove(&self.number);
        let _ = self.commands.send(format!("{{\"stop\":{}}}\n", self.number));
    }
}
