//! Behind nginx without settings, which buffers responses unless a header prevents buffering.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sse_hub::{Audience, Event, Hub};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::http1::{Client, NO_HEADERS};
use crate::ports::Port;
use crate::proxies::listening;
use crate::servers::{Adapter, Server};
use crate::{hub, within};

#[tokio::test]
#[ignore = "needs nginx"]
async fn event_passes_unconfigured_nginx_within_100_ms() {
    const EVENTS: usize = 20;
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let nginx = Nginx::in_front_of(server.address).await;
        let mut client = Client::get(nginx.address, "/events", NO_HEADERS).await;
        assert_eq!(client.status(), "200 OK", "{adapter:?}");
        assert!(client.head.header("server").unwrap().starts_with("nginx"), "{adapter:?}");
        assert!(client.frame().await.unwrap().starts_with("event: hub:open\n"), "{adapter:?}");
        let mut delays = Vec::new();
        for number in 0..EVENTS {
            let published = Instant::now();
            let id = publish(&hub, number);
            client.until(&format!("id: {id}\n\n")).await;
            delays.push(published.elapsed());
        }
        delays.sort_unstable();
        let (median, worst) = (delays[EVENTS / 2], delays[EVENTS - 1]);
        println!("{adapter:?}: median {median:?}, worst {worst:?}");
        // Load delays some events. A buffer would hold back all.
        assert!(median < Duration::from_millis(100), "{adapter:?}: {delays:?}");
    }
}

/// Proves that the header is the reason: without the header, nginx buffers thousands of bytes.
#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_without_the_header_holds_events_back() {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let nginx = Nginx::in_front_of(server.address).await;
    let address = nginx.address;
    let first_frame = tokio::spawn(async move {
        let mut client = Client::get(address, "/deaf/events", NO_HEADERS).await;
        client.frame().await
    });
    let mut bytes = 0;
    let published = async {
        while !first_frame.is_finished() {
            // In turns with nginx, so that nginx could forward each event before the next.
            tokio::time::sleep(Duration::from_millis(2)).await;
            bytes += format!("event: n\ndata: 0\nid: {}\n\n", publish(&hub, 0)).len();
        }
    };
    within("nginx has enough", published).await;
    println!("the first frame was seen after {bytes} bytes");
    assert!(bytes > 2_000, "{bytes}");
    first_frame.await.unwrap().unwrap();
}

fn publish(hub: &Hub, number: usize) -> sse_hub::EventId {
    hub.publish_confirmed(Audience::all(), Event::new("n").data(number.to_string()))
        .unwrap()
        .id()
        .unwrap()
}

pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    _process: Child,
    _directory: TempDir,
    _port: Port,
}

impl Nginx {
    /// The defaults of nginx, except for the folders, and a single process that can be killed.
    pub(crate) async fn in_front_of(server: SocketAddr) -> Self {
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            if let Some(nginx) = Self::start(server).await {
                return nginx;
            }
        }
        panic!("nginx ends at {ATTEMPTS} different ports");
    }

    /// Returns `None` if nginx has ended: another program has the port.
    async fn start(server: SocketAddr) -> Option<Self> {
        let (directory, port) = (TempDir::new().unwrap(), Port::take());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let config = format!(
            "daemon off;
            master_process off;
            pid nginx.pid;
            error_log stderr;
            events {{}}
            http {{
                access_log off;
                server {{
                    listen {address};
                    location / {{
                        proxy_pass http://{server};
                    }}
                    location /deaf/ {{
                        proxy_pass http://{server}/;
                        proxy_ignore_headers X-Accel-Buffering;
                    }}
                }}
            }}
            "
        );
        let path = directory.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(directory.path()).arg("-c").arg(&path);
        let process = listening(command, address).await?;
        Some(Self { address, _process: process, _directory: directory, _port: port })
    }
}
