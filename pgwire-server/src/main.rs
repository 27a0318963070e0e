//! The process `sepal`. Everything is in the library, so that tests and the demo run the same code.

fn main() -> std::process::ExitCode {
    let first_argument = std::env::args_os().nth(1);
    if let Some(code) = sepal_pgwire_server::plugins::child_main(first_argument.as_deref()) {
        return code;
    }
    sepal_pgwire_server::cli::run()
}

// With `--all-features` it would store everything in plain text, and nothing would tell.
const _: () =
    assert!(sepal_database::sealing::SEALS, "built with the feature null-cipher, sepal would seal nothing");
