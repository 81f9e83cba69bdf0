//! What is sent to the receiver.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lizmon_ca::authority::{Authority, InitOptions, Request};
use lizmon_client::{BaseUrl, Client, Credentials};
use lizmon_protocol::name::Role;
use lizmon_protocol::sample::{
    Batch, EncodedSamples, Epoch, ProducerId, Record, Seq, parse_sample_set,
};

#[expect(clippy::disallowed_methods, reason = "the edge of the process")]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A POST of two values.
    Single,
    /// A POST of 100 records of two values.
    Batch,
    /// A GET of a host with ten labels, each with samples in every interval.
    Query,
    /// A handshake, a token, and the first POST.
    Handshake,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Single, Self::Batch, Self::Query, Self::Handshake];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
            Self::Query => "query",
            Self::Handshake => "handshake",
        }
    }

    /// How many are counted: so many that what the receiver does meanwhile is small beside them.
    pub(crate) fn times(self) -> u64 {
        match self {
            Self::Single => 600,
            Self::Batch => 60,
            Self::Query => 60,
            Self::Handshake => 30,
        }
    }
}

/// Records of minutes and hours before now that fill every interval.
const MINUTES: u64 = 60;
const HOURS: u64 = 24;

/// A node and a reader, and their certificates.
pub(crate) struct Nodes {
    certs: PathBuf,
}

impl Nodes {
    /// With a CA and a receiver `rx`.
    pub(crate) fn new(folder: &Path) -> Self {
        let certs = folder.join("certs");
        let ca = Authority::init(&certs, &InitOptions::default(), now()).expect("a CA");
        let mut receiver = Request::new(Role::Receiver, "rx".parse().expect("a name"));
        receiver.sans = vec!["127.0.0.1".parse().expect("a SAN")];
        let node = Request::new(Role::Node, "web1".parse().expect("a name"));
        let reader = Request::new(Role::Reader, "alice".parse().expect("a name"));
        for request in [receiver, node, reader] {
            ca.issue(request, now()).expect("a certificate");
        }
        Self { certs }
    }

    fn client(&self, address: SocketAddr, role: &str, name: &str) -> Client {
        let file = |ending| self.certs.join(format!("{role}/{name}.{ending}"));
        let credentials = Credentials {
            cert: file("crt"),
            key: file("key"),
            ca: self.certs.join("root.crt"),
        };
        let url: BaseUrl = format!("https://{address}").parse().expect("a URL");
        Client::new(url, &credentials, now()).expect("a client")
    }

    /// Sends what every run has, and then requests of this kind.
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn send(&self, address: SocketAddr, kind: Option<Kind>) {
        let node = self.client(address, "nodes", "web1");
        let reader = self.client(address, "readers", "alice");
        let host = "web1".parse().expect("a name");
        let mut numbers = 1..;
        let filling = filling(&mut numbers);
        node.publish_batch(&host, &filling, now())
            .await
            .expect("taken");
        reader
            .summaries_json(&host, None, now())
            .await
            .expect("shown");
        post(&node).await;
        for _ in 0..kind.map_or(0, Kind::times) {
            match kind {
                None => (),
                Some(Kind::Single) => post(&node).await,
                Some(Kind::Batch) => {
                    let batch = batch(&mut numbers, (0..100).map(|_| now()), &["cpu", "mem"]);
                    node.publish_batch(&host, &batch, now())
                        .await
                        .expect("taken");
                }
                Some(Kind::Query) => {
                    let shown = reader.summaries_json(&host, None, now()).await;
                    let bytes = shown.expect("shown").len();
                    assert!(bytes > 80_000, "the intervals are not full: {bytes}");
                }
                Some(Kind::Handshake) => post(&self.client(address, "nodes", "web1")).await,
            }
        }
    }
}

async fn post(node: &Client) {
    let host = "web1".parse().expect("a name");
    let values = parse_sample_set(br#"{"cpu":4.98,"mem":61.2}"#).expect("a set");
    let values = EncodedSamples::encode(&values).expect("JSON");
    let epoch = Epoch::new(now()).expect("an epoch");
    let sent = node.publish(&host, epoch, &values, None, now()).await;
    sent.expect("taken");
}

/// A sample in each minute of an hour and in each hour of a day, of ten labels.
fn filling(numbers: &mut impl Iterator<Item = u64>) -> Batch<EncodedSamples> {
    let hours = (1..HOURS).map(|hour| now() - hour * 3_600);
    let minutes = (0..MINUTES).map(|minute| now() - minute * 60);
    let labels = ["cpu", "mem", "c", "d", "e", "f", "g", "h", "i", "j"];
    batch(numbers, hours.chain(minutes), &labels)
}

fn batch(
    numbers: &mut impl Iterator<Item = u64>,
    epochs: impl Iterator<Item = u64>,
    labels: &[&str],
) -> Batch<EncodedSamples> {
    let values: Vec<_> = labels
        .iter()
        .map(|label| format!(r#""{label}":61.25"#))
        .collect();
    let values = format!("{{{}}}", values.join(","));
    let values = EncodedSamples::from_json(&values).expect("JSON");
    let record = |(seq, epoch)| Record {
        seq: Seq::new(seq).expect("a number"),
        epoch: Epoch::new(epoch).expect("an epoch"),
        values: values.clone(),
    };
    Batch {
        producer: ProducerId::from_bytes([7; 16]),
        records: numbers.zip(epochs).map(record).collect(),
        dropped: Vec::new(),
        repair: false,
    }
}
