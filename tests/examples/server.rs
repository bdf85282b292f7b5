//! Examples as processes.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::client::Request;

/// The limit for steps that take milliseconds on an idle machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running example. Dropping the value kills the process.
pub(crate) struct Server {
    process: Child,
    /// The addresses that the process prints. Disconnected when the process has ended.
    printed: Receiver<String>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(example: &str) -> Self {
        Self::start_with(example, &[])
    }

    /// Starts the example with environment variables.
    pub(crate) fn start_with(example: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_program(example, variables, &[])
    }

    pub(crate) fn start_program(
        example: &str,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let program = program(example);
        let mut process = Command::new(&program)
            .args(["--port", "0"])
            .args(arguments)
            .env_remove("PORT")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start ({error}): build it with `cargo build --all-features --examples`, \
                     in the profile of this test",
                    program.display()
                )
            });
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (told, printed) = mpsc::channel();
        // Reads to the end: a full pipe would block the program.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("http://") {
                    let _ = told.send(address.to_owned());
                }
            }
        });
        // From here on, the guard kills the process.
        let mut server = Self { process, printed, address: ([127, 0, 0, 1], 0).into() };
        let address =
            server.printed.recv_timeout(DEADLINE).expect("the example must print its address");
        server.address = address.parse().expect("the example must print a socket address");
        assert!(server.address.ip().is_loopback() && server.address.port() != 0);
        server
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        Request::new(self.address, "GET", path)
    }

    pub(crate) fn delete(&self, path: &str) -> Request {
        Request::new(self.address, "DELETE", path)
    }

    pub(crate) fn post(&self, path: &str) -> Request {
        Request::new(self.address, "POST", path)
    }

    pub(crate) fn options(&self, path: &str) -> Request {
        Request::new(self.address, "OPTIONS", path)
    }

    /// Sends the signal of ctrl-c.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: &str) {
        // The standard library cannot send signals, and every shell can.
        let kill = format!("kill -{signal} {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(sent.success());
    }

    /// Waits for the end of the process.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let ended = self.printed.recv_timeout(DEADLINE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the process does not end");
        self.process.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the path of an example: cargo puts examples beside the directory of the tests.
pub(crate) fn program(example: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    profile.join("examples").join(format!("{example}{}", env::consts::EXE_SUFFIX))
}
