//! A server and its load: two processes on two processors.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs};

use crate::Result;
use crate::load::{Answer, Connected, Delivered};
use crate::server::{Peer, RETAINED};

/// The arguments of the two processes.
pub(crate) const SERVER: &str = "--server";
pub(crate) const LOAD: &str = "--load";

/// Clients that connect before memory is measured: the first clients also pay for the buffers that
/// all clients share.
const FIRST: u64 = 32;

pub(crate) struct Pair {
    pub(crate) peer: Peer,
    server: Process,
    /// Dropped before the server: a server ends when its load is gone.
    _load: Process,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The resources that a server uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// The time on the processor, of all threads, in nanoseconds.
    pub(crate) cpu: u64,
    /// The resident memory in bytes. The buffers of sockets belong to the kernel.
    pub(crate) memory: u64,
    pub(crate) descriptors: u64,
}

impl Pair {
    pub(crate) fn start(peer: Peer) -> Result<Self> {
        let processors = processors()?;
        let mut server = Process::start(processors.first(), &[SERVER, peer.name()])?;
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().expect("a pipe")).read_line(&mut line)?;
        let [clients, commands] = *line.split_ascii_whitespace().collect::<Vec<_>>() else {
            return Err(format!("the server did not start: {}", peer.name()).into());
        };
        // With a single processor, both processes share it.
        let processor = processors.get(1).or_else(|| processors.first());
        let mut load = Process::start(processor, &[LOAD, clients, commands])?;
        let commands = load.0.stdin.take().expect("a pipe");
        let answers = BufReader::new(load.0.stdout.take().expect("a pipe"));
        Ok(Self { peer, server, _load: load, commands, answers })
    }

    /// Starts a server, and connects so many clients, at most 128 at a time. Returns the memory of
    /// the server for each client, in bytes.
    pub(crate) fn start_with(peer: Peer, clients: u64, with_users: bool) -> Result<(Self, f64)> {
        let mut pair = Self::start(peer)?;
        let users = u8::from(with_users);
        pair.ask::<Connected>(&format!("connect {FIRST} {FIRST} {users}"))?;
        pair.ask::<Delivered>(&format!("all {} 16", RETAINED.div_ceil(16)))?;
        let before = pair.usage()?.memory;
        pair.ask::<Connected>(&format!("connect {} 128 {users}", clients - FIRST))?;
        let memory = pair.usage()?.memory.saturating_sub(before);
        Ok((pair, memory as f64 / (clients - FIRST) as f64))
    }

    /// Sends a command to the load, and returns the answer.
    pub(crate) fn ask<A: Answer>(&mut self, command: &str) -> Result<A> {
        self.send(command)?;
        self.answer()
    }

    pub(crate) fn send(&mut self, command: &str) -> Result<()> {
        Ok(writeln!(self.commands, "{command}")?)
    }

    pub(crate) fn answer<A: Answer>(&mut self) -> Result<A> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers = line.strip_prefix("ok ").map(|line| {
            line.split_ascii_whitespace()
                .map(str::parse)
                .collect::<std::result::Result<Vec<_>, _>>()
        });
        let answer = match numbers {
            Some(numbers) => A::from_numbers(&numbers?),
            None => None,
        };
        answer.ok_or_else(|| format!("{}: {}", self.peer.name(), line.trim_end()).into())
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let process = format!("/proc/{}", self.server.0.id());
        let mut cpu = 0;
        for task in fs::read_dir(format!("{process}/task"))? {
            // The first number of `schedstat` is exact; the times of `stat` count 10 ms each.
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += schedstat.split_ascii_whitespace().next().unwrap_or("0").parse::<u64>()?;
        }
        let status = fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = resident.and_then(|line| line.trim().strip_suffix(" kB"));
        let memory = kibibytes.ok_or("no VmRSS")?.parse::<u64>()? * 1024;
        let descriptors = fs::read_dir(format!("{process}/fd"))?.count() as u64;
        Ok(Usage { cpu, memory, descriptors })
    }
}

/// A child that is killed when it is dropped.
struct Process(Child);

impl Process {
    /// Starts this program with other arguments, on a processor.
    fn start(processor: Option<&usize>, arguments: &[&str]) -> Result<Self> {
        let program = env::current_exe()?;
        let mut command = match processor {
            Some(processor) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &processor.to_string()]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("taskset (util-linux): {error}"))?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the processors that this process may use.
fn processors() -> Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut processors = Vec::new();
    for range in list.ok_or("no Cpus_allowed_list")?.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        processors.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(processors)
}
