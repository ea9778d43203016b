//! The command line starts here.

fn main() -> std::process::ExitCode {
    engine::cli::main()
}
