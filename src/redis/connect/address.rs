//! Where the server is that holds the stream: at an address, where sentinels say, or at the owner of a cluster's slot.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisError, RedisResult, Value,
};
use tokio::task::JoinSet;

use super::failover::{Moves, Named};
use super::tls;
use crate::redis::error::RedisConfigError;

/// How to come to the server. Asked with every connection, as the answer changes.
#[derive(Clone)]
pub(crate) struct Address {
    /// The server, or whose name sentinels know, or a node. What is found elsewhere is spoken to as it would be.
    pub(crate) server: ConnectionInfo,
    pub(crate) found_by: FoundBy,
}

#[derive(Clone)]
pub(crate) enum FoundBy {
    Address,
    Sentinels(Vec<ConnectionInfo>),
    /// Any node knows who owns which slot. With these beside the first.
    Nodes(Vec<ConnectionInfo>),
}

pub(crate) fn parse(address: &str) -> Result<ConnectionInfo, RedisConfigError> {
    let is_tls = address.starts_with("rediss:") || address.starts_with("valkeys:");
    let info = address.into_connection_info().map_err(|error| {
        if is_tls && !cfg!(feature = "redis-tls") {
            return RedisConfigError::Tls;
        }
        RedisConfigError::Address(error)
    })?;
    // What it would take is not compiled in, and should not be.
    if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
        return Err(RedisConfigError::Insecure);
    }
    // One small question at a time: nothing is gained by waiting for more to send.
    let settings = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_tcp_settings(settings))
}

impl Address {
    pub(crate) fn new(address: &str) -> Result<Self, RedisConfigError> {
        Ok(Self { server: parse(address)?, found_by: FoundBy::Address })
    }

    pub(crate) fn check(&self) -> Result<(), RedisConfigError> {
        match (&self.found_by, self.server.addr()) {
            (FoundBy::Sentinels(_) | FoundBy::Nodes(_), ConnectionAddr::Unix(_)) => {
                Err(RedisConfigError::Socket)
            }
            (FoundBy::Sentinels(sentinels), _) if sentinels.is_empty() => {
                Err(RedisConfigError::Zero("sentinels"))
            }
            _ => Ok(()),
        }
    }

    /// Connects to the server that holds `key` now.
    pub(crate) async fn connect(
        &self,
        timeout: Duration,
        key: &str,
        moves: &Moves,
    ) -> RedisResult<MultiplexedConnection> {
        match &self.found_by {
            FoundBy::Address => open(&self.server, timeout).await,
            FoundBy::Sentinels(sentinels) => {
                let by = |sentinel: &ConnectionInfo| self.clone().master(sentinel.clone(), timeout);
                let (connection, named) = first(sentinels.iter().map(by)).await?;
                moves.note(named);
                Ok(connection)
            }
            FoundBy::Nodes(nodes) => {
                let by = |node: &ConnectionInfo| {
                    self.clone().owner(node.clone(), key.to_owned(), timeout)
                };
                first(std::iter::once(&self.server).chain(nodes).map(by)).await
            }
        }
    }

    /// All that may be spoken to as it stands.
    pub(crate) fn servers_mut(&mut self) -> impl Iterator<Item = &mut ConnectionInfo> {
        let others = match &mut self.found_by {
            FoundBy::Address => &mut [][..],
            FoundBy::Sentinels(others) | FoundBy::Nodes(others) => others,
        };
        std::iter::once(&mut self.server).chain(others)
    }

    /// Asks the sentinels from time to time, if there are any. An ordered failover is otherwise noticed ten seconds later,
    /// and what is confirmed meanwhile is lost.
    pub(crate) async fn watch(&self, timeout: Duration, moves: &Moves) {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(EVERY).await;
            match self.named(timeout).await {
                None => return,
                Some(Ok(named)) => moves.note(named),
                // Without them all goes on as it is.
                Some(Err(_)) => {}
            }
        }
    }

    /// Whom the sentinels name, if there are any.
    async fn named(&self, timeout: Duration) -> Option<RedisResult<Named>> {
        let FoundBy::Sentinels(sentinels) = &self.found_by else { return None };
        let name = name_of(&self.server);
        let by = |sentinel: &ConnectionInfo| named(sentinel.clone(), name.clone(), timeout);
        Some(first(sentinels.iter().map(by)).await)
    }

    /// The master, as a sentinel has it.
    async fn master(
        self,
        sentinel: ConnectionInfo,
        timeout: Duration,
    ) -> RedisResult<(MultiplexedConnection, Named)> {
        let named = named(sentinel, name_of(&self.server), timeout).await?;
        let mut connection = open(&self.at(named.0.clone(), named.1), timeout).await?;
        // It may be one no longer, and be known from before.
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.into_iter().next().map(String::from_redis_value) {
            Some(Ok(role)) if role == "master" => Ok((connection, named)),
            _ => Err(client_error("what a sentinel names is no master")),
        }
    }

    /// The owner of a key's slot, as a node of the cluster has it.
    async fn owner(
        self,
        node: ConnectionInfo,
        key: String,
        timeout: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let mut connection = open(&node, timeout).await?;
        let mut questions = redis::pipe();
        questions.cmd("CLUSTER").arg("KEYSLOT").arg(key);
        questions.cmd("CLUSTER").arg("SLOTS");
        let (slot, slots): (i64, Value) = questions.query_async(&mut connection).await?;
        let Some((host, port)) = owner_of(slot, slots) else {
            return Err(client_error("no node owns the slot of the keys"));
        };
        // A node that does not know its own name is the one that was asked.
        let host = host.unwrap_or_else(|| name_of(&node));
        open(&self.at(host, port), timeout).await
    }

    /// Another server, spoken to in the same way.
    fn at(&self, host: String, port: u16) -> ConnectionInfo {
        let mut address = self.server.addr().clone();
        match &mut address {
            ConnectionAddr::TcpTls { host: to, port: on, .. } => (*to, *on) = (host, port),
            other => *other = ConnectionAddr::Tcp(host, port),
        }
        self.server.clone().set_addr(address)
    }
}

