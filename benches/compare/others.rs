//! The monitor, and certificates in bulk.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lizmon_benches::program::{Program, built};
use lizmon_benches::{cpu, process};
use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_protocol::name::{NodeName, Role};
use tokio::time::Instant;

use crate::scene::{Placing, Scene, now};
use crate::server::{Kind, Server};

/// Before the monitor is measured: it connects, and its first samples start what reads slowly.
const MONITOR_WARM_UP: Duration = Duration::from_secs(5);
/// Threads that end are seen at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of certificates that are issued for a measurement.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// What a monitor used of a machine.
pub(crate) struct MonitorFigures {
    pub(crate) cpu_ms_per_sample: f64,
    pub(crate) rss_mib: f64,
    pub(crate) waits_per_sec: f64,
}

/// A monitor of cpu and mem each second, with a spool, publishing to a receiver.
pub(crate) fn monitor(scene: &Scene, lasting: Duration) -> Result<MonitorFigures> {
    let certs = scene.certs();
    let ca = Authority::open(&certs, now()).context("the CA")?;
    let request = Request::new(Role::Node, "monitored".parse().context("a name")?);
    ca.issue(request, now()).context("a certificate")?;
    let receiver = Server::start(Kind::Ours, scene)?;
    let spool = tempfile::tempdir_in(scene.folder()).context("a folder")?;
    let mut command = Command::new(built("liz-monitor")?);
    command
        .args([
            "--this-host",
            "monitored",
            "--collect",
            "cpu,mem",
            "--interval",
            "1",
        ])
        .arg("--publish")
        .arg(format!("https://{}/api/perf", receiver.address))
        .arg("--cert")
        .arg(certs.join("nodes/monitored.crt"))
        .arg("--key")
        .arg(certs.join("nodes/monitored.key"))
        .arg("--ca")
        .arg(certs.join("root.crt"))
        .arg("--spool")
        .arg(spool.path().join("spool"));
    let monitor = Program::start(command)?;
    std::thread::sleep(MONITOR_WARM_UP);
    let mut threads = process::Threads::of(monitor.pid());
    let (before, began) = (threads.look()?, Instant::now());
    while began.elapsed() < lasting {
        std::thread::sleep(LOOK_EVERY);
        threads.look()?;
    }
    let (after, secs) = (threads.look()?, began.elapsed().as_secs_f64());
    Ok(MonitorFigures {
        cpu_ms_per_sample: (after.cpu_nanos - before.cpu_nanos) as f64 / 1e6 / secs,
        rss_mib: process::rss_kib(monitor.pid())? as f64 / 1_024.0,
        waits_per_sec: (after.waits - before.waits) as f64 / secs,
    })
}

/// Certificates a second of CPU time, keys included, in memory.
pub(crate) fn issue_in_memory(count: u64) -> Result<f64> {
    let folder = tempfile::tempdir().context("a folder")?;
    let certs = folder.path().join("certs");
    let ca = Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
    let names: Vec<NodeName> = names(count)
        .map(|name| name.parse())
        .collect::<Result<_, _>>()?;
    let own_cpu = || cpu::secs(std::process::id());
    let before = own_cpu()?;
    let issued = ca.issue_in_memory(Role::Node, &names, LIFETIME, now())?;
    ensure!(issued.len() == names.len(), "{} issued", issued.len());
    Ok(count as f64 / (own_cpu()? - before))
}

/// Certificates a second on the clock, on one core, with their files: `lizctl issue-node --from`.
pub(crate) fn issue_to_disk(scene: &Scene, count: u64) -> Result<f64> {
    let folder = tempfile::tempdir_in(scene.folder()).context("a folder")?;
    let certs = folder.path().join("certs");
    Authority::init(&certs, &InitOptions::default(), now()).context("a CA")?;
    let list = folder.path().join("names");
    let text = names(count).map(|name| name + "\n").collect::<String>();
    std::fs::write(&list, text).context("a list")?;
    let began = Instant::now();
    let status = scene.on_server(Placing::Apart, || {
        let mut command = Command::new(built("lizctl")?);
        command.arg("issue-node").arg("--from").arg(&list);
        command.arg("--certs").arg(&certs).stdout(Stdio::null());
        command
            .stderr(Stdio::null())
            .status()
            .context("lizctl: is it built, with the same profile?")
    })?;
    let took = began.elapsed();
    let files = std::fs::read_dir(certs.join("nodes")).context("its files")?;
    let certificates = files
        .flatten()
        .filter(|file| {
            file.path()
                .extension()
                .is_some_and(|ending| ending == "crt")
        })
        .count();
    ensure!(
        status.success() && certificates as u64 == count,
        "lizctl issue-node: {status}"
    );
    Ok(count as f64 / took.as_secs_f64())
}

fn names(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|at| format!("bulk{at}"))
}
