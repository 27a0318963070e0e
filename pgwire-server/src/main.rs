//! The process `sepal`. Everything is in the library, so that tests and the demo run the same code.

fn main() -> std::process::ExitCode {
    sepal_pgwire_server::cli::run()
}
