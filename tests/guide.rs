//! The guide: rustdoc checks links to items, and this test checks the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The documentation of each source file, by its module, such as `guide::limits`.
fn pages() -> BTreeMap<String, String> {
    fn collect(folder: &Path, module: &str, pages: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let name = match (module, stem) {
                (_, "mod") => module.to_owned(),
                ("", _) => stem.to_owned(),
                _ => format!("{module}::{stem}"),
            };
            if path.is_dir() {
                collect(&path, &name, pages);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                let lines = source.lines().map(str::trim_start);
                let docs = lines.filter_map(|line| match line.strip_prefix("//!") {
                    // One of two lines opens the code block of a feature.
                    None if line.contains("doc = \"```") && !line.contains("not(") => Some("```"),
                    docs => docs,
                });
                pages.insert(name, docs.map(|line| format!("{}\n", line.trim_start())).collect());
            }
        }
    }
    let mut pages = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut pages);
    pages
}

/// Returns the anchors that rustdoc gives to the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let headings = page.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    let slug = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept =
            words.chars().filter(|&it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(slug).collect()
}

/// Returns the targets of the links with an anchor.
fn links(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter_map(|target| target.split_once('#'))
}

#[test]
fn links_lead_to_headings() {
    let pages = pages();
    let mut count = 0;
    for (from, page) in &pages {
        for (target, anchor) in links(page) {
            let module = target.trim_start_matches("mod@");
            let module = match module.strip_prefix("crate::") {
                Some(module) => module.to_owned(),
                None if module.is_empty() => from.clone(),
                None => {
                    let above = from.rsplit_once("::").map_or("", |(above, _)| above);
                    module.replacen("super", above, 1)
                }
            };
            // Other links lead to items, which have sections of their own.
            if let Some(to) = pages.get(&module) {
                let anchors = anchors(to);
                assert!(anchors.contains(anchor), "{from}: no `{anchor}` in {module}: {anchors:?}");
                count += 1;
            }
        }
    }
    assert!(count > 15, "the links were not found: {count}");
}

#[test]
fn index_names_every_page() {
    let pages = pages();
    for index in ["guide", "guide::cookbook"] {
        let prefix = format!("{index}::");
        let children = pages.keys().filter_map(|name| name.strip_prefix(&prefix));
        let children: Vec<_> = children.filter(|name| !name.contains("::")).collect();
        assert!(children.len() > 2, "the pages of {index} were not found");
        for child in children {
            let is_named = pages[index].contains(&format!("[`{child}`]"));
            assert!(is_named, "the index of {index} does not name {child}");
        }
    }
}

/// Returns the types of the hub's own events in a text.
fn hub_events(text: &str) -> BTreeSet<&str> {
    let is_of_type = |letter: char| letter.is_ascii_lowercase() || letter == '-';
    let ends = |rest: &str| rest.find(|letter| !is_of_type(letter)).unwrap_or(rest.len());
    let types = text.split("hub:").skip(1).map(|rest| &rest[..ends(rest)]);
    types.filter(|name| !name.is_empty()).collect()
}

#[test]
fn documents_list_every_event_of_the_hub() {
    let read =
        |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    // The files that write these events, without comments.
    let code = ["src/wire/frame.rs", "src/mount/event_stream.rs"].map(|file| {
        let text = read(file);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.collect::<String>()
    });
    let code = code.concat();
    let written = hub_events(&code);
    assert!(written.len() > 5, "the events were not found: {written:?}");

    let client = read("examples/client/sse-client.js");
    let forwarded = client.lines().find(|line| line.starts_with("export const HUB_EVENTS"));
    assert_eq!(hub_events(forwarded.unwrap()), written, "the list of the browser client");
    let rows = |page: &str| -> String {
        let rows =
            page.lines().filter(|line| line.trim_start_matches([' ', '*']).starts_with("| `hub:"));
        // The first column.
        rows.filter_map(|row| row.split('|').nth(1)).collect()
    };
    let guide = &pages()["guide::browser"];
    assert_eq!(hub_events(&rows(guide)), written, "the table of the guide");
    let docs = client.split("@module").next().unwrap();
    assert_eq!(hub_events(&rows(docs)), written, "the table of the browser client");
}
