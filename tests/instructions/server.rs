//! A receiver in a process of its own, under valgrind.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lizmon_mtls::trust::TrustFiles;
use lizmon_receiver::{Clock, Clocks, Config, Receiver};
use rustix::process::{Pid, Signal, kill_process};

use crate::requests::now;

/// The first argument of the process that serves.
pub(crate) const SERVE: &str = "serve";

/// Serves until it is ended by a signal.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve(folder: &Path) {
    let certs = folder.join("certs");
    let files = TrustFiles {
        cert: certs.join("receivers/rx.crt"),
        key: certs.join("receivers/rx.key"),
        ca: certs.join("root.crt"),
        crl: certs.join("crl.pem"),
    };
    let data = tempfile::tempdir_in(folder).expect("a folder");
    let config = Config::new(files, data.path().to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let clock: Clock = Arc::new(now);
    let receiver = Receiver::start(listener, config, Clocks::of_one(clock)).await;
    let receiver = receiver.expect("a receiver");
    println!("{address}");
    std::io::stdout().flush().expect("the parent reads");
    receiver.run(std::future::pending()).await.expect("served");
}

pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        let log = folder.join("valgrind.log");
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new("valgrind")
            .args([
                "--tool=cachegrind",
                "--cache-sim=no",
                "--cachegrind-out-file=/dev/null",
            ])
            .arg(program)
            .arg(SERVE)
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("valgrind runs: install it, or use ./tests/run");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output");
        let read = BufReader::new(stdout).read_line(&mut line);
        let address = read.ok().and_then(|_| line.trim().parse().ok());
        let Some(address) = address else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            panic!("the receiver did not start under valgrind: {line}{said}");
        };
        Self {
            child,
            address,
            log,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: how many instructions it has run in all.
    pub(crate) fn instructions(mut self) -> u64 {
        self.end();
        let said = std::fs::read_to_string(&self.log).expect("its log");
        let mut lines = said.lines();
        let count = lines.find_map(|line| Some(line.split_once("I   refs:")?.1));
        let count = count.unwrap_or_else(|| panic!("valgrind counted nothing: {said}"));
        let digits: String = count.chars().filter(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ended_before = kill_process(pid, Signal::TERM);
        let _reaped = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.end();
        }
    }
}
