//! What a failure means to the caller: the exit code.

use std::process::ExitCode;

use lizmon_client::Error;
use lizmon_client::enrol::EnrolError;

/// Put into an error by `.context(Exit::…)`; an error without one ends with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exit {
    /// Flags that parse one by one but make no sense together or here.
    #[error("wrong usage")]
    Usage,
    /// 401, 403, or a TLS alert for our certificate.
    #[error("refused by the server")]
    Refused,
    /// No connection, or one that broke before an answer.
    #[error("the server cannot be reached")]
    Unreachable,
}

impl Exit {
    /// What the client of a receiver met says it by its kind.
    fn of(error: &Error) -> Option<Self> {
        match error {
            error if error.is_refusal_of_us() => Some(Self::Refused),
            Error::Unreachable { .. } => Some(Self::Unreachable),
            _ => None,
        }
    }

    /// The same of a `liz-ca`'s.
    fn of_enrolment(error: &EnrolError) -> Option<Self> {
        match error {
            EnrolError::Exchange(error) => Self::of(error),
            error if error.is_refusal_of_us() => Some(Self::Refused),
            _ => None,
        }
    }
}

/// 1 unless the error says otherwise somewhere in its chain. clap itself ends with 2.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_client = || {
        let of_enrolment = || error.downcast_ref().and_then(Exit::of_enrolment);
        error
            .downcast_ref()
            .and_then(Exit::of)
            .or_else(of_enrolment)
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
    use lizmon_client::Obstacle;

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
        Error::Unreachable {
            url: "https://localhost".parse().unwrap(),
            obstacle: Obstacle::Connect,
            cause: "below".into(),
        }
    }

    #[test]
    fn the_code_is_found_below_further_context() {
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
