//! The command line.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
--port NUMBER        the port to listen on; 0 takes any free port (default: the variable PORT, or 3000)
--web DIR            serve this folder (such as examples/react/dist) under /app/
--retain EVENTS      number of events kept for clients that reconnect (default: 5000)
--clients NUMBER     limit of open streams (default: 1000)
--heartbeat SECONDS  period of heartbeats on silent streams (default: 15)
--login SECONDS      require a token for streams, which expires after this time (default: no token)
--via axum           serve with axum's own server
--redis URL          share a Redis with other demos (feature `redis`)";

pub(crate) struct Arguments {
    pub(crate) port: u16,
    pub(crate) web: Option<PathBuf>,
    pub(crate) retain: usize,
    pub(crate) clients: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) login: Option<Duration>,
    pub(crate) redis: Option<String>,
}

impl Arguments {
    pub(crate) fn read() -> Result<Self, String> {
        let mut arguments = Self {
            port: 3000,
            web: None,
            retain: 5000,
            clients: 1000,
            heartbeat: Duration::from_secs(15),
            login: None,
            redis: None,
        };
        if let Ok(port) = std::env::var("PORT") {
            arguments.port = number("PORT", &port)?;
        }
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given.next().ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
            match name.as_str() {
                "--port" => arguments.port = number(&name, &value)?,
                "--web" => arguments.web = Some(value.into()),
                "--redis" => arguments.redis = Some(value),
                "--retain" => arguments.retain = number(&name, &value)?,
                "--clients" => arguments.clients = number(&name, &value)?,
                "--heartbeat" => arguments.heartbeat = seconds(&name, &value)?,
                // `common::is_via_axum` reads the value.
                "--via" if value == "axum" => {}
                "--login" => arguments.login = Some(seconds(&name, &value)?),
                _ => return Err(format!("unknown argument: {name}\n\n{USAGE}")),
            }
        }
        Ok(arguments)
    }
}

/// The longest time that an argument can set: a year. A token that lasts much longer would end past
/// the end of the clock.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

fn seconds(name: &str, given: &str) -> Result<Duration, String> {
    let time = Duration::try_from_secs_f64(number(name, given)?);
    let time = time.map_err(|error| format!("{name} {given}: {error}"))?;
    if time > MAX_TIME {
        let most = MAX_TIME.as_secs();
        return Err(format!("{name} {given}: more than the limit of {most} seconds"));
    }
    Ok(time)
}

fn number<T: std::str::FromStr>(name: &str, given: &str) -> Result<T, String> {
    given.parse().map_err(|_| format!("invalid number: {name} {given}\n\n{USAGE}"))
}
