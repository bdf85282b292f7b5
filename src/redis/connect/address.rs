//! Finds the server that holds the stream: at a fixed address, by asking sentinels, or as the owner
//! of a cluster's slot.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, RedisError, RedisResult, Value,
};
use tokio::task::JoinSet;

use super::credentials::AskCredentials;
use super::failover::{HostPort, MasterGeneration};
use super::tls;
use crate::redis::error::RedisConfigError;

/// The share of the timeout that a connection may take to be made.
const CONNECT_SHARE: u32 = 4;

/// How often the sentinels are asked whether the master has changed.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);

/// An idle connection is probed after this time, and then at this interval, so that a connection
/// that a firewall has forgotten is closed, and an open connection stays known to the firewall.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How to reach the server. The server is looked up for each connection, because the answer
/// changes.
#[derive(Clone)]
pub(crate) struct Address {
    /// The server, the master's name at the sentinels, or a node of a cluster. The
    /// user, password, database and TLS hold for the server that is found.
    pub(crate) server: ConnectionInfo,
    pub(crate) found_by: FoundBy,
    pub(crate) credentials: Option<AskCredentials>,
}

#[derive(Clone)]
pub(crate) enum FoundBy {
    Address,
    Sentinels(Vec<ConnectionInfo>),
    /// Nodes of the cluster in addition to the first: any node knows the owner of each slot.
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
    // The code for `#insecure` is not compiled in, on purpose.
    if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
        return Err(RedisConfigError::Insecure);
    }
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    // Each command is a small question whose answer is awaited: delaying it gains nothing.
    let tcp = info.tcp_settings().clone().set_nodelay(true).set_keepalive(keepalive);
    // `CLIENT SETINFO` would need a right that Redis before 7.2 does not know.
    let redis = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(info.set_tcp_settings(tcp).set_redis_settings(redis))
}

impl Address {
    pub(crate) fn new(address: &str) -> Result<Self, RedisConfigError> {
        let server = parse(address)?;
        Ok(Self { server, found_by: FoundBy::Address, credentials: None })
    }

