//! `lizctl top` on a terminal: what it shows, and that the terminal is as before afterwards.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::harness::World;
use crate::harness::process::{PATIENCE, program};
use crate::harness::world::Holder;
use crate::page::fleet::{SentHost, fill};

/// Columns and rows.
const SIZE: (u16, u16) = (80, 24);

/// A shell on a terminal of its own, made by script(1).
struct OnTerminal {
    child: Child,
    keys: ChildStdin,
    chunks: Receiver<Vec<u8>>,
    shown: String,
}

impl OnTerminal {
    /// Runs `top`, then says how the terminal is set.
    fn start(world: &World, holder: &Holder, (columns, rows): (u16, u16)) -> Self {
        let top = program("lizctl");
        let mut command = Command::new("script");
        let line =
            format!("stty columns {columns} rows {rows}; \"$LIZCTL\" top; echo ended $?; stty -a");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        for (name, value) in top.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let mut child = command
            .env("LIZCTL", top.get_program())
            .env("TERM", "xterm-256color")
            .env("LIZMON_RECEIVER", world.issuer())
            .env("LIZMON_CERT", &holder.cert)
            .env("LIZMON_KEY", &holder.key)
            .env("LIZMON_CA", world.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script(1) of util-linux");
        let mut output = child.stdout.take().expect("stdout is piped");
        let (send, chunks) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            keys: child.stdin.take().expect("stdin is piped"),
            child,
            chunks,
            shown: String::new(),
        }
    }

    /// Waits until this is written, after what was waited for before.
    /// Returns what came until then.
    #[track_caller]
    #[expect(
        clippy::disallowed_methods,
        reason = "programs under test run in real time"
    )]
    fn wait_for(&mut self, text: &str) -> String {
        // It is drawn again each second: what does not come must end, too.
        let by = Instant::now() + PATIENCE;
        loop {
            if let Some((until, rest)) = self.shown.split_once(text) {
                let until = until.to_owned();
                self.shown = rest.to_owned();
                return until;
            }
            match self
                .chunks
                .recv_timeout(by.saturating_duration_since(Instant::now()))
            {
                Ok(chunk) => self.shown.push_str(&String::from_utf8_lossy(&chunk)),
                Err(why) => panic!("no {text:?} ({why}): {:?}", self.shown),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it reads keys");
        self.keys.flush().expect("it reads keys");
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_hosts_and_errors_and_leaves_the_terminal_as_it_was() {
    let mut world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let body = r#"{"cpu":4.98,"=cmd <b>漢字</b>":1}"#;
    world
        .post(&node, &token, &path, body)
        .await
        .no_content("a sample");
    let mut top = OnTerminal::start(&world, &reader, SIZE);
    // The other screen, and then the host.
    top.wait_for("\u{1b}[?1049h");
    top.wait_for("web1");
    top.wait_for("5 %");
    top.press("\r");
    top.wait_for("=cmd <b>");
    world.stop().await;
    top.wait_for("! https://");
    world.boot_on_same_port().await;
    // It asks again by itself, and takes the error away.
    top.wait_for("q quit");
    top.press("q");
    top.wait_for("\u{1b}[?1049l");
    top.wait_for("ended 0");
    top.wait_for(" icanon");
    top.wait_for(" echo ");
}

/// More than anybody has seen of one receiver: a screenful of them is drawn, and every one is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_screenful_of_many_hosts() {
    const HOSTS: usize = 5_000;
    let mut world = World::without_receiver(|_| ());
    let now = world.clock.now();
    let host = |number: usize| SentHost {
        name: format!("host-{number:04}"),
        certificate_end: now + 60 * 86_400,
        records: vec![(
            now,
            (0..10).map(|at| (number * 7 % 89 + at) as f64).collect(),
        )],
        labels: (0..10).map(|at| format!("label-{at}")).collect(),
    };
    let hosts: Vec<_> = (0..HOSTS).map(host).collect();
    fill(&world, &hosts);
    world.boot_on_same_port().await;
    let reader = world.reader();
    let mut top = OnTerminal::start(&world, &reader, SIZE);
    top.wait_for("5000 hosts, 0 silent");
    let first = top.wait_for("q quit");
    let drawn = first.matches("host-").count();
    assert_eq!(drawn, usize::from(SIZE.1) - 3, "{first:?}");
    // The last one, and by a filter one in the middle. Only what differs is drawn.
    top.press("G");
    top.wait_for("4999");
    top.press("/HOST-27");
    top.wait_for("with \"HOST-27");
    top.press("18\r\r");
    top.wait_for("label-0");
    top.press("q");
    top.wait_for("ended 0");
}

/// Without a terminal there is another command.
#[test]
fn a_pipe_is_no_terminal() {
    let done = crate::harness::process::run(program("lizctl").arg("top"));
    done.failure(2);
    assert!(done.stderr.contains("lizctl hosts"), "{}", done.stderr);
}
