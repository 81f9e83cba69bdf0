//! curl, as a person would use it.

use std::process::Command;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::answer::Answer;
use super::process;
use super::world::{Holder, World};

/// Runs curl with the holder's certificate as in the manual, and parses its output.
#[track_caller]
pub(crate) fn curl(
    world: &World,
    holder: Option<&Holder>,
    arguments: &[&str],
    path: &str,
) -> Answer {
    let mut command = Command::new("curl");
    // -q: no ~/.curlrc. The other flags are what a monitor written with curl needs.
    command.args([
        "-q",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "30",
    ]);
    command.args(["--http1.1", "--noproxy", "*"]);
    command.arg("--cacert").arg(world.root());
    if let Some(holder) = holder {
        command
            .arg("--cert")
            .arg(&holder.cert)
            .arg("--key")
            .arg(&holder.key);
    }
    command.args(arguments).arg(world.url(path));
    let finished = process::run(&mut command);
    parse(&finished.success())
}

/// A response as printed by `--include`, in HTTP/1.1 format.
pub(crate) fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    // With `Expect: 100-continue` the answer begins with 100 Continue.
    if head.starts_with("HTTP/1.1 100") {
        return parse(body);
    }
    let mut lines = head.lines();
    let status = lines.next().expect("a status line");
    let status = status.split(' ').nth(1).expect("HTTP/1.1 STATUS REASON");
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("NAME: VALUE");
        let name: HeaderName = name.parse().expect("a header's name");
        headers.append(
            name,
            HeaderValue::from_str(value).expect("a header's value"),
        );
    }
    Answer {
        status: status.parse().expect("a status"),
        headers,
        body: body.as_bytes().to_vec(),
    }
}
