//! How many instructions requests take of a receiver, beside limits: a gate for speed on machines
//! that are too noisy for clocks.
//!
//! A receiver runs in a process of its own under valgrind, which counts; real TLS, real SQLite. A
//! run with some requests of one kind is compared with a run without them. The build is that of the
//! tests, so the figures are for comparison alone: what a request costs is in docs/performance.md.
//!
//! gungraun counts what one thread does between two points. A request passes several threads here,
//! and most of what it costs is between them, so valgrind is run on the whole process.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "it is a test program with its own main function, to be its own server"
)]

mod limits;
mod requests;
mod server;

use std::path::Path;
use std::process::ExitCode;

use self::limits::Limits;
use self::requests::{Kind, Nodes};
use self::server::Server;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, folder] = &args[..]
        && word == server::SERVE
    {
        server::serve(Path::new(folder));
        return ExitCode::SUCCESS;
    }
    // `cargo test FILTER` runs every program with the filter.
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_asked = |kind: &Kind| {
        filters.is_empty() || filters.iter().any(|filter| kind.name().contains(*filter))
    };
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(is_asked).collect();
    let counted = match kinds.is_empty() || args.iter().any(|arg| arg == "--list") {
        true => Vec::new(),
        false => count(&kinds),
    };
    let limits = Limits::read();
    let refused: Vec<_> = counted
        .iter()
        .filter_map(|(kind, instructions)| limits.check(kind.name(), *instructions).err())
        .collect();
    for reason in &refused {
        println!("{reason}");
    }
    let passed = counted.len() - refused.len();
    let verdict = if refused.is_empty() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        refused.len()
    );
    match refused.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Instructions of one request of each kind.
fn count(kinds: &[Kind]) -> Vec<(Kind, u64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = Nodes::new(folder.path());
    let run = |kind: Option<Kind>| {
        let server = Server::start(folder.path());
        nodes.send(server.address(), kind);
        server.instructions()
    };
    let without = run(None);
    let each = |kind: &Kind| {
        let more = run(Some(*kind)).saturating_sub(without);
        let instructions = more / kind.times();
        println!("{:12} {instructions} instructions", kind.name());
        (*kind, instructions)
    };
    kinds.iter().map(each).collect()
}
