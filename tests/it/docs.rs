//! What the documents say, held to: the configuration in the README is sound as it stands, and the chart of layers in
//! ARCHITECTURE.md names every module there is.

use std::{fs, path::Path};

use gatepost::config::Config;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_configurations_in_the_readme_are_sound() {
    let readme = document("README.md");
    let blocks: Vec<&str> =
        readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let reading = Config::read(block, "README.md");
        assert!(reading.faults.is_empty() && reading.warnings.is_empty(), "{block}\n{:?}", reading.faults);
    }
}

#[test]
fn the_architecture_names_every_module() {
    let map = document("ARCHITECTURE.md");
    let library = document("src/lib.rs");
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.split(';').next());
    for module in modules {
        assert!(map.contains(&format!("`{module}`")), "ARCHITECTURE.md does not name `{module}`");
    }
}
