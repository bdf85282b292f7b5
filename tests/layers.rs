//! The order of the source files: a file uses only lower layers or files of the same layer, and
//! no files use each other in a circle.
//!
//! A file uses another file if the code names a path or calls a method of the other file. A
//! method call needs no `use`, so paths alone would miss it. The methods are found by their names,
//! because the test reads text and knows no types:
//!
//! - A name that a single file defines means that file, unless the name is in [`COMMON`].
//! - For all other names the receiver decides: `state.clients()` means the file of `State`.
//! - If the receiver does not tell, and all files that define the name are in layers above, then
//!   the call goes up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The layers, from the top.
const LAYERS: [&[&str]; 5] = [
    &["mount", "redis", "serve", "testing", "watchdog"],
    &["hub"],
    &["core"],
    &["log"],
    &["time", "wire", "error", "sync"],
];

/// Outside the layers: `lib` re-exports items of all layers, and the others have no code.
const OUTSIDE: [&str; 3] = ["lib", "design", "guide"];

/// Method names that `std` or a dependency has, too.
const COMMON: &[&str] = &[
    "append",
    "apply",
    "as_str",
    "bytes",
    "clear",
    "client",
    "clone",
    "close",
    "contains",
    "count",
    "data",
    "drain",
    "end",
    "entries",
    "entry",
    "events",
    "extend",
    "find",
    "finish",
    "first",
    "get",
    "id",
    "insert",
    "is_empty",
    "is_none",
    "is_some",
    "iter",
    "join",
    "last",
    "len",
    "listen",
    "load",
    "lock",
    "map",
    "max",
    "min",
    "new",
    "next",
    "now",
    "path",
    "poll_next",
    "pop",
    "position",
    "push",
    "query",
    "read",
    "remove",
    "retain",
    "run",
    "send",
    "sleep",
    "start",
    "store",
    "sum",
    "take",
    "watch",
    "will_wake",
];

/// The inherent method that stands outside the file of its type, with the file and the type.
/// `Hub::builder` returns the builder and `HubBuilder::build` returns the hub, so in two files one of
/// the methods must stand in the other's file; a single file would hold two ideas in 750 lines.
const MAKER: (&str, &str, &str) = ("hub::hub", "HubBuilder", "build");

/// A file, without comments and unit tests.
struct Source {
    /// `folder::file`; the folder alone for `mod.rs`.
    name: String,
    /// Whether the file is a `mod.rs`.
    is_mod: bool,
    code: String,
}

/// A method or function in a block of methods.
struct Method {
    name: String,
    parameters: String,
    is_public: bool,
}

/// A block of methods: `impl Type` or `trait Type`.
struct Block {
    of: String,
    methods: Vec<Method>,
}

/// For each file, the used files, each with a path or a method as evidence.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut sources);
    assert!(sources.len() > 50, "the source files were not found");
    sources
}

fn collect(folder: &Path, module: &str, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let name = if module.is_empty() { stem.to_owned() } else { format!("{module}::{stem}") };
        if OUTSIDE.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, &name, sources);
        } else {
            let is_mod = stem == "mod";
            let name = if is_mod { module.to_owned() } else { name };
            sources.push(Source { name, is_mod, code: code(&fs::read_to_string(path).unwrap()) });
        }
    }
}

/// Removes comments, and all that follows the first test module.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the name that `text` begins with.
fn first_word(text: &str) -> &str {
    &text[..text.find(|letter| !is_word(letter)).unwrap_or(text.len())]
}

/// Returns the name that `text` ends with.
fn last_word(text: &str) -> &str {
    text.rsplit(|letter| !is_word(letter)).next().unwrap()
}

/// Returns whether `code` contains `word` as a whole word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    })
}

/// Returns the text up to the bracket that closes the first bracket of `text`.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' if depth == 1 => return &text[1..at],
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// Splits a list at the commas outside of brackets.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts
}

/// Adds the paths that `text` begins with: several for `a::{b, c::D}`.
fn expand(text: &str, module: &str, paths: &mut Vec<String>) {
    let text = text.trim_start();
    let end = text.find(|letter| !is_word(letter) && letter != ':').unwrap_or(text.len());
    let path = [module, text[..end].trim_end_matches("::")];
    let path = path.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::");
    let is_list = end == 0 || text[..end].ends_with("::");
    if is_list && text[end..].starts_with('{') {
        split_list(bracketed(&text[end..])).into_iter().for_each(|it| expand(it, &path, paths));
    } else {
        paths.push(path);
    }
}

