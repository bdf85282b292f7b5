//! Names the fault between a browser and a hub, and the line to change. Connects to the URL of a
//! stream through every proxy in between, as a page does.
//!
//! Run with
//!
//! ```text
//! cargo run --example doctor -- https://shop.example/events
//! ```
//!
//! The exit status is 0 without a fault, 1 with a fault, and 2 if there is no stream to examine.

mod arguments;
mod checks;

use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::checks::advice::Place;
use crate::checks::connection::Failure;
use crate::checks::judge::judge;
use crate::checks::probe::examine;
use crate::checks::report::{faults, report};

#[tokio::main]
async fn main() -> ExitCode {
    let target = match Arguments::read(std::env::args().skip(1)).and_then(Arguments::target) {
        Ok(target) => target,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let facts = examine(&target).await;
    if let Err(Failure::Connect(error)) = &facts.first {
        eprintln!("cannot connect to {}: {error}", facts.url);
        return ExitCode::from(2);
    }
    let proxy = facts.first.as_ref().ok().and_then(|head| Place::of_proxy(&head.headers));
    let findings = judge(&facts);
    print!("{}", report(&findings, proxy));
    match faults(&findings).len() {
        0 => println!("no fault"),
        1 => println!("1 fault"),
        count => println!("{count} faults"),
    }
    ExitCode::from(u8::from(!faults(&findings).is_empty()))
}
