//! A receiver: TLS, its clock and its health, then a token, reading and writing.

use std::time::Duration;

use lizmon_client::{BaseUrl, Client, ConnectError, ConnectFailure, Error};
use lizmon_pki::credentials::LoadedCredentials;
use lizmon_pki::error_chain::in_one_line;
use lizmon_protocol::name::{NodeName, Role, TagFilter};
use lizmon_protocol::problem::{Code, Problem};
use lizmon_protocol::route;
use lizmon_protocol::sample::{Batch, EncodedSamples, ProducerId};
use lizmon_protocol::summary::Summaries;
use lizmon_protocol::token::Scopes;
use lizmon_transport::ServerClock;
use lizmon_transport::https::{https_client, server_clock};
use serde::Deserialize;

use super::network;
use super::report::{Report, Subject};
use super::target::Target;

/// A difference of clocks that a synchronized machine does not have.
const SKEW_WARNING_SECS: f64 = 5.0;
/// From here on a monitor stamps its samples by the receivers' clock, and what others send is
/// refused soon.
const SKEW_FAILURE_SECS: f64 = 100.0;
/// A monitor sends each second: after this its samples are late.
const LATE_SECS: u64 = 180;

/// What one receiver is asked with.
pub(super) struct ReceiverCheck<'c> {
    pub(super) url: &'c BaseUrl,
    pub(super) target: &'c Target,
    pub(super) loaded: Option<&'c LoadedCredentials>,
    pub(super) now: u64,
    /// Time since 1970 with its fraction.
    pub(super) stopwatch: fn() -> Duration,
}