/// Returns all paths in the code that begin with `crate`, `super` or, in a `mod.rs`, `self`.
fn paths(source: &Source) -> Vec<String> {
    let parent = |module: &str| module.rsplit_once("::").map_or("", |(up, _)| up).to_owned();
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in source.code.match_indices(start) {
            let before = &source.code[..at];
            // A `pub use` in a `mod.rs` is for the users of the folder.
            let is_for_users = source.is_mod && before.ends_with("pub use ");
            if is_for_users || before.ends_with(|letter| is_word(letter) || letter == ':') {
                continue;
            }
            let mut rest = &source.code[at + start.len()..];
            let mut module = match start {
                "crate::" => String::new(),
                "super::" => parent(&source.name),
                // In other files, `self` is the file itself.
                _ if source.is_mod => source.name.clone(),
                _ => continue,
            };
            while let Some(above) = rest.strip_prefix("super::") {
                (module, rest) = (parent(&module), above);
            }
            expand(rest, &module, &mut paths);
        }
    }
    paths
}

/// Returns the public names of `lib.rs`, such as `backplane::Feed`, with their paths.
fn public_names() -> BTreeMap<String, String> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let (mut module, mut names) = ("", BTreeMap::new());
    let text = code(&fs::read_to_string(lib).unwrap());
    for item in text.split_inclusive([';', '\n']).scan(String::new(), |open, line| {
        open.push_str(line);
        // A list of names can have several lines.
        let is_open = open.contains("pub use") && !open.contains(';');
        Some(if is_open { String::new() } else { std::mem::take(open) })
    }) {
        if let Some(at) = item.find("pub use crate::") {
            let module = if item.starts_with("pub") { "" } else { module };
            let mut paths = Vec::new();
            expand(&item[at + "pub use crate::".len()..], "", &mut paths);
            for path in paths {
                let name = [module, last_word(&path)].join("::");
                names.insert(name.trim_start_matches("::").to_owned(), path);
            }
        } else if let Some(at) = text.find(&item).filter(|_| item.starts_with("pub mod ")) {
            module = first_word(&text[at + "pub mod ".len()..]);
        }
    }
    names
}

/// Returns the file of a path. Returns `None` for a path of another crate.
fn resolve(
    path: &str,
    files: &BTreeSet<String>,
    public: &BTreeMap<String, String>,
) -> Option<String> {
    let parts: Vec<_> = path.split("::").collect();
    let heads = || (1..=parts.len()).rev().map(|count| parts[..count].join("::"));
    let file = heads().find(|head| files.contains(head));
    let name = heads().find(|head| public.contains_key(head));
    match name {
        // A module can have the name of a public function: its files have longer paths.
        Some(name) if file.as_ref().is_none_or(|file| file.len() <= name.len()) => {
            resolve(&public[&name], files, &BTreeMap::new())
        }
        _ => file,
    }
}

/// Returns the traits and the inherent `impl`s of a file.
fn blocks(code: &str) -> Vec<Block> {
    let lines: Vec<_> = code.lines().collect();
    let mut blocks = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let item = line.trim_start();
        let indent = &line[..line.len() - item.len()];
        let item =
            item.strip_prefix("pub(crate) ").or_else(|| item.strip_prefix("pub ")).unwrap_or(item);
        let is_trait = item.starts_with("trait ");
        if !is_trait && !item.starts_with("impl ") && !item.starts_with("impl<") {
            continue;
        }
        let end = format!("{indent}}}");
        let size = lines[at..].iter().position(|line| *line == end).unwrap_or(0);
        let body = lines[at..=at + size].join("\n");
        let body = &body[body.find(item).unwrap()..];
        let header = body.split('{').next().unwrap();
        if let Some(of) = subject(header, is_trait) {
            blocks.push(Block { of, methods: methods(body, is_trait) });
        }
    }
    blocks
}

/// Returns the text after the generic parameters, if there are some.
fn after_generics(text: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        depth += i32::from(letter == '<');
        depth -= i32::from(letter == '>' && !text[..at].ends_with('-'));
        if depth == 0 {
            return text[at..].trim_start_matches('>');
        }
    }
    text
}

