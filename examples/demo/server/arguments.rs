//! The command line.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
--port NUMBER        where to listen: 3000, or the variable PORT; 0 takes any that is free
--web DIR            serves what was built there (such as examples/react/dist) under /app/
--retain EVENTS      how many events are kept for those who come back: 5000
--clients NUMBER     how many streams there may be: 1000
--heartbeat SECONDS  what is sent on silent streams: every 15
--login SECONDS      streams need a token, which lasts for so long: none is needed
--redis URL          makes it one of several that share this Redis (feature `redis`)";

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
            let value = given.next().ok_or_else(|| format!("{name} takes a value\n\n{USAGE}"))?;
            match name.as_str() {
                "--port" => arguments.port = number(&name, &value)?,
                "--web" => arguments.web = Some(value.into()),
                "--redis" => arguments.redis = Some(value),
                "--retain" => arguments.retain = number(&name, &value)?,
                "--clients" => arguments.clients = number(&name, &value)?,
                "--heartbeat" => arguments.heartbeat = seconds(&name, &value)?,
                "--login" => arguments.login = Some(seconds(&name, &value)?),
                _ => return Err(format!("unknown argument {name}; there are\n\n{USAGE}")),
            }
        }
        Ok(arguments)
    }
}

fn seconds(name: &str, given: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number(name, given)?).map_err(|error| format!("{name}: {error}"))
}

fn number<T: std::str::FromStr>(name: &str, given: &str) -> Result<T, String> {
    given.parse().map_err(|_| format!("{name} {given} will not do\n\n{USAGE}"))
}
