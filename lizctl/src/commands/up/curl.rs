//! The same query as a curl command, for pasting into a shell.

use std::path::Path;

use anyhow::Context as _;
use lizmon_client::{BaseUrl, Credentials};
use lizmon_protocol::name::NodeName;
use lizmon_protocol::route;

use crate::output;

/// Prints the command that queries the summaries of this host.
pub(super) fn print(url: &BaseUrl, host: &NodeName, reader: &Credentials) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    output::line("The same by curl:")?;
    output::line(curl_line(&program, url, host, reader))?;
    output::line("")
}

/// One line that works in any folder for as long as this process runs: the token is fetched when
/// the line is run.
fn curl_line(program: &Path, url: &BaseUrl, host: &NodeName, reader: &Credentials) -> String {
    let [program, cert, key, ca] =
        [program, &reader.cert, &reader.key, &reader.ca].map(|path| path.display().to_string());
    let receiver = url.as_str();
    let token = shell_words::join([
        &program,
        "token",
        "--receiver",
        receiver,
        "--cert",
        &cert,
        "--key",
        &key,
        "--ca",
        &ca,
    ]);
    // curl treats the text after a colon as a password.
    let cert = cert.replace('\\', r"\\").replace(':', r"\:");
    let curl = shell_words::join(["curl", "--cacert", &ca, "--cert", &cert, "--key", &key]);
    let asked = format!("{receiver}{}", route::host(host));
    let asked = shell_words::quote(&asked);
    format!("{curl} -H \"Authorization: Bearer $({token})\" {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curl_line_can_be_pasted() {
        let reader = |folder: &str| Credentials {
            cert: format!("{folder}/a.crt").into(),
            key: format!("{folder}/a.key").into(),
            ca: format!("{folder}/root.crt").into(),
        };
        let check = |folder: &str, curl_cert: &str| {
            let url = "https://127.0.0.1:8443".parse().unwrap();
            let host = "web1".parse().unwrap();
            let line = curl_line(Path::new("/b in/lizctl"), &url, &host, &reader(folder));
            let (curl, rest) = line.split_once(" -H \"Authorization: Bearer $(").unwrap();
            let (token, asked) = rest.split_once(")\" ").unwrap();
            let [cert, key, ca] =
                ["a.crt", "a.key", "root.crt"].map(|name| format!("{folder}/{name}"));
            assert_eq!(
                shell_words::split(curl).unwrap(),
                ["curl", "--cacert", &ca, "--cert", curl_cert, "--key", &key]
            );
            assert_eq!(
                shell_words::split(token).unwrap(),
                [
                    "/b in/lizctl",
                    "token",
                    "--receiver",
                    "https://127.0.0.1:8443",
                    "--cert",
                    &cert,
                    "--key",
                    &key,
                    "--ca",
                    &ca
                ]
            );
            assert_eq!(asked, "https://127.0.0.1:8443/api/perf/web1");
        };
        check("/certs", "/certs/a.crt");
        check("/it's $HOME", "/it's $HOME/a.crt");
        check(r"/c:\d", r"/c\:\\d/a.crt");
    }
}
