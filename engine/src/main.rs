//! The binary `floodmark`.

fn main() -> std::process::ExitCode {
    engine::main()
}