/// Returns the type of an inherent `impl`, or the name of a trait; nothing for a trait's `impl`.
fn subject(header: &str, is_trait: bool) -> Option<String> {
    if is_trait {
        return Some(first_word(header.strip_prefix("trait ")?).to_owned());
    }
    let rest = after_generics(header.strip_prefix("impl")?);
    let before_where = rest.split("where").next()?;
    if before_where.replace("for<", "").split_whitespace().any(|word| word == "for") {
        return None;
    }
    Some(last_word(before_where.split('<').next()?.trim()).to_owned())
}

fn methods(body: &str, is_trait: bool) -> Vec<Method> {
    let mut methods = Vec::new();
    for (at, _) in body.match_indices("fn ") {
        let before = body[..at].rsplit('\n').next().unwrap().trim_start();
        let rest = &body[at + 3..];
        let name = first_word(rest);
        if name.is_empty() || before.ends_with(is_word) {
            continue;
        }
        let rest = after_generics(&rest[name.len()..]);
        if !rest.starts_with('(') {
            continue;
        }
        methods.push(Method {
            name: name.to_owned(),
            parameters: bracketed(rest).to_owned(),
            is_public: is_trait || before.starts_with("pub"),
        });
    }
    methods
}

/// Returns whether a function is called as a method.
fn has_receiver(parameters: &str) -> bool {
    let first = parameters.split(',').next().unwrap();
    names(first.split(':').next().unwrap(), "self")
}

/// `EventStream` becomes `event_stream`, which is how a variable of this type is called.
fn variable(type_name: &str) -> String {
    let mut name = String::new();
    for letter in type_name.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// A place where a method name is defined.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Definition {
    file: String,
    of: String,
    /// Whether other files can call the method.
    is_visible: bool,
}

/// For each method name, the places that define it.
type Definitions = BTreeMap<String, BTreeSet<Definition>>;

fn definitions(sources: &[Source]) -> Definitions {
    let mut definitions = Definitions::new();
    for source in sources {
        for block in blocks(&source.code) {
            for method in &block.methods {
                if has_receiver(&method.parameters) {
                    let definition = Definition {
                        file: source.name.clone(),
                        of: block.of.clone(),
                        // A private method of a `mod.rs` is visible in its folder.
                        is_visible: method.is_public || source.is_mod,
                    };
                    definitions.entry(method.name.clone()).or_default().insert(definition);
                }
            }
        }
    }
    definitions
}

/// Returns the files whose methods the code calls, each with a method.
fn called(source: &Source, definitions: &Definitions) -> BTreeMap<String, String> {
    let (code, mut called) = (&source.code, BTreeMap::new());
    for (at, _) in code.match_indices('.') {
        let rest = &code[at + 1..];
        let name = first_word(rest);
        let Some(found) = definitions.get(name) else { continue };
        let after = &rest[name.len()..];
        if !after.starts_with('(') && !after.starts_with("::<") {
            continue;
        }
        let found = || found.iter().filter(|it| it.is_visible || it.file == source.name);
        let files: BTreeSet<_> = found().map(|it| &it.file).collect();
        if files.len() == 1 && !COMMON.contains(&name) {
            called.extend(files.into_iter().map(|file| (file.clone(), format!(".{name}()"))));
            continue;
        }
        let before = code[..at].trim_end();
        let receiver = last_word(before.strip_suffix("()").unwrap_or(before));
        let mut of_receiver = found().filter(|it| variable(&it.of) == receiver);
        if let (Some(it), None) = (of_receiver.next(), of_receiver.next()) {
            called.insert(it.file.clone(), format!("{receiver}.{name}()"));
        } else if !COMMON.contains(&name)
            && let Some(lowest) = files.into_iter().max_by_key(|file| layer(file))
            && layer(lowest) < layer(&source.name)
        {
            called.insert(lowest.clone(), format!(".{name}()"));
        }
    }
    called
}

fn uses(sources: &[Source]) -> Uses {
    let files: BTreeSet<_> = sources.iter().map(|source| source.name.clone()).collect();
    let (public, definitions) = (public_names(), definitions(sources));
    let used = |source: &Source| {
        let mut used = called(source, &definitions);
        let paths = paths(source).into_iter();
        used.extend(paths.filter_map(|path| Some((resolve(&path, &files, &public)?, path))));
        used.remove(&source.name);
        (source.name.clone(), used)
    };
    sources.iter().map(used).collect()
}

