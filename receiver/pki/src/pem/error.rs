//! What can be wrong with a PEM text.

/// What is wrong with a PEM text, and where. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Text of another encoding.
    #[error("it is UTF-16: save it as plain text, UTF-8 or ASCII")]
    Utf16,
    /// DER where PEM belongs.
    #[error(
        "it is DER and not PEM: convert it, with `openssl x509 -inform DER`, `openssl crl -inform DER` or `openssl pkey -inform DER`"
    )]
    Der,
    /// Bytes that are no text, as a crash or a bad copy leaves them.
    #[error("line {line}: there are bytes that are not text: copy it again")]
    NotText {
        /// Where.
        line: usize,
    },
    /// A line between sections that looks like the first or last line of one.
    #[error(
        "line {line}: `{text}` looks like the first or last line of a section, but is not: it needs exactly five dashes on both sides"
    )]
    Boundary {
        /// Where.
        line: usize,
        /// The text, truncated.
        text: String,
    },
    /// A line between sections that looks like the inside of one.
    #[error("line {line}: base64 outside a section: is its first or last line missing?")]
    Stray {
        /// Where.
        line: usize,
    },
    /// A section that begins and does not end.
    #[error("line {line}: the section {label} begins here and does not end: copy it again")]
    NoEnd {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// A section that begins as one thing and ends as another.
    #[error("line {line}: the section {begin} ends as {end}")]
    Labels {
        /// Where it ends.
        line: usize,
        /// How it begins.
        begin: String,
        /// How it ends.
        end: String,
    },
    /// A section whose inside is not base64.
    #[error("line {line}: the section {label} is not base64 here: copy it again")]
    Base64 {
        /// Where.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// A section that does not hold one whole DER value.
    #[error("line {line}: the section {label} is damaged or cut short: copy it again")]
    NotDer {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// OpenSSL's own form of a certificate, with trust settings that would be lost.
    #[error(
        "line {line}: TRUSTED CERTIFICATE is specific to OpenSSL: convert it to CERTIFICATE, with `openssl x509`"
    )]
    TrustedCertificate {
        /// Where it begins.
        line: usize,
    },
    /// An encrypted key, which cannot be used without a prompt.
    #[error(
        "line {line}: the private key is encrypted: remove the passphrase, with `openssl pkey`"
    )]
    Encrypted {
        /// Where it begins.
        line: usize,
    },
    /// A section that does not belong here.
    #[error("line {line}: {label} does not belong here, expected {wanted}")]
    Misplaced {
        /// Where it begins.
        line: usize,
        /// What it is called.
        label: String,
        /// What belongs here.
        wanted: &'static str,
    },
    /// No section of the wanted kind.
    #[error("there is no {wanted} in it: it should hold PEM text that starts with -----BEGIN")]
    Absent {
        /// What belongs here.
        wanted: &'static str,
    },
    /// More than one section where one belongs.
    #[error("line {line}: a second {wanted}: keep only one")]
    Second {
        /// Where it begins.
        line: usize,
        /// What belongs here once.
        wanted: &'static str,
    },
}
