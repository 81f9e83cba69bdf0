//! Tells one destination what this machine is. It has a client of its own, so that it never holds
//! up samples; a connection is made once a day.

use std::time::Duration;

use lizmon_client::{Client, Credentials, Error};
use lizmon_pki::server_crls::ServerCrls;
use lizmon_protocol::facts::Facts;
use lizmon_protocol::name::NodeName;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::config::PublishUrl;
use crate::environment::Environment;
use crate::facts::{self, FactsSchedule, Told};

/// How long a receiver may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells one destination.
pub(super) struct FactsTeller {
    pub(super) url: PublishUrl,
    pub(super) host: NodeName,
    pub(super) credentials: Credentials,
    pub(super) server_crls: ServerCrls,
    pub(super) environment: Environment,
}

impl FactsTeller {
    /// Runs until it is aborted.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    pub(super) async fn run(self) {
        let mut schedule = FactsSchedule::default();
        loop {
            // Reading them takes longer than a sample may be late.
            let Ok(facts) = tokio::task::spawn_blocking(facts::read).await else {
                return;
            };
            if schedule.is_due(&facts, self.monotonic()) {
                let told = self.tell(&facts).await;
                let chance = (self.environment.chance)();
                schedule.note(&facts, told, self.monotonic(), chance);
            }
            sleep(schedule.wait(self.monotonic())).await;
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "enforces a limit that is a named constant"
    )]
    async fn tell(&self, facts: &Facts) -> Told {
        let url = &self.url;
        match timeout(ANSWER_TIMEOUT, self.put(facts)).await {
            Ok(Ok(())) => {
                debug!("told {url} what this machine is");
                Told::Yes
            }
            Ok(Err(error)) => {
                // The publisher says that a receiver is away. That one is too old for this is
                // nothing to act on.
                debug!("cannot tell {url} what this machine is: {error}");
                told_by(&error)
            }
            Err(_) => Told::Failed,
        }
    }

    async fn put(&self, facts: &Facts) -> Result<(), Error> {
        let now = (self.environment.clock)().as_secs();
        let (base, crls) = (self.url.base().clone(), self.server_crls.clone());
        let client = Client::lasting(base, &self.credentials, crls, now)?;
        client.put_facts(&self.host, facts, now).await
    }

    fn monotonic(&self) -> Duration {
        (self.environment.monotonic)()
    }
}

/// A receiver of an earlier version answers 404, or 405.
fn told_by(error: &Error) -> Told {
    match error {
        Error::Refused {
            status: 400 | 404 | 405 | 413 | 422,
            ..
        } => Told::Refused,
        _ => Told::Failed,
    }
}
