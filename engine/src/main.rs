//! The binary `floodmark`.

/// Many small allocations of many sizes on many threads: what mimalloc is for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    engine::main()
}
