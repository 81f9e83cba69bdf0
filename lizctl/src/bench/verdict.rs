//! Asks the receiver which records it has, and compares.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{Method, StatusCode};
use lizmon_protocol::delivery::Delivery;
use lizmon_protocol::name::NodeName;
use lizmon_protocol::route;

use super::link::{Link, LoadAnswer, LoadRequest, NoAnswer};
use super::worker::{Producer, Sent, pause};
use crate::failure::Exit;

/// A receiver that is away or busy, or shares a store with others, is asked again so often.
const ATTEMPTS: u32 = 20;
const ASKED_EVERY: Duration = Duration::from_millis(500);

/// The records of all producers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Comparison {
    pub(crate) taken: u64,
    pub(crate) unanswered: u64,
    /// What the receiver has of the run.
    pub(crate) has: u64,
    /// Producers of which it has less than it took, or more than was sent.
    pub(crate) differing: u64,
}

impl Comparison {
    fn add(&mut self, sent: Sent, has: u64) {
        self.taken += sent.taken;
        self.unanswered += sent.unanswered;
        self.has += has;
        self.differing += u64::from(!is_explained(sent, has));
    }
}

/// Whether all that was taken is there, and no more than was sent.
fn is_explained(sent: Sent, has: u64) -> bool {
    (sent.taken..=sent.taken + sent.unanswered).contains(&has)
}

/// Compares what each producer sent with what the receiver has of it.
pub(crate) async fn compare(
    reader: &Link,
    producers: &[Arc<Producer>],
) -> anyhow::Result<Comparison> {
    let mut verdict = Comparison::default();
    // Of all together: where records are lost, each producer's would be waited for.
    let mut attempts = ATTEMPTS;
    for producer in producers {
        let sent = producer.sent();
        let mut has = received(reader, producer).await?;
        while !is_explained(sent, has) && attempts > 0 {
            attempts -= 1;
            pause(ASKED_EVERY).await;
            has = received(reader, producer).await?;
        }
        verdict.add(sent, has);
    }
    Ok(verdict)
}

async fn received(reader: &Link, producer: &Producer) -> anyhow::Result<u64> {
    let answer = get(reader, route::delivery(&producer.host)).await?;
    let known = match answer.status {
        StatusCode::OK => {
            serde_json::from_slice::<Delivery>(&answer.body)
                .context("the receiver's answer is no list of deliveries")?
                .producers
        }
        StatusCode::NOT_FOUND => Vec::new(),
        _ => return Err(refusal(&answer)),
    };
    let found = known.iter().find(|known| known.producer == producer.id);
    Ok(found.map_or(0, |known| known.received))
}

/// Whether the receiver lets these identities in, before a thousand of them try.
pub(crate) async fn check_access(reader: &Link, host: &NodeName) -> anyhow::Result<()> {
    let message = message(route::delivery(host));
    match reader.send(&message).await {
        Ok(answer) => match answer.status {
            StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(refusal(&answer).context(Exit::Refused))
            }
            _ => Err(refusal(&answer)),
        },
        Err(NoAnswer::HandshakeFailed) => Err(anyhow!(
            "TLS handshake failed: is --certs the CA of this receiver?"
        )),
        Err(no_answer) => Err(anyhow!("{no_answer}").context(Exit::Unreachable)),
    }
}

/// Asks until there is an answer that is not about the moment.
async fn get(reader: &Link, path: String) -> anyhow::Result<LoadAnswer> {
    let message = message(path);
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            pause(ASKED_EVERY).await;
        }
        match reader.send(&message).await {
            Ok(answer) if is_of_the_moment(answer.status) => why = answer.reason(),
            Ok(answer) => return Ok(answer),
            Err(no_answer) => why = no_answer.to_string(),
        }
    }
    Err(anyhow!("the receiver does not say what it has: {why}").context(Exit::Unreachable))
}

fn is_of_the_moment(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED
        )
}

fn message(path: String) -> LoadRequest {
    LoadRequest {
        method: Method::GET,
        path,
        body: Bytes::new(),
        headers: Vec::new(),
    }
}

fn refusal(answer: &LoadAnswer) -> anyhow::Error {
    anyhow!("the receiver refused: HTTP {}", answer.reason())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_may_be_there_or_not() {
        for (taken, unanswered, has, expected) in [
            (0, 0, 0, true),
            (5, 0, 5, true),
            (5, 0, 4, false),
            (5, 0, 6, false),
            (5, 2, 4, false),
            (5, 2, 5, true),
            (5, 2, 7, true),
            (5, 2, 8, false),
        ] {
            let sent = Sent { taken, unanswered };
            assert_eq!(is_explained(sent, has), expected, "{sent:?}, has {has}");
        }
    }

    /// One producer's loss is not made up for by another's surplus.
    #[test]
    fn producers_are_compared_one_by_one() {
        let mut verdict = Comparison::default();
        let sent = Sent {
            taken: 5,
            unanswered: 0,
        };
        verdict.add(sent, 4);
        verdict.add(sent, 6);
        assert_eq!((verdict.taken, verdict.has, verdict.differing), (10, 10, 2));
    }
}
