//! Mail. Each message is one connection: alarms are rare, and a server may forget a connection.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::error::TellError;
use super::http;
use crate::message::Message;
use crate::rules::{MailConfig, MailTls};
use crate::state::AlarmState;
use crate::template::{DEFAULT_BODY, DEFAULT_SUBJECT};

/// No line of a mail is longer: RFC 5322 section 2.1.1.
const SUBJECT_CHARS_MAX: usize = 200;

/// Mail through one server.
#[derive(Debug)]
pub(super) struct Mail {
    config: MailConfig,
}

impl Mail {
    pub(super) fn new(config: MailConfig) -> Self {
        Self { config }
    }

    pub(super) async fn tell(&mut self, message: &Message) -> Result<(), TellError> {
        let mail = self.mail(message)?;
        let transport = self.transport()?;
        let sent = transport.send(mail).await;
        sent.map(|_| ())
            .map_err(|error| TellError::passing(chain(&error)))
    }

    fn mail(&self, message: &Message) -> Result<lettre::Message, TellError> {
        let config = &self.config;
        let notice = &message.notice;
        let subject = message.render_or(&config.subject, DEFAULT_SUBJECT);
        let body = message.render_or(&config.body, DEFAULT_BODY);
        let domain = config.from.email.domain();
        let id = |id: &str| format!("<{id}@{domain}>");
        let mut builder = lettre::Message::builder()
            .from(config.from.clone())
            .subject(one_line(&subject))
            // The same in each attempt, so that a server or reader can drop what it has.
            .message_id(Some(id(&notice.id)))
            .date(UNIX_EPOCH + Duration::from_secs(notice.at))
            .header(ContentType::TEXT_PLAIN)
            .raw_header(automatic());
        if notice.state == AlarmState::Resolved {
            let firing = format!("{}-{}", notice.alarm, AlarmState::Firing.as_str());
            builder = builder.in_reply_to(id(&firing)).references(id(&firing));
        }
        for to in &config.to {
            builder = builder.to(to.clone());
        }
        builder.body(body).map_err(TellError::passing)
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, TellError> {
        let config = &self.config;
        let tls = match config.tls {
            MailTls::None => Tls::None,
            MailTls::Tls => Tls::Wrapper(self.tls_parameters()?),
            MailTls::Starttls => Tls::Required(self.tls_parameters()?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.server)
            .port(config.port)
            .tls(tls);
        if let Some(file) = &config.login_file {
            builder = builder.credentials(login(file)?);
        }
        Ok(builder.build())
    }

    fn tls_parameters(&self) -> Result<TlsParameters, TellError> {
        let mut builder = TlsParameters::builder(self.config.server.clone());
        if let Some(file) = &self.config.ca_file {
            let pem = std::fs::read(file).map_err(|error| http::of_file(file, error))?;
            let roots = Certificate::from_pem(&pem).map_err(|error| http::of_file(file, error))?;
            builder = builder
                .certificate_store(CertificateStore::None)
                .add_root_certificate(roots);
        }
        builder.build_rustls().map_err(TellError::passing)
    }
}

/// RFC 3834: no vacation responder answers it.
fn automatic() -> HeaderValue {
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    HeaderValue::new(name, "auto-generated".to_owned())
}

/// The user in the first line, the password in the second.
fn login(file: &Path) -> Result<Credentials, TellError> {
    let text = http::secret(file)?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(user), Some(password)) => Ok(Credentials::new(user.to_owned(), password.to_owned())),
        _ => Err(http::of_file(
            file,
            "the user is in the first line, the password in the second",
        )),
    }
}

/// A header is one line, whatever is in it.
fn one_line(text: &str) -> String {
    let is_control = |char: char| char.is_control() || char == '\u{2028}' || char == '\u{2029}';
    let line = text.replace(is_control, " ");
    let line = line.split(' ').filter(|word| !word.is_empty());
    let line = line.collect::<Vec<_>>().join(" ");
    line.chars().take(SUBJECT_CHARS_MAX).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MailConfig {
        MailConfig {
            server: "localhost".to_owned(),
            port: 25,
            tls: MailTls::None,
            ca_file: None,
            login_file: None,
            from: "lizmon <lizmon@example.org>".parse().unwrap(),
            to: vec!["ops@example.org".parse().unwrap()],
            subject: "{{ label }}\r\nBcc: evil@example.org\r\n\r\nbody".to_owned(),
            body: DEFAULT_BODY.to_owned(),
        }
    }

    fn mail_of(label: &str) -> String {
        let config = config();
        let mut message = Message::test("77", "web1", 1_465_001_814);
        message.notice.label = label.to_owned();
        let mail = Mail::new(config.clone()).mail(&message).unwrap();
        let ours = Mail::new(MailConfig {
            subject: DEFAULT_SUBJECT.to_owned(),
            ..config
        });
        assert!(ours.mail(&message).is_ok());
        String::from_utf8(mail.formatted()).unwrap()
    }

    /// Neither a template nor a label adds a header.
    #[test]
    fn no_text_becomes_a_header() {
        for label in [
            "cpu",
            "a\r\nBcc: evil@example.org",
            "\u{202e}evil",
            "漢字漢字",
            "=?utf-8?q?x?=",
            "a\n.\r\nMAIL FROM",
        ] {
            let mail = mail_of(label);
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            let names: Vec<_> = head
                .lines()
                .filter(|line| !line.starts_with(' '))
                .map(|line| line.split(':').next().unwrap())
                .collect();
            assert!(!names.contains(&"Bcc"), "{head}");
            assert!(names.contains(&"Subject"), "{head}");
            assert!(!mail.contains('\u{202e}'), "{mail}");
        }
    }

    /// RFC 5321 section 4.5.3.1.6: some servers break longer lines, in the middle of a word.
    #[test]
    fn no_line_is_longer_than_a_server_takes() {
        for label in ["x".repeat(5_000), "漢".repeat(3_000)] {
            let mail = mail_of(&label);
            let longest = mail.lines().map(str::len).max().unwrap();
            assert!(longest <= 998, "{longest}");
        }
    }

    /// A template that fails for this label alone held up everything behind it for a day.
    #[test]
    fn a_template_that_fails_is_replaced() {
        let config = MailConfig {
            subject: "{% if label == 'cpu' %}{{ nothing }}{% endif %}".to_owned(),
            body: "{{ label.x.y }}".to_owned(),
            ..config()
        };
        let mut message = Message::test("77", "web1", 1_465_001_814);
        message.notice.label = "cpu".to_owned();
        let mail = Mail::new(config).mail(&message).unwrap().formatted();
        let mail = String::from_utf8(mail).unwrap();
        assert!(mail.contains("Subject: [INFO] web1: test (cpu)"), "{mail}");
        assert!(mail.contains("label     cpu"), "{mail}");
    }

    #[test]
    fn a_repeated_mail_is_the_same_mail() {
        assert_eq!(mail_of("cpu"), mail_of("cpu"));
        assert!(mail_of("cpu").contains("Message-ID: <77-firing@example.org>"));
    }
}
