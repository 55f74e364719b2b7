//! docs/configuration.md: made from the types of the configuration and the comments of config.toml, and held equal to them by a test.
//!
//! To write it anew: `WRITE_REFERENCE=1 cargo test --lib reference`.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::reload::is_reloadable;
use crate::config::{self, Config};

const HEAD: &str = "\
# Configuration reference

<!-- Made from the types of the configuration and the comments of config.toml: WRITE_REFERENCE=1 cargo test --lib reference -->

Every key of [`config.toml`](../config.toml) with its default and what it may be. A key can also be given by the environment, in upper
case with `HELIOSPROXY_` in front (`HELIOSPROXY_CACHE_MAX_ENTRIES` for `cache.max_entries`), lists with commas between. A flag wins over the
environment, the environment over the file, the file over the default. Keys marked with *restart* are read once, at the start; the others again at
SIGHUP, and can be set while the proxy runs by `SET` in the admin database.
";

/// Comments of config.toml that belong together, and the keys that they are about.
#[derive(Default)]
struct Block {
    comment: Vec<String>,
    keys: Vec<String>,
}

struct Section {
    name: String,
    /// Whole blocks of comments about it and about what cannot be written as a key with a default.
    about: Vec<String>,
    notes: Vec<Vec<String>>,
    blocks: Vec<Block>,
}

/// config.toml, as its reader sees it.
fn sections(text: &str) -> Vec<Section> {
    let (mut sections, mut block): (Vec<Section>, Block) = Default::default();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            if !block.keys.is_empty() {
                close(&mut sections, &mut block);
            }
            block.comment.push(comment.strip_prefix(' ').unwrap_or(comment).into());
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let about = std::mem::take(&mut block).comment;
            sections.push(Section { name: name.into(), about, notes: Vec::new(), blocks: Vec::new() });
        } else if let Some((key, _)) = line.split_once(" = ") {
            block.keys.push(key.into());
        } else {
            close(&mut sections, &mut block);
        }
    }
    close(&mut sections, &mut block);
    sections
}

/// What stands before the first section is about the file.
fn close(sections: &mut [Section], block: &mut Block) {
    let block = std::mem::take(block);
    match sections.last_mut() {
        Some(section) if !block.keys.is_empty() => section.blocks.push(block),
        Some(section) if !block.comment.is_empty() => section.notes.push(block.comment),
        _ => {}
    }
}

fn reference() -> String {
    let config = Config::default();
    let defaults = serde_json::to_value(&config).unwrap();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml")).unwrap();
    let mut page = HEAD.to_owned();
    for Section { name, about, notes, blocks } in sections(&text) {
        let _ = writeln!(page, "\n## {name}\n");
        if !about.is_empty() {
            let _ = writeln!(page, "{}\n", prose(&about));
        }
        page.push_str("| key | default | may be | meaning |\n| --- | --- | --- | --- |\n");
        for Block { comment, keys } in blocks {
            for (index, key) in keys.iter().enumerate() {
                let (path, default) = (format!("{name}.{key}"), &defaults[&name][key]);
                let meaning = if index == 0 { prose(&comment) } else { "see above".into() };
                let restart = if is_reloadable(&path) { "" } else { " *restart*" };
                let _ = writeln!(
                    page,
                    "| `{key}` | `{default}` | {} | {meaning}{restart} |",
                    range(&config, &path, default)
                );
            }
        }
        if !notes.is_empty() {
            let lines: Vec<String> = notes.into_iter().map(|note| note.join("\n")).collect();
            let _ = writeln!(page, "\n```text\n{}\n```", lines.join("\n\n"));
        }
    }
    page
}

/// One paragraph of Markdown, in which no character has a meaning of its own.
fn prose(comment: &[String]) -> String {
    comment.join(" ").replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
}

/// What a key may be, as the types themselves and their checks say it of a value that is wrong.
fn range(config: &Config, path: &str, default: &Value) -> String {
    let complaint = |text: &str| match config::with(config, path, text) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    match default {
        Value::Bool(_) => "true, false".into(),
        Value::Array(_) => "list".into(),
        Value::String(_) => words(&complaint("no such word")).unwrap_or_else(|| "text".into()),
        number => {
            let (lowest, most) = (complaint("0"), complaint(&i64::MAX.to_string()));
            let bounds = [&lowest, &most].into_iter().find_map(|said| {
                let (_, bounds) = said.split_once("must be from ").or_else(|| said.split_once("a number from "))?;
                Some(bounds.lines().next()?.split(", got").next()?.to_owned())
            });
            let kind = if number.is_f64() { "number" } else { "integer" };
            bounds.map_or_else(|| kind.to_owned(), |bounds| bounds.to_owned())
        }
    }
}

/// The words in a complaint like `unknown variant "x", expected one of "a", "b"`, or `expected "a" or "b"`.
fn words(complaint: &str) -> Option<String> {
    let (_, expected) = complaint.lines().find(|line| line.contains("unknown variant"))?.split_once("expected ")?;
    Some(expected.trim_start_matches("one of ").replace(" or ", ", ").replace(['"', '`'], ""))
}

#[test]
fn the_configuration_reference_is_that_of_this_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = reference();
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/configuration.md is not up to date: WRITE_REFERENCE=1 cargo test --lib reference");
    let keys = config::settings(&Config::default());
    assert!(keys.len() > 90);
    for key in keys.iter().filter(|setting| setting.key != "cache.rules") {
        let (section, name) = key.key.split_once('.').unwrap();
        let own = page.split(&format!("\n## {section}\n")).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
        assert_eq!(own.matches(&format!("\n| `{name}` | ")).count(), 1, "{}", key.key);
    }
}