fn layer(file: &str) -> usize {
    let folder = file.split("::").next().unwrap();
    LAYERS
        .iter()
        .position(|layer| layer.contains(&folder))
        .unwrap_or_else(|| panic!("{file} is in no layer"))
}

#[test]
fn layers_use_only_layers_below() {
    let uses = uses(&sources());
    for (file, used) in &uses {
        for (used, by) in used {
            assert!(layer(used) >= layer(file), "{file} uses {used}, a layer above: {by}");
        }
    }
    // The arrows were found: by a path, by a public name, by a method, and by a receiver.
    for (file, used) in [
        ("hub::shared", "core::state"),
        ("redis::driver", "hub::hub"),
        ("hub::subscription", "log::mailbox"),
        ("core::state", "log::log"),
        ("serve::connection", "serve::stream"),
    ] {
        assert!(uses[file].contains_key(used), "{file} does not use {used}: {:#?}", uses[file]);
    }
}

#[test]
fn no_files_use_each_other() {
    let mut left = uses(&sources());
    // A file is in no circle if it uses no file that is left, or if no file that is left uses it.
    // Remove such files until only circles, and the ways between them, remain.
    loop {
        let used: BTreeSet<_> = left.values().flat_map(BTreeMap::keys).cloned().collect();
        let count = left.len();
        left.retain(|file, uses| !uses.is_empty() && used.contains(file));
        let files: BTreeSet<_> = left.keys().cloned().collect();
        left.values_mut().for_each(|uses| uses.retain(|file, _| files.contains(file)));
        if left.len() == count {
            break;
        }
    }
    assert!(left.is_empty(), "these files use each other: {left:#?}");
}

#[test]
fn methods_stand_in_their_types_file() {
    let mut is_maker_found = false;
    for source in sources() {
        for block in blocks(&source.code) {
            let of = block.of.as_str();
            let is_here = ["struct", "enum", "trait"]
                .iter()
                .any(|kind| names(&source.code, &format!("{kind} {of}")));
            for method in block.methods.iter().filter(|_| !is_here) {
                let name = method.name.as_str();
                let is_maker = MAKER == (source.name.as_str(), of, name);
                assert!(is_maker, "{} has {of}::{name}, but not {of}", source.name);
                is_maker_found = true;
            }
        }
    }
    assert!(is_maker_found, "the exception is not needed any more");
}

#[test]
fn no_function_takes_the_hub_with_its_locked_state() {
    let mut count = [0; 2];
    for source in sources().iter().filter(|source| source.name.starts_with("hub::")) {
        // A method takes its own type, too.
        let blocks = blocks(&source.code);
        let of = |of: &str, name: &str, parameters: &str| {
            blocks.iter().filter(|block| block.of == of).any(|block| {
                let is_it = |it: &Method| it.name == name && it.parameters == parameters;
                has_receiver(parameters) && block.methods.iter().any(is_it)
            })
        };
        for function in methods(&source.code, false) {
            let Method { name, parameters, .. } = &function;
            let hub = names(parameters, "Shared") || of("Shared", name, parameters);
            let state = names(parameters, "State");
            assert!(
                !(hub && state),
                "{}::{name} takes the locked state, and a hub that could lock it again",
                source.name
            );
            count[0] += usize::from(hub);
            count[1] += usize::from(state);
        }
    }
    assert!(count.iter().all(|&count| count > 4), "the functions were not found: {count:?}");
}

#[test]
fn state_and_log_do_not_know_the_locks() {
    let sources = sources();
    let of = |layer: &str| {
        let prefix = format!("{layer}::");
        let files: Vec<_> =
            sources.iter().filter(|source| source.name.starts_with(&prefix)).collect();
        assert!(files.len() > 8, "the files of {layer} were not found");
        files
    };
    for source in of("core").into_iter().chain(of("log")) {
        assert!(!names(&source.code, "Shared"), "{} names Shared", source.name);
    }
    for source in of("log") {
        for word in ["Mutex", "RwLock", "Waker", "Instant::now", "SystemTime::now", "async"] {
            assert!(!names(&source.code, word), "{} uses {word}", source.name);
        }
    }
}
