#![doc = include_str!("format.md")]
//!
//! ```lua
#![doc = include_str!("lua/add.lua")]
#![doc = include_str!("lua/runs.lua")]
#![doc = include_str!("lua/publish.lua")]
//! ```

/// The script that adds a batch of events and commands to the stream: see
/// [the arguments](self#the-script).
///
/// ```
/// // For a program in another language:
/// let file = std::env::temp_dir().join("publish.lua");
/// # let file = std::env::temp_dir().join(format!("publish-{}.lua", std::process::id()));
/// std::fs::write(&file, sse_hub::redis::format::PUBLISH_SCRIPT)?;
/// # std::fs::remove_file(&file)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub const PUBLISH_SCRIPT: &str = concat!(
    include_str!("lua/add.lua"),
    include_str!("lua/runs.lua"),
    include_str!("lua/publish.lua")
);
