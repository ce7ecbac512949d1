//! The modules of the crate depend on each other only as the table in `lib.rs` says: each on modules
//! of its own row or of a row below.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The row of each module in the table.
fn rows(source: &Path) -> BTreeMap<String, usize> {
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let table = lib.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let modules = table.enumerate().flat_map(|(row, line)| {
        let cell = line.split(" | ").next().unwrap_or_default().to_owned();
        let names = cell.split(", ").map(|name| name.trim_matches(['[', '`', ']']).to_owned());
        names.map(|name| (name, row)).collect::<Vec<_>>()
    });
    modules.collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn dependencies_point_down_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rows = rows(&source);
    assert!(rows.len() > 20, "{rows:?}");
    let mut found = Vec::new();
    files(&source, &mut found);
    for path in found {
        let relative = path.strip_prefix(&source).unwrap().with_extension("");
        let module = relative.iter().next().unwrap().to_str().unwrap().to_owned();
        // `lib` declares the modules. `json_fields`, `allocator` and `testing` are private.
        let Some(row) = rows.get(&module) else {
            assert!(
                ["lib", "json_fields", "allocator", "testing"].contains(&module.as_str()),
                "{module}"
            );
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for used in line.split("crate::").skip(1) {
                let used = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if let Some(below) = rows.get(used) {
                    assert!(below >= row, "{} uses {used}", relative.display());
                }
            }
        }
    }
}
