//! What is told of a panic: where it was, and nothing of its message, which may quote what a client sent (P2).

use std::io::Write as _;
use std::panic::PanicHookInfo;

/// Replaces the process' panic hook, for every thread and every command.
pub fn hide_messages() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(info: &PanicHookInfo<'_>) {
    let (file, line) = info.location().map_or(("unknown", 0), |at| (at.file(), at.line()));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(file, line, thread, "panicked: the message is not told, for it may quote a payload");
    } else {
        // A command without a log: the person at the terminal is told as little.
        let _ = writeln!(std::io::stderr(), "floodmark: panicked at {file}:{line}; this is a bug");
    }
}
