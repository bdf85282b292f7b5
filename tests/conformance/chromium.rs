//! Debian's Chromium, driven by chromedriver.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;

use crate::clients::{Run, Said, types};
use crate::http1::find;
use crate::standard::Callback;
use crate::within;

/// A browser with a new profile. Dropping the browser removes the profile too.
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Child,
    profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let mut command = Command::new("chromedriver");
        // The driver creates directories there, and does not remove the directories if killed.
        let command = command.arg("--port=0").env("TMPDIR", profile.path());
        let command = command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut driver = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start chromedriver, install chromium-driver: {error}");
        });
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = within("the driver starts", async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the driver tells its port");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    break port.trim_end_matches('.').to_owned();
                }
            }
        });
        let port = port.await;
        // The output must be read, or the driver would block.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

        let chromium = program("chromium");
        let data = format!("--user-data-dir={}", profile.path().join("data").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &data,
        ];
        let capabilities = json!({
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let connecting = async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities).connect(&format!("http://127.0.0.1:{port}")).await
        };
        let client = within("the browser starts", connecting).await.unwrap();
        Self { client, _driver: driver, profile }
    }

    pub(crate) async fn goto(&self, url: &str) {
        within("the page", self.client.goto(url)).await.unwrap();
    }

    pub(crate) async fn execute(&self, script: &str, arguments: &[Value]) -> Value {
        let executed = self.client.execute(script, arguments.to_vec());
        within("the script", executed).await.unwrap()
    }

    /// Waits until an expression of the page is true.
    pub(crate) async fn eventually(&self, what: &str, expression: &str) {
        let script = format!("return Boolean({expression})");
        within(what, async {
            while self.execute(&script, &[]).await != json!(true) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(crate) async fn close(self) {
        within("the browser closes", self.client.clone().close()).await.unwrap();
    }
}

impl Drop for Browser {
    /// A failed test does not close the browser, and the browser outlives the driver. No other
    /// browser uses the profile.
    fn drop(&mut self) {
        let profile = self.profile.path().as_os_str().as_encoded_bytes();
        // The processes write into the profile until they end. Removing the profile earlier would
        // fail.
        for _ in 0..1_000 {
            let processes = processes_with(profile);
            if processes.is_empty() {
                return;
            }
            let _ = std::process::Command::new("kill").arg("-9").args(processes).status();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Returns the processes with this text in the command.
fn processes_with(text: &[u8]) -> Vec<OsString> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let processes = processes.flatten().filter(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        find(&command, text).is_some()
    });
    processes.map(|process| process.file_name()).collect()
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|place| place.join(name));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("{name} is missing: install it"))
}

/// The browser's `EventSource` as a client of the matrix. Runs are sequential, because a page has a
/// single origin.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Browser>>);

struct Following {
    polling: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

impl Shared {
    pub(crate) fn new(browser: Browser) -> Self {
        Self(Arc::new(Mutex::new(browser)))
    }

    pub(crate) async fn run(&self, address: SocketAddr) -> Run {
        let browser = Arc::clone(&self.0).lock_owned().await;
        browser.goto(&format!("http://{address}/")).await;
        browser.execute(FOLLOW, &[json!("/events"), json!(types())]).await;
        let (tell, said) = mpsc::unbounded_channel();
        Run::new(said, Following { polling: tokio::spawn(poll(browser, tell)) })
    }
}

async fn poll(browser: OwnedMutexGuard<Browser>, tell: mpsc::UnboundedSender<Said>) {
    loop {
        let seen = browser.execute("return window.seen.splice(0)", &[]).await;
        for seen in seen.as_array().unwrap() {
            let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
            let callback = Callback { kind: text("type"), data: text("data"), id: text("id") };
            let said = match seen["closed"] {
                Value::Null => Said::Callback(callback),
                _ => Said::Failed("the EventSource is closed".to_owned()),
            };
            let _ = tell.send(said);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Follows a stream, and collects the callbacks in `seen`.
pub(crate) const FOLLOW: &str = "
    const [url, types] = arguments
    window.seen = []
    window.source = new EventSource(url)
    for (const type of new Set(types)) {
        source.addEventListener(type, (event) => {
            // Events of the connection have no data.
            if (typeof event.data !== 'string') return
            seen.push({ type: event.type, data: event.data, id: event.lastEventId })
        })
    }
    source.addEventListener('error', () => { if (source.readyState === 2) seen.push({ closed: true }) })
";