impl ReceiverCheck<'_> {
    /// All steps in turn. One that fails ends those that need it.
    pub(super) async fn run(&self, report: &mut Report) {
        if !network::check(self.url, Subject::Receiver, report).await {
            return;
        }
        let Some(loaded) = self.loaded else {
            return report.skipped(
                Subject::Receiver,
                format_args!(
                    "{} listens; TLS and what follows need certificate, key and root",
                    self.url
                ),
            );
        };
        if self.check_health(loaded, report).await {
            self.check_client(loaded, report).await;
        }
    }

    /// TLS without our certificate, then clock and health. Returns whether it is a receiver.
    async fn check_health(&self, loaded: &LoadedCredentials, report: &mut Report) -> bool {
        let began = (self.stopwatch)();
        let answer = match self.get(loaded, route::HEALTHZ).await {
            Ok(answer) => answer,
            Err(error) => {
                connection_failed(&error, Subject::Receiver, report);
                return false;
            }
        };
        let middle = (began + (self.stopwatch)()) / 2;
        let Some(health) = serde_json::from_slice::<Health>(&answer.body).ok() else {
            report.failed(
                Subject::Receiver,
                "no-receiver",
                format_args!(
                    "{} is no receiver: {} answers {}",
                    self.url,
                    route::HEALTHZ,
                    answer.status
                ),
                "check name and port: a receiver listens on 8443 by default, liz-ca on 8444",
            );
            return false;
        };
        self.check_clock(answer.clock, middle, report);
        for warning in &health.warnings {
            report.warning(
                Subject::Receiver,
                "receiver-warns",
                format_args!("{} warns: {warning}", self.url),
                "docs/operating.md, Alarms, says what each of these means",
            );
        }
        match self.get(loaded, route::READYZ).await {
            Ok(ready) if ready.status == 200 => report.ok(
                Subject::Receiver,
                format_args!("{} is trusted, up, and can store", self.url),
            ),
            Ok(ready) => {
                let problem = serde_json::from_slice::<Problem>(&ready.body).ok();
                let code = problem
                    .as_ref()
                    .map_or("not_ready", |problem| problem.code.as_str());
                let detail = problem
                    .and_then(|problem| problem.detail)
                    .unwrap_or_default();
                report.failed(
                    Subject::Receiver,
                    "not-ready",
                    format_args!("{} is not ready: {code} {detail}", self.url),
                    "on its machine: lizctl doctor --config /etc/lizmon/receiver.toml, and its log",
                );
            }
            Err(error) => connection_failed(&error, Subject::Receiver, report),
        }
        true
    }

    fn check_clock(&self, clock: Option<ServerClock>, here: Duration, report: &mut Report) {
        let Some(clock) = clock else {
            return report.skipped(Subject::Clock, format_args!("{} sends no time", self.url));
        };
        let ahead = here.as_secs_f64() - clock.at.as_secs_f64();
        let word = if ahead < 0.0 { "behind" } else { "ahead of" };
        let what = format!(
            "this clock is {:.1} s {word} that of {}",
            ahead.abs(),
            self.url
        );
        let remedy = "synchronize both machines: timedatectl set-ntp true, or chrony; `timedatectl` tells which one is wrong";
        if ahead.abs() >= SKEW_FAILURE_SECS {
            report.failed(Subject::Clock, "clocks-differ", what, remedy);
        } else if ahead.abs() >= SKEW_WARNING_SECS {
            report.warning(Subject::Clock, "clocks-differ", what, remedy);
        } else {
            report.ok(Subject::Clock, what);
        }
    }

    async fn get(
        &self,
        loaded: &LoadedCredentials,
        path: &str,
    ) -> Result<PlainAnswer, ConnectError> {
        let failed =
            |error| ConnectError::from_transport(self.url, error, || loaded.own.state(self.now));
        let http = https_client(loaded.anonymous.clone()).map_err(failed)?;
        let url = format!("{}{path}", self.url);
        let response = http.get(url).send().await.map_err(failed)?;
        Ok(PlainAnswer {
            status: response.status().as_u16(),
            clock: server_clock(&response),
            body: response.bytes().await.map_err(failed)?.to_vec(),
        })
    }

    /// With our certificate: a token, then what its role may do.
    async fn check_client(&self, loaded: &LoadedCredentials, report: &mut Report) {
        let role = loaded.identity.role;
        if Scopes::of(role).is_empty() {
            return report.skipped(
                Subject::Token,
                format_args!("the role {role} gets no token: run this as a node, a reader or an operator as well"),
            );
        }
        let Some(credentials) = self.target.credentials() else {
            return;
        };
        let client = match Client::new(self.url.clone(), &credentials, self.now) {
            Ok(client) => client,
            // Found with the files, such as an ended certificate.
            Err(error) => return report.skipped(Subject::Token, in_one_line(&error)),
        };
        match client.token(None, self.now).await {
            Ok(token) => report.ok(
                Subject::Token,
                format_args!(
                    "{} gives a token for {}, {} s long",
                    self.url, token.scope, token.expires_in
                ),
            ),
            Err(error) => return request_failed(&error, Subject::Token, report),
        }
        match role {
            Role::Node => {
                self.check_node(&client, &loaded.identity.name, report)
                    .await
            }
            Role::Gateway => report.skipped(
                Subject::Write,
                "a gateway writes for the hosts that its certificate names: try one with `lizctl push`",
            ),
            _ => self.check_reader(&client, role, report).await,
        }
    }

    /// A node reads its own summaries, and sends a batch of no records.
    async fn check_node(&self, client: &Client, host: &NodeName, report: &mut Report) {
        match client.summaries(host, Some("by-minute"), self.now).await {
            Ok(summaries) => self.check_age(&summaries, host, report),
            Err(error) if error.code() == Some(Code::UnknownHost) => report.warning(
                Subject::Read,
                "no-samples",
                format_args!("{} has no samples of {host}", self.url),
                "start liz-monitor, and look at its log: systemctl status lizmon-monitor",
            ),
            Err(error) => request_failed(&error, Subject::Read, report),
        }
        let nothing: Batch<EncodedSamples> = Batch {
            // One that no spool has. The receiver keeps nothing of it.
            producer: ProducerId::from_bytes([0; 16]),
            records: Vec::new(),
            dropped: Vec::new(),
            repair: false,
        };
        match client.publish_batch(host, &nothing, self.now).await {
            Ok(_) => report.ok(
                Subject::Write,
                format_args!(
                    "{} takes samples of {host}: a batch of no records was accepted",
                    self.url
                ),
            ),
            Err(error) => request_failed(&error, Subject::Write, report),
        }
    }

    fn check_age(&self, summaries: &Summaries, host: &NodeName, report: &mut Report) {
        let newest = summaries.values().filter_map(|summary| {
            let newest = summary.averages.last()?.end_sec;
            Some((summary.end.saturating_sub(newest), summary.end))
        });
        match newest.min() {
            Some((late, _)) if late < LATE_SECS => report.ok(
                Subject::Read,
                format_args!("{} has samples of {host}, the newest of this minute or the last", self.url),
            ),
            Some((late, _)) => report.warning(
                Subject::Read,
                "samples-late",
                format_args!("{} has no sample of {host} for {late} s", self.url),
                "is liz-monitor running, and what does its log say? systemctl status lizmon-monitor",
            ),
            None => report.warning(
                Subject::Read,
                "samples-late",
                format_args!("{} has no sample of {host} of the last hour", self.url),
                "is liz-monitor running, and what does its log say? systemctl status lizmon-monitor",
            ),
        }
    }

    async fn check_reader(&self, client: &Client, role: Role, report: &mut Report) {
        match client.hosts(&TagFilter::default(), self.now).await {
            Ok(hosts) => {
                let silent = hosts.hosts.iter().filter(|host| host.silent).count();
                report.ok(
                    Subject::Read,
                    format_args!(
                        "{} lists {} hosts, {silent} of them silent",
                        self.url,
                        hosts.hosts.len()
                    ),
                );
            }
            Err(error) => request_failed(&error, Subject::Read, report),
        }
        if role == Role::Operator {
            match client.certificates(self.now).await {
                Ok(_) => report.ok(
                    Subject::Read,
                    format_args!(
                        "{} lets an operator see the certificates that were shown there",
                        self.url
                    ),
                ),
                Err(error) => request_failed(&error, Subject::Read, report),
            }
        }
        report.skipped(
            Subject::Write,
            format_args!("the role {role} sends no samples"),
        );
    }
}

