//! `sepal plugin build`: from a project to a component, with the toolchain of its language.
//!
//! Rust: `cargo build --target wasm32-wasip2 --release`. Python: componentize-py, with every WASI import replaced by a
//! trap, as plugins have no business with WASI. JavaScript: jco with QuickJS, the same. The programs that are fetched
//! are pinned; npm runs no scripts of packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sepal_database::connector::PluginKind;

use super::{AuthorError, Language, Result, templates};
use crate::manifest::{Manifest, World};

const COMPONENTIZE_PY: &str = "0.25.1";
const JCO: &str = "1.35.0";
const TARGET: &str = "wasm32-wasip2";

/// Where fetched toolchains are, and who is told what happens.
pub struct Toolchains<'a> {
    /// `~/.cache/sepal/toolchains`
    pub folder: PathBuf,
    /// Gets a line before anything is fetched.
    pub say: &'a dyn Fn(&str),
}

impl<'a> Toolchains<'a> {
    /// In the user's cache folder.
    pub fn of_user(say: &'a dyn Fn(&str)) -> Result<Self> {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let cache = cache.ok_or_else(|| AuthorError::Project("set HOME or XDG_CACHE_HOME".to_owned()))?;
        Ok(Self { folder: cache.join("sepal/toolchains"), say })
    }
}

/// Compiles the project and gives the component's path, without its manifest: [`super::pack`] adds that.
pub fn build_project(directory: &Path, toolchains: &Toolchains<'_>) -> Result<PathBuf> {
    let directory = directory.canonicalize().map_err(AuthorError::at(directory))?;
    match language_of(&directory)? {
        Language::Rust => build_rust(&directory),
        Language::Python => build_python(&directory, toolchains),
        Language::JavaScript => build_javascript(&directory, toolchains),
    }
}

fn language_of(directory: &Path) -> Result<Language> {
    let marks =
        [("Cargo.toml", Language::Rust), ("app.py", Language::Python), ("app.js", Language::JavaScript)];
    let found = marks.into_iter().find(|(mark, _)| directory.join(mark).is_file());
    found.map(|(_, language)| language).ok_or_else(|| {
        AuthorError::Project(format!(
            "{} has no Cargo.toml, app.py or app.js: run this in a plugin's folder, or make one with \
             `sepal plugin new`",
            directory.display()
        ))
    })
}

/// The manifest beside the sources, checked.
pub(super) fn manifest_of(directory: &Path) -> Result<Manifest> {
    let path = directory.join("plugin.toml");
    let text = fs::read_to_string(&path).map_err(AuthorError::at(&path))?;
    let read = |name: &str| fs::read(directory.join(name)).map_err(|error| format!("{name}: {error}"));
    Ok(Manifest::from_toml(&text, &read)?)
}

fn build_rust(directory: &Path) -> Result<PathBuf> {
    let installed = installed_targets();
    if installed.as_ref().is_some_and(|targets| !targets.contains(TARGET)) {
        return Err(AuthorError::Project(format!("Rust lacks {TARGET}: run `rustup target add {TARGET}`")));
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(directory).args(["build", "--release", "--target", TARGET]);
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| not_started("cargo", "https://rustup.rs", &error))?;
    if !output.status.success() {
        return Err(AuthorError::Program { program: "cargo build".to_owned(), code: output.status.code() });
    }
    let component = artifact(&output.stdout, directory);
    component.ok_or_else(|| {
        let advice = "crate-type = [\"cdylib\"] under [lib] in Cargo.toml makes one";
        AuthorError::Project(format!("cargo built no component: {advice}"))
    })
}

