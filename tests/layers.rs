//! The house: a floor uses only those below it, and no file uses one that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the top.
const FLOORS: [&[&str]; 4] =
    [&["mount", "redis", "watchdog"], &["hub"], &["log"], &["time", "wire", "error", "sync"]];

/// Faces that name what lies below them: not a part of any floor.
const FACES: [&str; 2] = ["lib", "design"];

type Uses = BTreeMap<String, BTreeSet<String>>;

/// The files of `src`, as `folder::file`, and what each uses of them.
fn uses() -> Uses {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    collect(&source, "", &mut texts);
    let names: BTreeSet<_> = texts.keys().cloned().collect();
    let of = |(name, text): (&String, &String)| (name.clone(), used(name, text, &names));
    texts.iter().map(of).collect()
}

fn collect(folder: &Path, prefix: &str, texts: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            collect(&path, &format!("{prefix}{stem}::"), texts);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && stem != "mod"
            && !FACES.contains(&stem.as_str())
        {
            texts.insert(format!("{prefix}{stem}"), fs::read_to_string(path).unwrap());
        }
    }
}

/// What a file names by its path, but for its tests and its comments.
fn used(name: &str, text: &str, names: &BTreeSet<String>) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let here = name.rsplit_once("::").map_or(String::new(), |(folder, _)| format!("{folder}::"));
    let mut used = BTreeSet::new();
    for (word, prefix) in [("super::", here.as_str()), ("crate::", "")] {
        for (at, _) in code.match_indices(word) {
            let rest = &code[at + word.len()..];
            // `super::{a, b::C}` is several paths.
            let paths: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap().split(',').collect(),
                None => vec![rest],
            };
            for path in paths {
                let of_a_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
                let path = path.trim_start();
                let end = path.find(|letter| !of_a_path(letter)).unwrap_or(path.len());
                used.extend(resolve(&format!("{prefix}{}", &path[..end]), names));
            }
        }
    }
    used.remove(name);
    used
}

/// The file that a path leads into, if it does.
fn resolve(path: &str, names: &BTreeSet<String>) -> Option<String> {
    let parts: Vec<_> = path.split("::").collect();
    (1..=parts.len()).rev().map(|parted| parts[..parted].join("::")).find(|it| names.contains(it))
}

fn floor(name: &str) -> usize {
    let folder = name.split("::").next().unwrap();
    FLOORS
        .iter()
        .position(|floor| floor.contains(&folder))
        .unwrap_or_else(|| panic!("{name} is on no floor"))
}

#[test]
fn a_floor_uses_only_those_below_it() {
    let uses = uses();
    for (name, used) in &uses {
        for used in used {
            assert!(floor(used) >= floor(name), "{name} uses {used}, which is above it");
        }
    }
    // The paths were found.
    assert!(uses["hub::shared"].contains("hub::state") && uses["hub::state"].contains("log::log"));
    assert!(
        uses["log::log"].contains("wire::frame") && uses["mount::axum"].contains("mount::http")
    );
}

#[test]
fn no_file_uses_one_that_uses_it() {
    let mut left = uses();
    // Takes away whoever uses none that is left, until nobody is or all that are use each other.
    loop {
        let free: Vec<_> =
            left.iter().filter(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name, _| !free.contains(name));
        left.values_mut().for_each(|used| used.retain(|name| !free.contains(name)));
    }
    assert!(left.is_empty(), "these use each other, or those that do: {left:#?}");
}
