//! Ten minutes of what nobody should send, against the shipped receiver: its memory stays what it
//! was.
//!
//! ```text
//! cargo build --release -p lizmon-receiver
//! cargo bench -p lizmon-benches --profile release --bench hostile -- [SECONDS] [SECONDS BETWEEN ROWS]
//! ```
//!
//! Several kinds of hostility go on side by side, each in tasks of its own: see [`hostilities`].
//! Prints VmRSS of the receiver's process as the rows of a table, and fails where it has grown
//! since the end of the first tenth by more than [`GROWTH_KIB_MAX`]. Linux only.

#![expect(clippy::disallowed_methods, reason = "a benchmark runs in real time")]

mod enemies;
mod hostilities;
mod server;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lizmon_ca::authority::{Authority, InitOptions};
use tokio::time::{Instant, sleep};

use self::enemies::Enemies;
use self::hostilities::hostilities;
use self::server::{Server, now};

/// What a process may grow by once it is warm: allocators keep some of what was freed.
const GROWTH_KIB_MAX: u64 = 32 << 10;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<u64> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .map(|arg| arg.parse().context("SECONDS"))
        .collect::<Result<_>>()?;
    let lasting = Duration::from_secs(args.first().copied().unwrap_or(600));
    let row_every = Duration::from_secs(args.get(1).copied().unwrap_or(60));
    let folder = tempfile::tempdir().context("a folder")?;
    let authority = Authority::init(&folder.path().join("certs"), &InitOptions::default(), now())
        .context("a CA")?;
    let mut server = Server::start(folder.path(), &authority)?;
    let enemies = Enemies::new(&server, folder.path(), &authority).await?;
    watch(&mut server, enemies, lasting, row_every).await
}

async fn watch(
    server: &mut Server,
    enemies: Enemies,
    lasting: Duration,
    row_every: Duration,
) -> Result<()> {
    let begun = Instant::now();
    let before = server.rss_kib()?;
    println_row(&[
        "minutes",
        "VmRSS, MiB",
        "requests",
        "handshakes refused",
        "connections half open",
    ]);
    println_row(&["---"; 5]);
    let row = |rss: u64, enemies: &Enemies| {
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        let [requests, refused, half_open] = enemies.counts.all();
        println_row(&[
            &format!("{minutes:.1}"),
            &format!("{:.1}", rss as f64 / 1024.0),
            &requests.to_string(),
            &refused.to_string(),
            &half_open.to_string(),
        ]);
    };
    row(before, &enemies);
    let tasks = hostilities(&enemies);
    let mut warm = None;
    while begun.elapsed() < lasting {
        sleep(row_every.min(lasting.saturating_sub(begun.elapsed()))).await;
        let rss = server.rss_kib()?;
        row(rss, &enemies);
        if warm.is_none() && begun.elapsed() * 10 >= lasting {
            warm = Some(rss);
        }
        if let Some(task) = tasks.iter().find(|task| task.is_finished()) {
            bail!("a client gave up: {task:?}");
        }
    }
    for task in &tasks {
        task.abort();
    }
    sleep(row_every.min(Duration::from_secs(15))).await;
    let after = server.rss_kib()?;
    row(after, &enemies);
    eprintln!("{}", enemies.counts.statuses());
    enemies.check_honest_client().await?;
    let warm = warm.unwrap_or(after);
    ensure!(
        after <= warm + GROWTH_KIB_MAX,
        "the receiver has grown from {warm} KiB to {after} KiB"
    );
    Ok(())
}

fn println_row(cells: &[&str]) {
    eprintln!("| {} |", cells.join(" | "));
}
