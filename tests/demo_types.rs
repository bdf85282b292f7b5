//! The demo's events as TypeScript types. Fails if the generated file is stale.
#![cfg(feature = "json")]

use std::fmt::Write as _;
use std::path::Path;

use sse_hub::Payload;
use ts_rs::{Config, TS};

#[path = "../examples/demo/server/events.rs"]
#[allow(dead_code, reason = "only the types are of interest")]
mod events;

use events::{Alert, Level, Notification, Presence, Progress, Tick, Upload};

#[test]
fn demo_types_match_sent_events() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/react/src/events.ts");
    let expected = typescript();
    if std::env::var_os("SSE_HUB_WRITE_TYPES").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == expected,
        "{} is stale: SSE_HUB_WRITE_TYPES=1 cargo test --features json --test demo_types\n{expected}",
        path.display()
    );
}

fn typescript() -> String {
    let mut file = Types {
        text: "// Generated from examples/demo/server/events.rs by tests/demo_types.rs. Do not edit.\n"
            .into(),
        map: String::new(),
    };
    file.add::<Level>();
    file.add::<Progress>();
    file.add_event::<Notification>();
    file.add_event::<Alert>();
    file.add_event::<Upload>();
    file.add_event::<Tick>();
    file.add_event::<Presence>();
    let Types { text, map } = file;
    format!("{text}\n/** What each event's data is. */\nexport type DemoEvents = {{\n{map}}};\n")
}

struct Types {
    text: String,
    map: String,
}

impl Types {
    fn add<T: TS>(&mut self) {
        let config = Config::default();
        write!(self.text, "\nexport {}\n", T::decl(&config)).unwrap();
    }

    fn add_event<T: TS + Payload>(&mut self) {
        self.add::<T>();
        let name = T::name(&Config::default());
        writeln!(self.map, "  {}: {name};", T::TYPE.as_str()).unwrap();
    }
}
