//! Channels: how alarms are told.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

use super::duration::duration;
use super::error::{RulesError, Source};
use crate::template;

/// How long one attempt may take, if the file does not say.
const TIMEOUT_SECS: u64 = 30;

/// One channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelConfig {
    /// Whether it is told when an alarm ends.
    pub send_resolved: bool,
    /// How long one attempt may take.
    pub timeout_secs: u64,
    /// How it tells.
    pub kind: ChannelKind,
}

/// How a channel tells.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelKind {
    /// `POST` of JSON.
    Webhook(WebhookConfig),
    /// Prometheus' Alertmanager.
    Alertmanager(AlertmanagerConfig),
    /// Mail.
    Mail(MailConfig),
    /// A program.
    Command(CommandConfig),
}

impl ChannelKind {
    /// Its name in the file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            Self::Mail(_) => "mail",
            Self::Command(_) => "command",
        }
    }
}

/// A webhook.
#[derive(Clone, PartialEq)]
pub struct WebhookConfig {
    /// Where. It may hold a secret.
    pub url: Url,
    /// The file of the key that bodies are signed with.
    pub secret_file: Option<PathBuf>,
    /// The roots that the server's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// A template of the body, in place of ours.
    pub body: Option<String>,
    /// The body's media type.
    pub content_type: String,
    /// A file of one line: the Authorization header.
    pub authorization_file: Option<PathBuf>,
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// An Alertmanager.
#[derive(Clone, PartialEq)]
pub struct AlertmanagerConfig {
    /// Where its API begins, without `/api/v2`.
    pub url: Url,
    /// The roots that the server's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key, if the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How often firing alarms are repeated: seconds.
    pub refresh_secs: u64,
}

impl fmt::Debug for AlertmanagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertmanagerConfig")
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// Mail through one server.
#[derive(Debug, Clone, PartialEq)]
pub struct MailConfig {
    /// The server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// The roots that the server's certificate is checked against.
    pub ca_file: Option<PathBuf>,
    /// A file with the user in its first line and the password in its second.
    pub login_file: Option<PathBuf>,
    /// The sender.
    pub from: Mailbox,
    /// The recipients.
    pub to: Vec<Mailbox>,
    /// A template of the subject.
    pub subject: String,
    /// A template of the text.
    pub body: String,
}

/// How mail is protected on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailTls {
    /// TLS from the first byte: port 465.
    Tls,
    /// STARTTLS, and nothing without it: port 587.
    Starttls,
    /// Not at all: to this machine only, or where the file allows it.
    None,
}

/// A program that is run for each notice.
#[derive(Clone, PartialEq)]
pub struct CommandConfig {
    /// The program and its arguments.
    pub command: Vec<String>,
}

