//! Compiles the guests that come with Sepal and gives the crate two lists: `bundled.rs`, components with their
//! manifests, and `templates.rs`, the files of which `sepal plugin new` makes a project.
//!
//! The guests are a workspace of their own, built for wasm32-wasip2 by the cargo that runs this. They share one target
//! folder among all profiles of the outer build, and know nothing of its settings: a flag for x86 or a linker is no
//! business of theirs. Asks the network only for crates that are not there.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "src/manifest_section.rs"]
mod manifest_section;

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let crate_root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let repository = crate_root.parent().expect("the crate lies in the repository");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/manifest_section.rs");
    if let Err(problem) = bundle(&crate_root.join("guests"), &repository.join("sdk/rust"), &out) {
        // Each line of it: cargo shows only what has the prefix.
        for line in problem.lines() {
            println!("cargo::error={line}");
        }
    }
    list_templates(repository, &out);
}

/// Builds the guests, packs them and writes `bundled.rs`.
fn bundle(guests: &Path, sdk: &Path, out: &Path) -> Result<(), String> {
    let names = guest_names(guests);
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", guests.join(file).display());
    }
    for name in &names {
        println!("cargo::rerun-if-changed={}", guests.join(name).display());
    }
    for part in ["Cargo.toml", "src", "wit"] {
        println!("cargo::rerun-if-changed={}", sdk.join(part).display());
    }
    require_target()?;
    // <target>/<profile>/build/sepal-plugins-<hash>/out
    let target = out.ancestors().nth(4).expect("OUT_DIR lies in a target folder").join("guests");
    build(guests, &target)?;

    let mut list = String::from("/// Name and component.\npub static BUNDLED: &[(&str, &[u8])] = &[\n");
    for name in &names {
        let file = format!("{}.wasm", name.replace('-', "_"));
        let built = target.join(TARGET).join("release").join(&file);
        let component = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
        let packed = out.join(&file);
        fs::write(&packed, pack(&guests.join(name), &component)?)
            .map_err(|error| format!("{}: {error}", packed.display()))?;
        let _ = writeln!(list, "    ({name:?}, include_bytes!({:?})),", packed.display().to_string());
    }
    list.push_str("];\n");
    fs::write(out.join("bundled.rs"), list).map_err(|error| format!("bundled.rs: {error}"))
}

/// The folders with a Rust guest; those in other languages are examples and not built here.
fn guest_names(guests: &Path) -> Vec<String> {
    let entries = fs::read_dir(guests).unwrap_or_else(|error| panic!("{}: {error}", guests.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a folder of this repository can be listed"))
        .filter(|entry| {
            entry.path().join("Cargo.toml").is_file() && entry.path().join("plugin.toml").is_file()
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn require_target() -> Result<(), String> {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let asked = Command::new(rustc).args(["--print", "sysroot"]).output();
    let sysroot = asked.map_err(|error| format!("rustc --print sysroot: {error}"))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    if Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    Err(format!(
        "the plugins that come with Sepal are compiled for {TARGET}, which this toolchain lacks:\nrun ./setup, or: \
         rustup target add {TARGET}"
    ))
}

fn build(guests: &Path, target: &Path) -> Result<(), String> {
    let fetch = ["fetch", "--locked", "--target", TARGET];
    if run(cargo(guests, target).args(fetch).arg("--offline")).is_err() {
        run(cargo(guests, target).args(fetch))?;
    }
    run(cargo(guests, target).args(["build", "--release", "--locked", "--offline", "--target", TARGET]))
}

/// Cargo in the guests' workspace, without what the outer build set for itself.
fn cargo(guests: &Path, target: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let ours = name.starts_with("CARGO") || name.starts_with("DEP_") || name.contains("RUSTFLAGS");
        let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_TERM_COLOR"].contains(&name.as_ref())
            || name.starts_with("CARGO_HTTP_")
            || name.starts_with("CARGO_NET_")
            || name.starts_with("CARGO_REGISTR");
        if ours && !kept {
            command.env_remove(name.as_ref());
        }
    }
    // Clippy comes as RUSTC_WORKSPACE_WRAPPER.
    for name in
        ["HOST", "OPT_LEVEL", "OUT_DIR", "PROFILE", "RUSTC_LINKER", "RUSTC_WORKSPACE_WRAPPER", "TARGET"]
    {
        command.env_remove(name);
    }
    // Empty and present, it comes before every `rustflags` of a configuration file.
    command.env("CARGO_ENCODED_RUSTFLAGS", "");
    command.env("CARGO_TARGET_DIR", target);
    command.current_dir(guests);
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cargo did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("building the bundled plugins (plugins/guests) failed:\n{said}"))
}

fn pack(guest: &Path, component: &[u8]) -> Result<Vec<u8>, String> {
    let read = |name: &str| {
        let path = guest.join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let json = manifest_section::manifest_json(&read("plugin.toml")?, read);
    let packed = json.and_then(|json| manifest_section::with_manifest(component, &json));
    packed.map_err(|problem| format!("{}: {problem}", guest.display()))
}

/// Writes `templates.rs`: every file of `sdk/rust`, of each template and of the interface, by its path there.
fn list_templates(repository: &Path, out: &Path) {
    let mut list = String::from(
        "/// A file's path within its folder, and its text.\ntype Files = &'static [(&'static str, &'static str)];\n",
    );
    let templates = repository.join("sdk/templates");
    let mut folders = vec![
        ("SDK".to_owned(), repository.join("sdk/rust")),
        ("WIT".to_owned(), repository.join("sdk/wit/v0.1")),
    ];
    for name in ["js-sink", "python-sink", "rust-resolver", "rust-sink"] {
        folders.push((name.replace('-', "_").to_uppercase(), templates.join(name)));
    }
    for (name, folder) in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
        let mut files = Vec::new();
        text_files(&folder, &folder, &mut files);
        let _ = writeln!(list, "static {name}: Files = &[");
        for (path, file) in files {
            let _ = writeln!(list, "    ({path:?}, include_str!({:?})),", file.display().to_string());
        }
        list.push_str("];\n");
    }
    fs::write(out.join("templates.rs"), list).expect("OUT_DIR can be written");
}

fn text_files(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder of this repository can be listed").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "node_modules", "__pycache__"].contains(&name.as_str()) {
                text_files(root, &path, files);
            }
        } else if name != "Cargo.lock" && !name.starts_with('.') {
            let within = path.strip_prefix(root).expect("it was found there").display().to_string();
            files.push((within, path));
        }
    }
}