struct PlainAnswer {
    status: u16,
    clock: Option<ServerClock>,
    body: Vec<u8>,
}

/// The body of `/healthz`.
#[derive(Debug, Deserialize)]
struct Health {
    #[serde(rename = "status")]
    _status: String,
    #[serde(default)]
    warnings: Vec<String>,
}

/// A connection was not made, or was refused.
pub(super) fn connection_failed(error: &ConnectError, subject: Subject, report: &mut Report) {
    let (code, remedy) = match error {
        ConnectError::ServerNotTrusted { .. } => (
            "server-not-trusted",
            "compare the roots: lizctl inspect on the file of roots here, and on that of the server; compare the clocks",
        ),
        ConnectError::CertificateRefused { .. } => (
            "certificate-refused",
            "the message has the reason; if it is revoked or ended, join again with a new token",
        ),
        ConnectError::Unreachable { failure, .. } => match failure {
            ConnectFailure::Tls => (
                "no-tls",
                "check the port; the server may accept TLS 1.3 alone (--tls-min)",
            ),
            _ => (
                "connection-broken",
                "try again; if it stays, the server's log says why",
            ),
        },
    };
    report.failed(subject, code, in_one_line(error), remedy);
}

/// A request was refused.
fn request_failed(error: &Error, subject: Subject, report: &mut Report) {
    let (code, remedy) = match error {
        Error::Connect(error) => return connection_failed(error, subject, report),
        Error::IsCa { .. } => ("no-receiver", "give the receiver's port, 8443 by default"),
        Error::NoToken { .. } => (
            "no-token",
            "does this receiver serve the trust domain of the certificate, and is the role one of a client?",
        ),
        error => match error.code() {
            Some(Code::CrlExpired) => (
                "crl-expired",
                "sign new CRLs: lizctl sign-crl on the CA's machine, and lizctl sign-crl --receiver URL pushes them",
            ),
            Some(Code::RateLimited | Code::Overloaded | Code::StoreUnavailable) => {
                ("busy", "the receiver's log and /metrics say what it lacks")
            }
            _ => (
                "refused",
                "the message has the reason; the receiver's log says more",
            ),
        },
    };
    report.failed(subject, code, in_one_line(error), remedy);
}
