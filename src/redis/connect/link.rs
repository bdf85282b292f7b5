//! The connection of a task, made when needed and replaced after a failure.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use tokio::time::Instant;

use crate::redis::shared::RedisShared;

/// A connection that has not answered for this long counts as idle: a firewall or the server's
/// `timeout` may have closed the connection.
const IDLE: Duration = Duration::from_secs(1);

/// The share of the timeout that an idle connection has to answer, and the most. The command is then
/// sent again over a new connection.
const PROBE_SHARE: u32 = 8;
const MOST_PROBE: Duration = Duration::from_secs(1);

/// The shortest time between two failures that are retried without a report. A server that accepts
/// connections and closes each of them must be reported.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How often the time for an answer may double while a slow line cannot deliver an answer in time.
const MOST_DOUBLINGS: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct Link {
    connection: Option<MultiplexedConnection>,
    /// The [generation](super::failover::MasterGeneration) in which the connection was made.
    generation: u64,
    /// When this connection last answered.
    answered: Option<Instant>,
    /// When the last command went out.
    asked: Option<Instant>,
    /// The time for the answer is cut short, because the connection was idle.
    is_probe: bool,
    /// See [`wait_longer`](Self::wait_longer).
    doublings: u32,
    /// When a failure was last retried without a report.
    retried: Option<Instant>,
}

/// What the task must do after a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A connection that had worked is gone. Nothing is wrong yet: try once over a new connection.
    Retry,
    /// The new connection failed too, or Redis refused the command. Report, and wait.
    Report,
}

impl Link {
    /// Returns the connection. Connects first if that is needed.
    pub(crate) async fn get(
        &mut self,
        shared: &RedisShared,
    ) -> RedisResult<&mut MultiplexedConnection> {
        self.connection(shared, false).await
    }

    /// The same for a command that Redis answers at once and that may be sent twice: if the
    /// connection was idle, the time for the answer is short.
    pub(crate) async fn probe(
        &mut self,
        shared: &RedisShared,
    ) -> RedisResult<&mut MultiplexedConnection> {
        self.connection(shared, true).await
    }

    async fn connection(
        &mut self,
        shared: &RedisShared,
        may_probe: bool,
    ) -> RedisResult<&mut MultiplexedConnection> {
        if self.connection.is_some() {
            self.check(shared)?;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // Before the connect: a failover meanwhile must be noticed.
                self.generation = shared.master.current();
                self.answered = None;
                shared.connect().await?
            }
        };
        let is_idle = self.answered.is_some_and(|at| at.elapsed() >= IDLE);
        self.is_probe = may_probe && is_idle;
        connection.set_response_timeout(if self.is_probe {
            (shared.timeout / PROBE_SHARE).min(MOST_PROBE)
        } else {
            shared.timeout.saturating_mul(1 << self.doublings)
        });
        self.asked = Some(Instant::now());
        Ok(self.connection.insert(connection))
    }

    /// Returns an error if the master has changed since the connection was made.
    pub(crate) fn check(&self, shared: &RedisShared) -> RedisResult<()> {
        shared.master.check(self.generation)
    }

    /// Returns the connection to a master that is not the master any more, if there is one.
    pub(crate) fn old_master(
        &mut self,
        shared: &RedisShared,
    ) -> Option<&mut MultiplexedConnection> {
        if self.check(shared).is_ok() {
            return None;
        }
        self.connection.as_mut()
    }

    /// Records that Redis answered over this connection.
    pub(crate) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Records that Redis answered a command with a large answer, or with a large argument. Returns
    /// whether that was quick: then answers get the usual time again. Small ones say nothing about
    /// the line.
    pub(crate) fn carried(&mut self, shared: &RedisShared) -> bool {
        self.answered();
        let is_quick = self.asked.is_some_and(|at| at.elapsed() < shared.timeout / 4);
        if is_quick {
            self.doublings = 0;
        }
        is_quick
    }

    /// Drops the connection after an error.
    pub(crate) fn failed(&mut self, error: &RedisError) -> Failure {
        self.connection = None;
        let has_worked = self.answered.take().is_some();
        let is_lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
        let is_rare = self.retried.is_none_or(|at| at.elapsed() >= RETRY_PAUSE);
        if has_worked && is_lost && is_rare {
            self.retried = Some(Instant::now());
            return Failure::Retry;
        }
        Failure::Report
    }

    /// Whether the last command had the full time for its answer. If not, a timeout says nothing
    /// about the speed of the line.
    pub(crate) fn had_full_time(&self) -> bool {
        !self.is_probe
    }

    /// Gives answers twice the time until an answer is quick: even the smallest did not arrive.
    pub(crate) fn wait_longer(&mut self) {
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
    }
}

#[cfg(test)]
mod tests {
    use redis::ErrorKind;

    use super::*;

    fn lost() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()
    }

    fn working() -> Link {
        let mut link = Link::default();
        link.answered();
        link
    }

    #[test]
    fn first_loss_of_a_working_connection_is_retried() {
        assert_eq!(working().failed(&lost()), Failure::Retry);
        assert_eq!(Link::default().failed(&lost()), Failure::Report, "never answered");
        let refused = (ErrorKind::Client, "refused").into();
        assert_eq!(working().failed(&refused), Failure::Report);
    }

    #[tokio::test(start_paused = true)]
    async fn losses_in_a_row_are_reported() {
        let mut link = working();
        for _ in 0..3 {
            assert_eq!(link.failed(&lost()), Failure::Retry);
            link.answered();
            assert_eq!(link.failed(&lost()), Failure::Report);
            link.answered();
            tokio::time::advance(RETRY_PAUSE).await;
        }
    }
}
