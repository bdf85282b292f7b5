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

/// For what takes milliseconds on a machine that has nothing else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running example. It is gone when this is dropped.
pub(crate) struct Server {
    process: Child,
    /// What it prints of addresses. Disconnected once it has ended.
    printed: Receiver<String>,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(example: &str) -> Self {
        Self::start_with(example, &[])
    }

    /// With variables of its environment.
    pub(crate) fn start_with(example: &str, variables: &[(&str, &str)]) -> Self {
        let program = program(example);
        let mut process = Command::new(&program)
            .args(["--port", "0"])
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
        // Reads on to the end, or the program could not print any more.
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("http://") {
                    let _ = told.send(address.to_owned());
                }
            }
        });
        // It ends with this process's guard from here on, whatever comes.
        let mut server = Self { process, printed, address: ([127, 0, 0, 1], 0).into() };
        let address = server.printed.recv_timeout(DEADLINE).expect("it prints its address");
        server.address = address.parse().expect("it prints a socket address");
        assert!(server.address.ip().is_loopback() && server.address.port() != 0);
        server
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        Request::new(self.address, "GET", path)
    }

    pub(crate) fn post(&self, path: &str) -> Request {
        Request::new(self.address, "POST", path)
    }

    pub(crate) fn options(&self, path: &str) -> Request {
        Request::new(self.address, "OPTIONS", path)
    }

    /// What ctrl-c does.
    pub(crate) fn interrupt(&self) {
        // The standard library sends no signals; every shell does.
        let kill = format!("kill -INT {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let ended = self.printed.recv_timeout(DEADLINE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "it does not end");
        self.process.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where cargo puts an example: beside the directory of the tests.
pub(crate) fn program(example: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    profile.join("examples").join(format!("{example}{}", env::consts::EXE_SUFFIX))
}
