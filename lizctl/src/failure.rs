//! Exit codes of failures.

use std::process::ExitCode;

use lizmon_client::{ConnectError, Error};
use lizmon_enrol::EnrolError;
use lizmon_receiver::store::{ErrorKind, StoreError};

/// Attached to an error by `.context(Exit::…)`; an error without one exits with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exit {
    /// Flags that parse but are invalid in this combination or place.
    #[error("wrong usage")]
    Usage,
    /// 401, 403, or a TLS alert about our certificate.
    #[error("refused by the server")]
    Refused,
    /// No connection, or one that closed before the response.
    #[error("the server cannot be reached")]
    Unreachable,
}

impl Exit {
    /// The exit code of a failed request to a receiver.
    fn of(error: &Error) -> Option<Self> {
        match error {
            error if error.is_identity_refused() => Some(Self::Refused),
            Error::Connect(error) => Self::of_connection(error),
            _ => None,
        }
    }

    /// The exit code of a failed connection.
    fn of_connection(error: &ConnectError) -> Option<Self> {
        match error {
            ConnectError::CertificateRefused { .. } => Some(Self::Refused),
            ConnectError::Unreachable { .. } => Some(Self::Unreachable),
            ConnectError::ServerNotTrusted { .. } => None,
        }
    }

    /// The exit code of a failed enrolment at `liz-ca`.
    fn of_enrolment(error: &EnrolError) -> Option<Self> {
        match error {
            EnrolError::Connect(error) => Self::of_connection(error),
            error if error.is_identity_refused() => Some(Self::Refused),
            _ => None,
        }
    }
}

impl Exit {
    /// The exit code of a failure at the servers of a store.
    fn of_store(error: &StoreError) -> Option<Self> {
        match error.kind() {
            ErrorKind::Unreachable => Some(Self::Unreachable),
            ErrorKind::AccessDenied => Some(Self::Refused),
            _ => None,
        }
    }
}

/// 1, unless an error in the chain has an exit code of its own. clap itself exits with 2.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_client = || {
        let of_enrolment = || error.downcast_ref().and_then(Exit::of_enrolment);
        error
            .downcast_ref()
            .and_then(Exit::of)
            .or_else(of_enrolment)
            .or_else(|| error.downcast_ref().and_then(Exit::of_store))
    };
    ExitCode::from(match error.downcast_ref().copied().or_else(of_client) {
        None => 1,
        Some(Exit::Usage) => 2,
        Some(Exit::Refused) => 3,
        Some(Exit::Unreachable) => 4,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use lizmon_client::ConnectFailure;

    use super::*;

    fn refused(status: u16) -> Error {
        Error::Refused {
            url: "https://localhost".parse().unwrap(),
            status,
            problem: None,
            retry_after: None,
        }
    }

    fn away() -> Error {
        Error::Connect(ConnectError::Unreachable {
            url: "https://localhost".parse().unwrap(),
            failure: ConnectFailure::Connect,
            cause: "below".into(),
        })
    }

    #[test]
    fn the_exit_code_is_found_below_further_context() {
        let plain = || anyhow!("boom");
        let cases = [
            (plain(), 1),
            (plain().context(Exit::Usage), 2),
            (plain().context(Exit::Refused).context("while asking"), 3),
            (plain().context(Exit::Unreachable), 4),
            (anyhow::Error::from(Exit::Unreachable), 4),
            (anyhow::Error::from(refused(403)), 3),
            (anyhow::Error::from(refused(401)).context("while asking"), 3),
            (refused(503).into(), 1),
            (away().into(), 4),
            (anyhow::Error::from(away()).context("while asking"), 4),
        ];
        for (error, code) in cases {
            assert_eq!(exit_code(&error), ExitCode::from(code), "{error:#}");
        }
    }
}