/// `None` without rustup: cargo will say what is missing.
fn installed_targets() -> Option<String> {
    let output = Command::new("rustup").args(["target", "list", "--installed"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The `.wasm` of this project's own library, among cargo's messages: wherever its target folder is.
fn artifact(messages: &[u8], directory: &Path) -> Option<PathBuf> {
    let manifest = directory.join("Cargo.toml").display().to_string();
    let mut found = None;
    for line in messages.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else { continue };
        if message["reason"] == "compiler-artifact" && message["manifest_path"] == manifest {
            let files =
                message["filenames"].as_array().into_iter().flatten().filter_map(|file| file.as_str());
            found = files
                .map(PathBuf::from)
                .find(|file| file.extension().is_some_and(|end| end == "wasm"))
                .or(found);
        }
    }
    found
}

fn build_python(directory: &Path, toolchains: &Toolchains<'_>) -> Result<PathBuf> {
    let home = toolchains.folder.join(format!("componentize-py-{COMPONENTIZE_PY}"));
    let program = home.join("bin/componentize-py");
    if !program.is_file() {
        (toolchains.say)(&format!(
            "fetching componentize-py {COMPONENTIZE_PY} from PyPI into {} (40 MB)",
            home.display()
        ));
        fs::create_dir_all(&toolchains.folder).map_err(AuthorError::at(&toolchains.folder))?;
        let advice = "install Python 3.10 or newer, with venv";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), "python3 -m venv", advice)?;
        let mut pip = Command::new(home.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]);
        run(pip.arg(format!("componentize-py=={COMPONENTIZE_PY}")), "pip install", advice)?;
    }
    let (wit, world) = interface(directory, toolchains)?;
    let component = directory.join("component.wasm");
    let mut command = Command::new(&program);
    command.current_dir(directory).arg("-q").arg("-d").arg(wit).args(["-w", world]);
    // A `VIRTUAL_ENV` of the author's would bring its packages along.
    command.args(["componentize", "app", "--stub-wasi", "-o"]).arg(&component).env_remove("VIRTUAL_ENV");
    run(&mut command, "componentize-py", "remove the toolchain's folder and try again")?;
    Ok(component)
}

fn build_javascript(directory: &Path, toolchains: &Toolchains<'_>) -> Result<PathBuf> {
    let home = toolchains.folder.join(format!("jco-{JCO}"));
    let program = home.join("node_modules/.bin/jco");
    if !program.is_file() {
        (toolchains.say)(&format!("fetching jco {JCO} from npm into {} (340 MB)", home.display()));
        fs::create_dir_all(&home).map_err(AuthorError::at(&home))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--ignore-scripts", "--no-fund", "--no-audit", "--silent", "--prefix"])
            .arg(&home);
        run(
            npm.arg(format!("@bytecodealliance/jco@{JCO}")),
            "npm install",
            "install Node 20 or newer, with npm",
        )?;
    }
    let (wit, world) = interface(directory, toolchains)?;
    let component = directory.join("component.wasm");
    let mut command = Command::new(&program);
    command.current_dir(directory).args([
        "componentize",
        "app.js",
        "--backend",
        "qjs",
        "--world-name",
        world,
    ]);
    command.args(["--backend-qjs-stub-wasi", "--backend-qjs-disable-async", "--wit"]).arg(wit);
    run(command.arg("-o").arg(&component), "jco componentize", "install Node 20 or newer")?;
    Ok(component)
}

/// Folder of the interface, the project's own or this program's, and the world that the manifest asks for.
fn interface(directory: &Path, toolchains: &Toolchains<'_>) -> Result<(PathBuf, &'static str)> {
    let own = directory.join("wit");
    let folder = if own.is_dir() {
        own
    } else {
        let folder = toolchains.folder.join("wit-v0.1");
        fs::create_dir_all(&folder).map_err(AuthorError::at(&folder))?;
        for (name, text) in templates::wit() {
            let path = folder.join(name);
            fs::write(&path, text).map_err(AuthorError::at(&path))?;
        }
        folder
    };
    Ok((folder, world_name(&manifest_of(directory)?)))
}

fn world_name(manifest: &Manifest) -> &'static str {
    let world = match manifest.plugin.kind {
        PluginKind::Sink => World::Sink { reveal: manifest.capabilities.reveal },
        PluginKind::Resolver => World::Resolver,
    };
    match world {
        World::Sink { reveal: false } => "sink-plugin",
        World::Sink { reveal: true } => "sink-plugin-reveal",
        World::Resolver => "secret-resolver",
    }
}

fn not_started(program: &str, advice: &str, error: &std::io::Error) -> AuthorError {
    AuthorError::Project(format!("{program} did not start ({error}): {advice}"))
}

/// What it prints goes to standard error: standard output is the command's own.
fn run(command: &mut Command, program: &str, advice: &str) -> Result<()> {
    command.stdout(std::io::stderr());
    let status = command.status().map_err(|error| not_started(program, advice, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(AuthorError::Program { program: program.to_owned(), code: status.code() })
}
