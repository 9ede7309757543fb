//! Holds the tree to its own rules: imports follow the layers, every file opens with its paragraph.
//!
//! The layers are those of `ARCHITECTURE.md`; a module may use those of lower layers and of its own row, never
//! those above.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Module, and what it may import from the crate. What is missing here must not exist.
const LAYERS: [(&str, &[&str]); 19] = [
    ("domain", &[]),
    ("fault", &[]),
    ("limits", &[]),
    ("mail", &[]),
    ("wire", &[]),
    ("rules", &["mail", "fault"]),
    ("verdict", &["rules"]),
    ("policy", &["verdict"]),
    ("render", &["mail", "verdict"]),
    ("telemetry", &[]),
    ("net", &["telemetry"]),
    ("store", &["mail", "verdict", "policy"]),
    ("filter", &["mail", "rules", "verdict"]),
    (
        "session",
        &[
            "domain",
            "filter",
            "limits",
            "mail",
            "net",
            "policy",
            "render",
            "store",
            "telemetry",
            "verdict",
            "wire",
        ],
    ),
    ("admin", &["session", "store", "filter", "rules", "policy"]),
    ("config", &ANY),
    ("app", &ANY),
    ("cli", &ANY),
    ("main", &ANY),
];

const ANY: [&str; 1] = ["*"];

#[test]
fn imports_follow_the_layers() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            panic!("{}: `{module}` has no row in the table of layers", file.display());
        };
        for import in imports(&production(&fs::read_to_string(&file).unwrap())) {
            if import != module && !allowed.contains(&import.as_str()) && **allowed != ANY {
                wrong.push(format!("{}: `{module}` uses `{import}`", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    for file in sources().into_iter().chain(rust_files(&root().join("tests"))) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with its paragraph", file.display());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn sources() -> Vec<PathBuf> {
    rust_files(&root().join("src"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The module directly below the crate that a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The text without the tests at its end, which may reach further. Test files are all tests.
fn production(text: &str) -> String {
    if text.contains("use super::*;") && !text.contains("#[cfg(test)]") {
        return String::new();
    }
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// What is written behind `crate::`, the members of a braced list included.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(members(list)),
            None => found.extend(word(rest)),
        }
    }
    found
}

/// The first words of a braced list, up to its closing brace.
fn members(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut words = Vec::new();
    let mut begins = true;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            character if begins && depth == 0 && !character.is_whitespace() => {
                words.extend(word(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}
