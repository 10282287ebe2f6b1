//! The decorator forwards or owns every operation of Burn's backend traits.
//!
//! `golden/ops.txt` lists them as `Trait::method`; `default` marks the ones that keep Burn's default on purpose, because it goes through
//! operations that the decorator owns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const GOLDEN: &str = include_str!("../golden/ops.txt");

/// Each trait, its file here and its file in `burn-backend`.
const TRAITS: [(&str, &str, &str); 8] = [
    ("FloatTensorOps", "float_ops.rs", "ops/tensor.rs"),
    ("IntTensorOps", "int_ops.rs", "ops/int_tensor.rs"),
    ("BoolTensorOps", "bool_ops.rs", "ops/bool_tensor.rs"),
    ("ModuleOps", "module_ops.rs", "ops/modules/base.rs"),
    ("ActivationOps", "activation_ops.rs", "ops/activation.rs"),
    ("QTensorOps", "qtensor_ops.rs", "ops/qtensor.rs"),
    ("TransactionOps", "transaction_ops.rs", "ops/transaction.rs"),
    ("Backend", "base.rs", "base.rs"),
];

/// Names after `fn` between the line that holds `start` and the next line that closes the item.
fn methods(source: &str, start: &str) -> BTreeSet<String> {
    let body = source.lines().skip_while(|line| !line.contains(start)).skip(1);
    body.take_while(|line| *line != "}")
        .map(str::trim_start)
        .filter_map(|line| line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn "))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

fn golden(name: &str, with_defaults: bool) -> BTreeSet<String> {
    let rows = GOLDEN.lines().filter_map(|line| line.split_once("::"));
    let rows = rows.filter(|(row, _)| *row == name).map(|(_, method)| method);
    rows.filter(|method| with_defaults || !method.ends_with(" default"))
        .map(|method| method.trim_end_matches(" default").to_string())
        .collect()
}

#[test]
fn every_operation_is_defined() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend");
    for (name, file, _) in TRAITS {
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        let start = if name == "Backend" {
            "Backend for Quantized".into()
        } else {
            format!("{name}<Self> for Quantized")
        };
        assert_eq!(methods(&source, &start), golden(name, false), "{name} in {file}");
    }
}

#[test]
fn the_list_holds_all_methods() {
    let traits = GOLDEN.lines().filter(|line| !line.is_empty());
    let (backend, ops): (Vec<&str>, Vec<&str>) = traits.partition(|line| line.starts_with("Backend::"));
    assert_eq!((ops.len(), backend.len()), (418, 10));
}

#[test]
fn the_list_is_burns() {
    let Some(folder) = burn_backend_sources() else {
        println!("skipped: the sources of burn-backend 0.21.0 are not in the registry folder");
        return;
    };
    for (name, _, file) in TRAITS {
        let source = std::fs::read_to_string(folder.join(file)).unwrap();
        let start = if name == "Backend" {
            "pub trait Backend:".into()
        } else {
            format!("pub trait {name}<")
        };
        assert_eq!(methods(&source, &start), golden(name, true), "{name} of burn-backend");
    }
}

fn burn_backend_sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let folders = registries.filter_map(|entry| Some(entry.ok()?.path().join("burn-backend-0.21.0/src/backend")));
    folders.into_iter().find(|folder| folder.is_dir())
}
