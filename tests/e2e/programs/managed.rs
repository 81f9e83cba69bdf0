//! What service and container managers give the programs, and ask of them: a socket that outlives
//! them, a watchdog, a health check.

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::crash::{receiver_command, started};
use crate::harness::World;
use crate::harness::process::{PATIENCE, Running, liz_ca, program, run};

/// Starts the command as a service manager does: this is its descriptor 3, and `LISTEN_PID` is its
/// process.
fn handed(command: &Command, socket: impl Into<OwnedFd>, count: usize) -> Command {
    let mut shell = Command::new("sh");
    let exec = r#"exec 3<&0 4<&0 0</dev/null; LISTEN_FDS=$0 LISTEN_PID=$$ exec "$@""#;
    shell.args(["-c", exec, &count.to_string()]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::from(socket.into()));
    shell
}

/// The socket stays, so that connections wait in it while the receiver restarts.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_handed_socket_refuses_no_connection() {
    let mut world = World::without_receiver(|_| ());
    let node = world.node("a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = || listener.try_clone().unwrap();
    let command = receiver_command(&world);
    let mut running = started(&mut world, &mut handed(&command, socket(), 1));
    assert_eq!(world.port(), listener.local_addr().unwrap().port());
    let token = world.token(&node).await;
    let (world, stop) = (Arc::new(world), Arc::new(AtomicBool::default()));
    let answered = Arc::new(AtomicU64::default());
    let clients = (0..4).map(|_| {
        let (world, stop, answered) = (world.clone(), stop.clone(), answered.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // A client of its own has a connection of its own.
                let client = world.client(None, &["http/1.1"]);
                let got = client.get(world.url("/healthz")).send().await;
                assert_eq!(got.expect("an answer").status(), 200);
                answered.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for _restart in 0..3 {
        let before = answered.load(Ordering::SeqCst);
        while answered.load(Ordering::SeqCst) < before + 8 {
            tokio::task::yield_now().await;
        }
        running.signal(Signal::TERM);
        let done = tokio::task::spawn_blocking(|| running.wait())
            .await
            .unwrap();
        assert!(done.status.success(), "{}", done.stderr);
        running = Running::start(&mut handed(&command, socket(), 1));
        running.wait_for("READY");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no connection was refused");
    }
    let path = format!("/api/perf/a/{}", world.clock.now());
    let sample = world.post(&node, &token, &path, r#"{"cpu":1}"#).await;
    sample.no_content("the token is still good");
}

#[test]
fn what_is_no_tcp_listener_is_refused() {
    let world = World::without_receiver(|_| ());
    let command = receiver_command(&world);
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = listener();
    let stream = TcpStream::connect(busy.local_addr().unwrap()).unwrap();
    let cases: [(OwnedFd, usize, &str); 6] = [
        (
            File::open("/dev/null").unwrap().into(),
            1,
            "not a TCP socket",
        ),
        (
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            1,
            "not a TCP socket",
        ),
        (
            UnixListener::bind(world.folder().join("unix"))
                .unwrap()
                .into(),
            1,
            "not a TCP socket",
        ),
        (stream.into(), 1, "does not listen"),
        (listener().into(), 2, "2 sockets were handed over"),
        (listener().into(), 3, "3 sockets were handed over"),
    ];
    for (socket, count, why) in cases {
        let done = run(&mut handed(&command, socket, count));
        let said = done.failure(1);
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// Variables that were left by a program that did not clear them name another process.
#[test]
fn a_socket_of_another_process_is_not_taken() {
    let world = World::without_receiver(|_| ());
    let mut command = receiver_command(&world);
    let other = std::process::id().to_string();
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", other);
    let mut running = Running::start(&mut command);
    running.wait_for("READY");
    running.kill();
}

/// A monitor of this world's host `a`.
fn monitor(world: &World) -> Command {
    let node = world.node("a");
    let mut command = program("liz-monitor");
    command.args(["--this-host", "a", "--publish"]);
    command.arg(world.url("/api/perf"));
    command
        .arg("--cert")
        .arg(&node.cert)
        .arg("--key")
        .arg(&node.key);
    command.arg("--ca").arg(world.trust_files().ca);
    command
}

#[test]
fn programs_feed_the_watchdog() {
    let world = World::without_receiver(|_| ());
    for command in [
        receiver_command(&world),
        monitor(&world),
        liz_ca(world.certs()),
    ] {
        let (mut is_ready, mut fed) = (false, 0);
        listen_to(&world, command, |said| {
            is_ready |= said.contains("READY=1");
            fed += usize::from(said.contains("WATCHDOG=1"));
            fed >= 2 && is_ready
        });
    }
}

/// Each sample tells that a monitor works, but samples may be rare.
#[test]
fn a_monitor_feeds_it_between_rare_samples() {
    let world = World::without_receiver(|_| ());
    let mut command = monitor(&world);
    command.env("LIZMON_INTERVAL", "3600");
    listen_to(&world, command, |said| said.contains("WATCHDOG=1"));
}

/// Until `is_enough` of what the program tells the service manager.
fn listen_to(world: &World, mut command: Command, mut is_enough: impl FnMut(&str) -> bool) {
    let name = command.get_program().to_owned();
    let path = world.folder().join("notify");
    let _none_yet = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    command.env("NOTIFY_SOCKET", &path);
    let running = Running::start(command.env("WATCHDOG_USEC", "300000"));
    loop {
        let mut bytes = [0; 256];
        let length = socket
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("{name:?}: {error}"));
        if is_enough(&String::from_utf8_lossy(&bytes[..length])) {
            break;
        }
    }
    running.kill();
}

#[test]
fn health_tells_whether_a_program_works() {
    let world = World::without_receiver(|_| ());
    for mut command in [
        receiver_command(&world),
        monitor(&world),
        liz_ca(world.certs()),
    ] {
        let name = command.get_program().to_owned();
        let file = world.folder().join("health");
        let _none_yet = std::fs::remove_file(&file);
        let health = |file: &Path| {
            run(Command::new(&name)
                .args(["health", "--health-file"])
                .arg(file))
        };
        assert!(
            health(&file)
                .failure(1)
                .contains("not ready, or does not run")
        );
        let mut running = Running::start(command.env("LIZMON_HEALTH_FILE", &file));
        running.wait_for("READY");
        while !health(&file).status.success() {
            std::thread::yield_now();
        }
        running.kill();
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let written = File::options().write(true).open(&file).unwrap();
        written.set_modified(long_ago).unwrap();
        assert!(health(&file).failure(1).contains("silent"));
        let nowhere = run(Command::new(&name).arg("health"));
        assert!(nowhere.failure(1).contains("--health-file"));
    }
}

/// Who can write to the file's folder could make a program write anywhere.
#[test]
fn a_link_in_place_of_the_health_file_is_not_followed() {
    let world = World::without_receiver(|_| ());
    let (victim, file) = (world.folder().join("victim"), world.folder().join("health"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    let mut running = Running::start(monitor(&world).env("LIZMON_HEALTH_FILE", &file));
    running.wait_for("`health` will fail");
    running.kill();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn every_program_has_manual_pages() {
    let folder = tempfile::tempdir().unwrap();
    for (name, flag) in [
        ("liz-receiver", "connection-age"),
        ("liz-summarizer", "store"),
        ("liz-monitor", "keep-acknowledged"),
        ("liz-ca", "passphrase-file"),
        ("lizctl", "certs"),
    ] {
        run(program(name).arg("man").arg(folder.path())).success();
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        let flag = flag.replace('-', "\\-");
        assert!(page.contains(&flag), "{name}: {flag}");
    }
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(pages > 30, "one for each verb: {pages}");
}
