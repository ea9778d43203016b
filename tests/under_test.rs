//! The engine's own `main`, as a binary of this package.

fn main() -> std::process::ExitCode {
    engine::main()
}
