//! The command line.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::checks::connection::{PROTOCOLS, Target};

const USAGE: &str = "\
doctor URL [OPTIONS]       examines the stream of a hub at this URL

--for TIME                 watch the stream for this time, such as 300s, to find long timeouts
                           (default: two heartbeats, at most 60s)
--origin ORIGIN            ask as a page of this origin, such as https://app.example
--header 'NAME: VALUE'     a further header, such as a cookie; may be repeated
--connect HOST:PORT        connect to this address instead of that of the URL
--ca FILE                  trust the certificates of this PEM file, too";

#[derive(Debug)]
pub(crate) struct Arguments {
    url: String,
    window: Option<Duration>,
    origin: Option<String>,
    headers: Vec<String>,
    connect: Option<String>,
    ca: Option<String>,
}

impl Arguments {
    pub(crate) fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            url: String::new(),
            window: None,
            origin: None,
            headers: Vec::new(),
            connect: None,
            ca: None,
        };
        while let Some(name) = given.next() {
            if !name.starts_with('-') && arguments.url.is_empty() {
                arguments.url = name;
                continue;
            }
            let value = given.next().ok_or_else(|| format!("{name} needs a value\n\n{USAGE}"))?;
            match name.as_str() {
                "--for" => arguments.window = Some(seconds(&value)?),
                "--origin" => arguments.origin = Some(value),
                "--header" => arguments.headers.push(value),
                "--connect" => arguments.connect = Some(value),
                "--ca" => arguments.ca = Some(value),
                _ => return Err(format!("unknown argument: {name}\n\n{USAGE}")),
            }
        }
        if arguments.url.is_empty() { Err(USAGE.to_owned()) } else { Ok(arguments) }
    }

    pub(crate) fn target(self) -> Result<Target, String> {
        let url: hyper::Uri =
            self.url.parse().map_err(|error| format!("invalid URL {}: {error}", self.url))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
            return Err(format!("invalid URL {}: expected http:// or https://", self.url));
        }
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let name = name.trim().parse::<HeaderName>();
            let value = value.trim().parse::<HeaderValue>();
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!("invalid header: {line}"));
            };
            headers.append(name, value);
        }
        let origin = self
            .origin
            .map(|origin| origin.parse().map_err(|_| format!("invalid origin: {origin}")));
        let mut roots = RootCertStore::empty();
        if url.scheme_str() == Some("https") {
            // A certificate that rustls cannot parse does not hide the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if let Some(file) = &self.ca {
                add(&mut roots, file).map_err(|error| format!("{file}: {error}"))?;
            }
        }
        Ok(Target {
            url,
            connect: self.connect,
            origin: origin.transpose()?,
            headers,
            protocols: PROTOCOLS,
            roots: Arc::new(roots),
            window: self.window,
        })
    }
}

fn add(roots: &mut RootCertStore, file: &str) -> Result<(), Box<dyn std::error::Error>> {
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    Ok(())
}

/// Reads `90`, `90s` or `0.5s`, up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    const DAY: f64 = 86_400.0;
    let number = text.trim_end_matches('s').parse::<f64>().ok();
    let number = number.filter(|number| (0.0..=DAY).contains(number));
    number.map(Duration::from_secs_f64).ok_or_else(|| format!("invalid time: {text}\n\n{USAGE}"))
}
