//! The demo's hub, and a fresh one after each drain.

use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use sse_hub::{Audience, Event, Heartbeat, Hub, HubBuilder, Limits, Presence, Retain, TokioTimer};

use crate::arguments::Arguments;
use crate::events;

/// The hub, as the command line sets it.
async fn build(arguments: &Arguments) -> Result<Hub, Box<dyn Error + Send + Sync>> {
    let builder = Hub::builder(TokioTimer::new())
        .heartbeat(Heartbeat::default().every(arguments.heartbeat))
        .retry(Duration::from_secs(2))
        .retain(Retain::default().events(arguments.retain))
        .limits(Limits::default().clients(arguments.clients))
        .presence(Presence::default().grace(Duration::from_secs(4)));
    match &arguments.redis {
        None => Ok(builder.build()?),
        Some(address) => join(builder, address).await,
    }
}

/// Makes it one of several.
#[cfg(feature = "redis")]
async fn join(builder: HubBuilder, address: &str) -> Result<Hub, Box<dyn Error + Send + Sync>> {
    let backplane = sse_hub::redis::Redis::new(address)?.prefix("sse-hub-demo").build()?;
    let hub = builder.backplane(backplane.clone()).announce_outages(true).build()?;
    tokio::spawn(backplane.run(&hub));
    if let Err(error) = backplane.ready_within(Duration::from_secs(5)).await {
        tracing::warn!(%error, "serving without Redis");
    }
    Ok(hub)
}

#[cfg(not(feature = "redis"))]
async fn join(_: HubBuilder, _: &str) -> Result<Hub, Box<dyn Error + Send + Sync>> {
    Err("--redis needs the feature `redis`".into())
}

/// The hub of the moment. A program has one for its life, and drains it when it ends; here a button drains it, and what
/// follows is what a restart of the program would be.
#[derive(Clone)]
pub(crate) struct Hubs {
    arguments: Arc<Arguments>,
    now: Arc<RwLock<Hub>>,
    /// The topic of this demo's pages. Each demo sees the users of all demos, and tells only the pages of this topic.
    own: Arc<str>,
}

impl Hubs {
    pub(crate) async fn new(arguments: Arguments) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let hub = build(&arguments).await?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let own: Arc<str> = format!("pages of {}-{started}", std::process::id()).into();
        tokio::spawn(announce(hub.clone(), Arc::clone(&own)));
        Ok(Self { arguments: Arc::new(arguments), now: Arc::new(RwLock::new(hub)), own })
    }

    pub(crate) fn now(&self) -> Hub {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The topic that every page of this demo follows.
    pub(crate) fn own(&self) -> Arc<str> {
        Arc::clone(&self.own)
    }

    pub(crate) fn retains(&self) -> usize {
        self.arguments.retain
    }

    /// Ends all streams over a period, each page told when to come back, and then begins anew.
    pub(crate) async fn drain(&self, over: Duration) {
        let old = self.now();
        old.drain(over).await;
        match build(&self.arguments).await {
            Ok(fresh) => {
                tokio::spawn(announce(fresh.clone(), self.own()));
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            Err(error) => tracing::error!(%error, "there is no fresh hub"),
        }
        old.close();
    }
}

/// Sends the list of online users to this demo's pages after each change, until the hub is closed.
async fn announce(hub: Hub, own: Arc<str>) {
    let Ok(mut watch) = hub.watch() else { return };
    while watch.next().await.is_some() {
        let users = online(&hub);
        // Only the newest matters, also to a page that is slow.
        let event = Event::from_payload(&events::Presence { users })
            .map(|event| event.conflate("presence"));
        if let Ok(event) = event
            && let Err(error) = hub.publish(Audience::topic(Arc::clone(&own)), event)
        {
            tracing::debug!(%error, "presence is not told");
        }
    }
}

/// Users that are online, by name.
pub(crate) fn online(hub: &Hub) -> Vec<String> {
    let mut users: Vec<String> = hub.users().iter().map(|info| info.user.to_string()).collect();
    users.sort_unstable();
    users
}