async fn open(server: &ConnectionInfo, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout / 4))
        .set_response_timeout(Some(timeout));
    if let ConnectionAddr::TcpTls { .. } = server.addr() {
        tls::have_cryptography();
    }
    Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

/// What the first of them comes to. Of those who are asked some may be down, and some not know yet what has changed:
/// none holds up the others.
async fn first<T, F>(asked: impl Iterator<Item = F>) -> RedisResult<T>
where
    T: Send + 'static,
    F: Future<Output = RedisResult<T>> + Send + 'static,
{
    let mut asked: JoinSet<_> = asked.collect();
    let mut last = client_error("there is nobody to ask for the server");
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = error,
            // It panicked, or the runtime ends.
            Err(_) => {}
        }
    }
    Err(last)
}

async fn named(sentinel: ConnectionInfo, name: String, timeout: Duration) -> RedisResult<Named> {
    let mut connection = open(&sentinel, timeout).await?;
    let mut command = redis::cmd("SENTINEL");
    let answer = command.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut connection);
    let known: Option<Named> = answer.await?;
    known.ok_or_else(|| client_error("a sentinel knows no master of this name"))
}

/// Who owns a slot, in the answer to `CLUSTER SLOTS`: ranges, each with its nodes, the master first.
fn owner_of(slot: i64, slots: Value) -> Option<(Option<String>, u16)> {
    let Value::Array(ranges) = slots else { return None };
    ranges.into_iter().find_map(|range| {
        let Value::Array(parts) = range else { return None };
        let mut parts = parts.into_iter();
        let (Some(Value::Int(from)), Some(Value::Int(to))) = (parts.next(), parts.next()) else {
            return None;
        };
        let Some(Value::Array(master)) = parts.next() else { return None };
        let mut master = master.into_iter();
        let (host, port) = (master.next()?, master.next()?);
        if !(from..=to).contains(&slot) {
            return None;
        }
        let host: Option<String> = redis::from_redis_value(host).ok()?;
        let host = host.filter(|host| !matches!(host.as_str(), "" | "?"));
        Some((host, redis::from_redis_value(port).ok()?))
    })
}

fn name_of(server: &ConnectionInfo) -> String {
    match server.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    }
}

fn client_error(what: &'static str) -> RedisError {
    (ErrorKind::Client, what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(from: i64, to: i64, host: Value, port: i64) -> Value {
        let master = Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let replica = Value::Array(vec![text("10.9.9.9"), Value::Int(9)]);
        Value::Array(vec![Value::Int(from), Value::Int(to), master, replica])
    }

    #[test]
    fn the_master_of_the_range_that_a_slot_is_in_owns_it() {
        let slots = || {
            let first = range(0, 99, text("10.0.0.1"), 1);
            let unknown = range(200, 299, text(""), 3);
            let nameless = range(300, 399, Value::Nil, 4);
            Value::Array(vec![first, range(100, 199, text("10.0.0.2"), 2), unknown, nameless])
        };
        let of = |slot| owner_of(slot, slots());
        assert_eq!(of(0), Some((Some("10.0.0.1".to_owned()), 1)));
        assert_eq!(of(199), Some((Some("10.0.0.2".to_owned()), 2)));
        assert_eq!(of(200), Some((None, 3)));
        assert_eq!(of(399), Some((None, 4)));
        assert_eq!(of(400), None);
    }

    #[test]
    #[cfg(not(feature = "redis-tls"))]
    fn an_address_that_needs_a_feature_names_it() {
        let error = crate::redis::Redis::new("rediss://127.0.0.1").unwrap_err();
        assert!(matches!(error, RedisConfigError::Tls));
        assert!(error.to_string().contains("redis-tls"), "{error}");
    }

    #[test]
    fn an_answer_of_another_form_names_nobody() {
        let odd = Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Int(0)])]);
        for answer in [Value::Nil, Value::Okay, Value::Array(vec![]), odd] {
            assert_eq!(owner_of(0, answer), None);
        }
    }
}
