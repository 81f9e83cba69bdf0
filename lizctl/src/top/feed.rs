//! Asks the receiver again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use lizmon_client::{Client, Error};
use lizmon_pki::error_chain::in_one_line;
use lizmon_protocol::name::{NodeName, TagFilter};
use lizmon_protocol::summary::{Hosts, Summaries};
use tokio::sync::{mpsc, watch};

use crate::host_state::firing;
use crate::loopback::Upstream;

/// The pause after an answer.
const PAUSE: Duration = Duration::from_secs(2);
/// A list that takes long is asked for less often: it takes at most a sixth of the time.
const PAUSE_PER_WORK: u32 = 5;

/// What the receiver said.
pub(super) enum News {
    /// All hosts, and the firing alarms by host.
    Hosts(Hosts, BTreeMap<String, Vec<String>>),
    /// The summaries of one host.
    Summaries(NodeName, Summaries),
    /// No answer, and why.
    Failed(String),
}

/// Never returns: drop it.
#[expect(clippy::disallowed_methods, reason = "paces questions")]
pub(super) async fn run(
    upstream: &Upstream,
    (mut watching, wanted): (watch::Receiver<Option<NodeName>>, TagFilter),
    news: mpsc::Sender<News>,
    stopwatch: fn() -> Duration,
) {
    loop {
        let began = stopwatch();
        let host = watching.borrow_and_update().clone();
        let client = upstream.client();
        // The host first: that is what somebody is waiting for.
        if let Some(host) = host {
            let asked = client.summaries(&host, None, upstream.now()).await;
            let said = asked.map_or_else(failed, |found| News::Summaries(host, found));
            let _nobody_listens = news.send(said).await;
        }
        let said = hosts(&client, &wanted, upstream.now()).await;
        let said = said.unwrap_or_else(failed);
        let _nobody_listens = news.send(said).await;
        let pause = PAUSE.max(stopwatch().saturating_sub(began) * PAUSE_PER_WORK);
        tokio::select! {
            () = tokio::time::sleep(pause) => (),
            Ok(()) = watching.changed() => (),
        }
    }
}

fn failed(error: Error) -> News {
    News::Failed(in_one_line(&error))
}

async fn hosts(client: &Client, wanted: &TagFilter, now: u64) -> Result<News, Error> {
    let hosts = client.hosts(wanted, now).await?;
    // A receiver may know no alarms.
    let alarms = client.alarms(wanted, now).await;
    let firing = alarms.map_or_else(|_| BTreeMap::new(), |alarms| firing(&alarms));
    Ok(News::Hosts(hosts, firing))
}