impl fmt::Debug for CommandConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandConfig")
            .field("program", &self.command.first())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawChannel {
    Webhook(RawWebhook),
    Alertmanager(RawAlertmanager),
    Mail(RawMail),
    Command(RawCommand),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawWebhook {
    url: Spanned<String>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_http: bool,
    body: Option<Spanned<String>>,
    content_type: Option<String>,
    authorization_file: Option<PathBuf>,
    send_resolved: Option<bool>,
    timeout: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAlertmanager {
    url: Spanned<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_http: bool,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    refresh: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawMail {
    server: Spanned<String>,
    port: Option<u16>,
    tls: Option<MailTls>,
    #[serde(default)]
    allow_plaintext: bool,
    ca_file: Option<PathBuf>,
    login_file: Option<PathBuf>,
    from: Spanned<String>,
    to: Vec<Spanned<String>>,
    subject: Option<Spanned<String>>,
    body: Option<Spanned<String>>,
    send_resolved: Option<bool>,
    timeout: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawCommand {
    command: Spanned<Vec<String>>,
    send_resolved: Option<bool>,
    timeout: Option<Spanned<String>>,
}

pub(super) fn read(
    source: Source<'_>,
    at: Range<usize>,
    folder: &Path,
    raw: RawChannel,
) -> Result<ChannelConfig, RulesError> {
    let reader = Reader { source, folder };
    let (send_resolved, timeout, kind) = match raw {
        RawChannel::Webhook(raw) => (
            raw.send_resolved,
            raw.timeout.clone(),
            ChannelKind::Webhook(reader.webhook(raw)?),
        ),
        RawChannel::Alertmanager(raw) => (
            None,
            raw.timeout.clone(),
            ChannelKind::Alertmanager(reader.alertmanager(&at, raw)?),
        ),
        RawChannel::Mail(raw) => (
            raw.send_resolved,
            raw.timeout.clone(),
            ChannelKind::Mail(reader.mail(raw)?),
        ),
        RawChannel::Command(raw) => (
            raw.send_resolved,
            raw.timeout.clone(),
            ChannelKind::Command(reader.command(raw)?),
        ),
    };
    let timeout = duration(source, timeout.as_ref(), 1..=300)?;
    Ok(ChannelConfig {
        send_resolved: send_resolved.unwrap_or(true),
        timeout_secs: timeout.unwrap_or(TIMEOUT_SECS),
        kind,
    })
}

struct Reader<'a> {
    source: Source<'a>,
    folder: &'a Path,
}

impl Reader<'_> {
    /// A path in the file is relative to its folder.
    fn path(&self, path: Option<PathBuf>) -> Option<PathBuf> {
        path.map(|path| self.folder.join(path))
    }

    fn webhook(&self, raw: RawWebhook) -> Result<WebhookConfig, RulesError> {
        let url = self.url(&raw.url, raw.allow_http)?;
        self.check_template(raw.body.as_ref())?;
        Ok(WebhookConfig {
            url,
            secret_file: self.path(raw.secret_file),
            ca_file: self.path(raw.ca_file),
            body: raw.body.map(Spanned::into_inner),
            content_type: raw
                .content_type
                .unwrap_or_else(|| "application/json".to_owned()),
            authorization_file: self.path(raw.authorization_file),
        })
    }

    fn alertmanager(
        &self,
        at: &Range<usize>,
        raw: RawAlertmanager,
    ) -> Result<AlertmanagerConfig, RulesError> {
        let url = self.url(&raw.url, raw.allow_http)?;
        let identity = match (self.path(raw.cert_file), self.path(raw.key_file)) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => {
                let why = "`cert-file` and `key-file` belong together";
                return Err(self.source.error(at.clone(), why));
            }
        };
        let refresh = duration(self.source, raw.refresh.as_ref(), 1..=600)?;
        Ok(AlertmanagerConfig {
            url,
            ca_file: self.path(raw.ca_file),
            identity,
            refresh_secs: refresh.unwrap_or(60),
        })
    }

    fn mail(&self, raw: RawMail) -> Result<MailConfig, RulesError> {
        let tls = raw.tls.unwrap_or(match raw.port {
            Some(465) => MailTls::Tls,
            _ => MailTls::Starttls,
        });
        let server = raw.server.get_ref().clone();
        if tls == MailTls::None && !raw.allow_plaintext && !is_loopback(&server) {
            let why = "mail goes unprotected to this machine only, unless `allow-plaintext = true`";
            return Err(self.source.error(raw.server.span(), why));
        }
        let mailbox = |text: &Spanned<String>| {
            let mailbox = text.get_ref().parse::<Mailbox>();
            mailbox.map_err(|error| self.source.error(text.span(), error.to_string()))
        };
        let to = raw.to.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(self.source.error(raw.from.span(), "`to` is empty"));
        }
        for template in [&raw.subject, &raw.body] {
            self.check_template(template.as_ref())?;
        }
        let default_port = match tls {
            MailTls::Tls => 465,
            MailTls::Starttls => 587,
            MailTls::None => 25,
        };
        let text = |value: Option<Spanned<String>>, default: &str| {
            value.map_or_else(|| default.to_owned(), Spanned::into_inner)
        };
        Ok(MailConfig {
            server,
            port: raw.port.unwrap_or(default_port),
            tls,
            ca_file: self.path(raw.ca_file),
            login_file: self.path(raw.login_file),
            from: mailbox(&raw.from)?,
            to,
            subject: text(raw.subject, template::DEFAULT_SUBJECT),
            body: text(raw.body, template::DEFAULT_BODY),
        })
    }

    fn command(&self, raw: RawCommand) -> Result<CommandConfig, RulesError> {
        let at = raw.command.span();
        let command = raw.command.into_inner();
        let is_absolute = |program: &String| Path::new(program).is_absolute();
        if !command.first().is_some_and(is_absolute) {
            let why = "the first is the program, with its full path";
            return Err(self.source.error(at, why));
        }
        if command.iter().any(|argument| argument.contains('\0')) {
            return Err(self.source.error(at, "an argument has no NUL in it"));
        }
        Ok(CommandConfig { command })
    }

    fn check_template(&self, template: Option<&Spanned<String>>) -> Result<(), RulesError> {
        let Some(template) = template else {
            return Ok(());
        };
        template::check(template.get_ref())
            .map_err(|error| self.source.error(template.span(), error.to_string()))
    }

    fn url(&self, text: &Spanned<String>, allow_http: bool) -> Result<Url, RulesError> {
        let error = |why: String| self.source.error(text.span(), why);
        let url = Url::parse(text.get_ref()).map_err(|why| error(format!("no URL: {why}")))?;
        let host = url.host_str().unwrap_or_default();
        match url.scheme() {
            "https" => Ok(url),
            "http" if allow_http || is_loopback(host) => Ok(url),
            "http" => Err(error(
                "http goes to this machine only, unless `allow-http = true`".to_owned(),
            )),
            _ => Err(error("neither https nor http".to_owned())),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