    pub(crate) fn check(&self) -> Result<(), RedisConfigError> {
        match (&self.found_by, self.server.addr()) {
            (FoundBy::Sentinels(_) | FoundBy::Nodes(_), ConnectionAddr::Unix(_)) => {
                Err(RedisConfigError::Socket)
            }
            (FoundBy::Sentinels(sentinels), _) if sentinels.is_empty() => {
                Err(RedisConfigError::out_of_range("sentinels", 0, "at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// Connects to the server that holds `key` now.
    pub(crate) async fn connect(
        &self,
        timeout: Duration,
        key: &str,
        master: &MasterGeneration,
    ) -> RedisResult<MultiplexedConnection> {
        let address = self.with_credentials(timeout).await?;
        match &address.found_by {
            FoundBy::Address => open(&address.server, timeout).await,
            FoundBy::Sentinels(sentinels) => {
                let ask =
                    |sentinel: &ConnectionInfo| address.clone().master(sentinel.clone(), timeout);
                let (connection, named) = first(sentinels.iter().map(ask)).await?;
                master.note(named);
                Ok(connection)
            }
            FoundBy::Nodes(nodes) => {
                let ask = |node: &ConnectionInfo| {
                    address.clone().owner(node.clone(), key.to_owned(), timeout)
                };
                first(std::iter::once(&address.server).chain(nodes).map(ask)).await
            }
        }
    }

    /// Asks the application for the credentials, and puts them where they are used: at the server,
    /// and at all nodes of a cluster. Sentinels keep those of their own addresses.
    async fn with_credentials(&self, timeout: Duration) -> RedisResult<Self> {
        let mut address = self.clone();
        if let Some(ask) = &self.credentials {
            let credentials = ask.ask(timeout).await?;
            address.server = credentials.apply(address.server);
            if let FoundBy::Nodes(nodes) = &mut address.found_by {
                for node in nodes {
                    *node = credentials.apply(node.clone());
                }
            }
        }
        Ok(address)
    }

    /// Returns all servers that may be connected to as they stand.
    pub(crate) fn servers_mut(&mut self) -> impl Iterator<Item = &mut ConnectionInfo> {
        let others = match &mut self.found_by {
            FoundBy::Address => &mut [][..],
            FoundBy::Sentinels(others) | FoundBy::Nodes(others) => others,
        };
        std::iter::once(&mut self.server).chain(others)
    }

    /// Asks the sentinels from time to time, if there are any. Without this, an ordered failover is
    /// noticed ten seconds later, and all events that the old master confirms meanwhile are lost.
    pub(crate) async fn watch(&self, timeout: Duration, master: &MasterGeneration) {
        let FoundBy::Sentinels(sentinels) = &self.found_by else { return };
        let name = host_of(&self.server);
        loop {
            tokio::time::sleep(SENTINEL_INTERVAL).await;
            let ask =
                |sentinel: &ConnectionInfo| master_address(sentinel.clone(), name.clone(), timeout);
            // If no sentinel answers, the known master stays in use.
            if let Ok(named) = first(sentinels.iter().map(ask)).await {
                master.note(named);
            }
        }
    }

    /// Connects to the master that a sentinel names.
    async fn master(
        self,
        sentinel: ConnectionInfo,
        timeout: Duration,
    ) -> RedisResult<(MultiplexedConnection, HostPort)> {
        let named = master_address(sentinel, host_of(&self.server), timeout).await?;
        let mut connection = open(&self.at(named.0.clone(), named.1), timeout).await?;
        // A sentinel that has not heard of a failover names a server that is now a replica.
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.into_iter().next().map(String::from_redis_value) {
            Some(Ok(role)) if role == "master" => Ok((connection, named)),
            _ => Err(client_error("the server that a sentinel names is not a master")),
        }
    }

    /// Connects to the owner of a key's slot, as a node of the cluster knows it.
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
        // A node without a host name means the node that was asked.
        let host = host.unwrap_or_else(|| host_of(&node));
        open(&self.at(host, port), timeout).await
    }

    /// Returns the address of another server that is spoken to in the same way.
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
        .set_connection_timeout(Some(timeout / CONNECT_SHARE))
        .set_response_timeout(Some(timeout));
    if let ConnectionAddr::TcpTls { .. } = server.addr() {
        tls::install_crypto_provider();
    }
    Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

/// Returns the first success. All are asked at once: a sentinel or a node that is down must not
/// delay the others.
async fn first<T, F>(asked: impl Iterator<Item = F>) -> RedisResult<T>
where
    T: Send + 'static,
    F: Future<Output = RedisResult<T>> + Send + 'static,
{
    let mut asked: JoinSet<_> = asked.collect();
    let mut last = client_error("no sentinel or node to ask for the server");
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => last = error,
            // The task panicked, or the runtime shuts down.
            Err(_) => {}
        }
    }
    Err(last)
}

async fn master_address(
    sentinel: ConnectionInfo,
    name: String,
    timeout: Duration,
) -> RedisResult<HostPort> {
    let mut connection = open(&sentinel, timeout).await?;
    let mut command = redis::cmd("SENTINEL");
    let answer = command.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(&mut connection);
    let known: Option<HostPort> = answer.await?;
    known.ok_or_else(|| client_error("a sentinel knows no master of this name"))
}

/// Returns the owner of a slot from the answer to `CLUSTER SLOTS`: a list of ranges, each with the
/// nodes, the master first. The host is `None` if the node knows no host name.
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

fn host_of(server: &ConnectionInfo) -> String {
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
    fn owner_is_the_master_of_the_slots_range() {
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
    fn tls_address_without_feature_names_the_feature() {
        let error = crate::redis::Redis::new("rediss://127.0.0.1").unwrap_err();
        assert!(matches!(error, RedisConfigError::Tls));
        assert!(error.to_string().contains("redis-tls"), "{error}");
    }

    #[test]
    fn malformed_answer_names_no_owner() {
        let odd = Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Int(0)])]);
        for answer in [Value::Nil, Value::Okay, Value::Array(vec![]), odd] {
            assert_eq!(owner_of(0, answer), None);
        }
    }
}
