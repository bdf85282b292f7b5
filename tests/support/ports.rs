//! Ports for programs that the tests start.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux gives to outgoing connections (32768 and up): one of those could take
/// the port between this choice and the start of the program.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// A port that no other test takes, of this process or another, until this value is dropped.
///
/// Another program can still have or take the port. So a test that starts a program must notice
/// that the program has exited, and try again with another port.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub(crate) fn take() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("sse-hub-test-ports");
        fs::create_dir_all(&folder).expect("a folder for locks");
        // For the tests of all users. Only the user that created the folder can do this.
        #[cfg(unix)]
        let _ = fs::set_permissions(&folder, PermissionsExt::from_mode(0o1777));
        // Processes begin at different places, so that they rarely meet.
        let first = std::process::id().wrapping_mul(7919) as usize;
        for _ in 0..PORTS.len() {
            let next = usize::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let number = PORTS.start + ((first + next) % PORTS.len()) as u16;
            let path = folder.join(number.to_string());
            // Another user can have created the file.
            let lock = File::create(&path).or_else(|_| File::open(&path)).expect("a lock file");
            // The system releases the lock when the process ends, however the process ends.
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port from {} to {}", PORTS.start, PORTS.end);
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

#[test]
fn taken_ports_are_different() {
    let ports: Vec<Port> = (0..100).map(|_| Port::take()).collect();
    let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 100);
}
