//! What is read equals what a list of all samples gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::{Attributes, Label as SampleLabel, NodeName, SpiffeId};
use lizmon_protocol::sample::{Epoch, SampleSet, Seq, Value};
use lizmon_protocol::token::{Claims, Confirmation};
use lizmon_summary::round_to_cents;
use prost::Message as _;

use super::super::message::{LabelMatcher, MatcherType, ReadHints, ReadResponse};
use super::*;
use crate::authorize::Caller;
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::record::{Group, Submission};
use crate::store::{HistoryRetention, JournalStore as _, Store as _};
use crate::summarize::Summarizer;

const START: u64 = 1_464_998_400;
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// The summaries of some hosts, without threads and sockets.
struct Receiver {
    store: MemoryStore,
    summarizer: Summarizer,
    histories: Histories,
    now: u64,
}

impl Receiver {
    fn new() -> Self {
        let mut store = MemoryStore::open(MemoryDisk::default());
        let retention = HistoryRetention::default();
        let summarizer = Summarizer::open(&mut store, START).unwrap();
        Self {
            histories: Histories::new(store.history().unwrap(), retention),
            summarizer: summarizer.keeping(retention),
            store,
            now: START,
        }
    }

    fn take(&mut self, host: &str, epoch: u64, values: &[(&str, f64)]) {
        let host: NodeName = host.parse().unwrap();
        let values = values.iter().map(|(label, value)| {
            (
                SampleLabel::new(*label).unwrap(),
                Value::new(*value).unwrap(),
            )
        });
        let set = SampleSet::new(values.collect());
        let records = [(None::<Seq>, Epoch::new(epoch).unwrap(), &set)];
        let submission =
            Submission::new(&host, 9, None, self.now).with_records(records.into_iter());
        let mut group = Group::default();
        group.push(&submission);
        let shard = self.store.shard_count().shard_of(host.as_str());
        let appended = self.store.append(&[(shard, group.seal())]).remove(0);
        self.summarizer.begin_group();
        self.summarizer
            .apply(appended.unwrap(), &submission.view().unwrap());
    }

    fn commit(&mut self) {
        let commit = |this: &mut Self| {
            let now = Some(this.now);
            this.summarizer
                .commit_oldest(&mut this.store, u64::MAX, now, 1)
        };
        while commit(self).unwrap() > 0 {}
        for _ in 0..self.store.shard_count().get() {
            self.summarizer
                .sweep_next(&mut self.store, self.now)
                .unwrap();
        }
    }

    fn ask(&self, who: &str, queries: Vec<Query>) -> Result<Vec<QueryResult>, ReadError> {
        let count = queries.len();
        let request = ReadRequest {
            queries,
            accepted_response_types: Vec::new(),
        };
        let (permit, table) = (permit(who), self.summarizer.table());
        let asked = ReadQueries::parse(&request.encode_to_vec())?;
        let found = asked.find(&permit, &table, &self.histories, self.now)?;
        let bytes_about = found.bytes_about();
        let packed = found.answer(&permit, &table, &self.histories, self.now)?;
        let bytes = snap::raw::Decoder::new().decompress_vec(&packed).unwrap();
        // Two for each result that is empty.
        assert!(
            bytes.len() <= bytes_about + 2 * count,
            "{} {bytes_about}",
            bytes.len()
        );
        Ok(ReadResponse::decode(&bytes[..]).unwrap().results)
    }

    /// The series of one query, as text, with their points.
    fn read(&self, who: &str, query: Query) -> Result<Series, ReadError> {
        let [result] = <[_; 1]>::try_from(self.ask(who, vec![query])?).unwrap();
        let all = result.timeseries.into_iter().map(|series| {
            let labels = series.labels.iter();
            let labels: Vec<_> = labels
                .map(|label| format!("{}={}", label.name, label.value))
                .collect();
            let points = series
                .samples
                .iter()
                .map(|sample| (sample.timestamp, sample.value));
            (labels.join(","), points.collect())
        });
        Ok(all.collect())
    }
}

type Series = BTreeMap<String, Vec<(i64, f64)>>;

fn permit(who: &str) -> Permit<ReadSeries> {
    let id: SpiffeId = format!("spiffe://d/{who}").parse().unwrap();
    let identity = Identity {
        spiffe_id: id.clone(),
        attributes: Attributes::default(),
        serial: Box::new([1]),
        thumbprint: [1; 32],
        not_before: 0,
        not_after: 9,
    };
    let scope = if who.starts_with("node") {
        "metrics:write"
    } else {
        "metrics:read"
    };
    let claims = Arc::new(Claims {
        iss: String::new(),
        aud: String::new(),
        sub: id.name.clone(),
        client_id: id,
        scope: scope.parse().unwrap(),
        iat: 0,
        nbf: 0,
        exp: 9,
        jti: String::new(),
        cnf: Confirmation {
            x5t_s256: URL_SAFE_NO_PAD.encode([1; 32]),
        },
    });
    Caller::new(&identity, &claims)
        .unwrap()
        .read_series()
        .unwrap()
}

/// What matches this text, from `start` to `end`, over so much time at once.
fn query(matchers: &[(MatcherType, &str, &str)], (start, end): (u64, u64), range: u64) -> Query {
    let matchers = matchers.iter().map(|(kind, name, value)| LabelMatcher {
        r#type: (*kind).into(),
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    Query {
        start_timestamp_ms: start as i64 * 1_000,
        end_timestamp_ms: end as i64 * 1_000,
        matchers: matchers.collect(),
        hints: Some(ReadHints {
            range_ms: range as i64 * 1_000,
            ..ReadHints::default()
        }),
    }
}

const READER: &str = "reader/ada";
const EQUAL: MatcherType = MatcherType::Equal;
const CPU: [(MatcherType, &str, &str); 1] = [(EQUAL, METRIC, "cpu")];

/// Ends of intervals of this width, with the average of their samples.
fn averages(samples: &[(u64, f64)], width: u64) -> BTreeMap<u64, f64> {
    let mut sums = BTreeMap::<u64, (f64, f64)>::new();
    for (epoch, value) in samples {
        let sum = sums.entry(epoch.div_ceil(width) * width).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    sums.into_iter()
        .map(|(end, (sum, count))| (end, sum / count))
        .collect()
}

fn near(found: &[(i64, f64)], expected: &[(u64, f64)]) {
    let shown = |at: usize| (found.get(at), expected.get(at));
    assert_eq!(
        found.len(),
        expected.len(),
        "{:?}",
        shown(found.len().min(expected.len()))
    );
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let is_same = found.0 == expected.0 as i64 * 1_000 && (found.1 - expected.1).abs() < 1e-9;
        assert!(is_same, "{:?}", shown(at));
    }
}

/// Forty days: minutes, hours and days are each what the samples give, and no time is there twice.
#[test]
fn every_width_equals_the_samples() {
    let mut receiver = Receiver::new();
    let mut samples = Vec::new();
    let end = START + 40 * DAY + 10 * HOUR + 25 * MINUTE + 30;
    let mut epoch = START;
    for number in 0_u64.. {
        // Every ten minutes, and at last every seven seconds.
        epoch += if epoch + 2 * HOUR < end { 601 } else { 7 };
        if epoch > end {
            break;
        }
        let value = (number * 7_919 % 1_009) as f64 / 7.0;
        receiver.now = epoch;
        receiver.take("web1", epoch, &[("cpu", value)]);
        samples.push((epoch, value));
        if number % 500 == 0 {
            receiver.commit();
        }
    }
    receiver.now = end;
    receiver.commit();
    let [minutes, hours, days] = [MINUTE, HOUR, DAY].map(|width| averages(&samples, width));
    let among = |of: &BTreeMap<u64, f64>, after: u64, until: u64| -> Vec<_> {
        let among = of.range(after + 1..=until);
        among.map(|(end, average)| (*end, *average)).collect()
    };
    let read = |(from, to): (u64, u64), range: u64| {
        let found = receiver
            .read(READER, query(&CPU, (from, to), range))
            .unwrap();
        let [(name, points)] = <[_; 1]>::try_from(found.into_iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(name, "__name__=cpu,host=web1");
        points
    };
    // 09:25, 09:00, and the midnight after which hours are kept.
    let minutes_after = end / MINUTE * MINUTE - HOUR;
    let hours_until = minutes_after / HOUR * HOUR;
    let days_until = (end - 31 * DAY).div_ceil(DAY) * DAY;
    let all = [
        among(&days, 0, days_until),
        among(&hours, days_until, hours_until),
        among(&minutes, minutes_after, end),
    ]
    .concat();
    near(&read((0, u64::MAX >> 12), 0), &all);
    near(&read((0, end), HOUR), &all);
    near(
        &read((0, end), HOUR + 1),
        &[among(&days, 0, days_until), among(&hours, days_until, end)].concat(),
    );
    near(&read((0, end), 32 * DAY), &among(&days, 0, end));
    // Both ends are included.
    let (first, last) = (hours_until - 5 * HOUR, hours_until - HOUR);
    near(&read((first, last), 0), &among(&hours, first - 1, last));
    near(
        &read((first + 1, last - 1), 0),
        &among(&hours, first, last - 1),
    );
    // An interval that has not ended is not there.
    assert_eq!(
        read((end - HOUR, end + HOUR), 0).last().unwrap().0,
        (end / 60 * 60) as i64 * 1_000
    );
    // To two decimals it is what the summaries say.
    let table = receiver.summarizer.table();
    let hosts = table.shard_with("web1");
    let window = hosts["web1"].series["cpu"].window(0, end).unwrap();
    drop(hosts);
    let found: BTreeMap<_, _> = read((0, end), 0).into_iter().collect();
    let ended = window.averages.iter().filter(|minute| minute.end <= end);
    for minute in ended {
        let value = found[&(minute.end as i64 * 1_000)];
        assert_eq!(round_to_cents(value), minute.avg);
    }
}

#[test]
fn what_values_are_of_the_samples() {
    let mut receiver = Receiver::new();
    for (epoch, value) in [(1, 0.1), (2, 0.2), (3, 6.0)] {
        receiver.take("web1", START + epoch, &[("cpu", value), ("a b:c", 1.0)]);
    }
    receiver.now = START + MINUTE;
    let at = (START as i64 + 60) * 1_000;
    let all = (START, START + HOUR);
    let stat = |kind, value| [(EQUAL, METRIC, "cpu"), (kind, STAT, value)];
    let check = |matchers: &[_], expected: &[(&str, f64)]| {
        let found = receiver.read(READER, query(matchers, all, 0)).unwrap();
        let expected = expected.iter().map(|(labels, value)| {
            (
                format!("__name__=cpu,host=web1{labels}"),
                vec![(at, *value)],
            )
        });
        assert_eq!(found, expected.collect(), "{matchers:?}");
    };
    let (average, sum) = ((0.1 + 0.2 + 6.0) / 3.0, 0.1 + 0.2 + 6.0);
    let stats = [
        (",stat=avg", average),
        (",stat=count", 3.0),
        (",stat=max", 6.0),
        (",stat=min", 0.1),
        (",stat=sum", sum),
    ];
    check(&CPU, &[("", average)]);
    check(&stat(EQUAL, ""), &[("", average)]);
    check(&stat(EQUAL, "max"), &[(",stat=max", 6.0)]);
    check(&stat(MatcherType::Matches, ".+"), &stats);
    check(
        &stat(MatcherType::NotEqual, "avg"),
        &[&[("", average)], &stats[1..]].concat(),
    );
    check(&stat(EQUAL, "p99"), &[]);
    let found = receiver.read(READER, query(&[], all, 0)).unwrap();
    let names: Vec<_> = found.into_keys().collect();
    assert_eq!(
        names,
        [
            "__name__=a_b,host=web1,label=a b:c",
            "__name__=cpu,host=web1"
        ]
    );
}

/// Each query has its answer, in their order; a series that has ended is found by its exact name.
#[test]
fn series_that_have_ended() {
    let mut receiver = Receiver::new();
    receiver.take("web1", START + 1, &[("cpu", 1.0), ("disk-used:/", 2.0)]);
    receiver.now = START + 3 * DAY + 1;
    receiver.take("db1", receiver.now, &[("cpu", 3.0)]);
    receiver.commit();
    let all = (START, START + 9 * DAY);
    let of = |matchers: &[_]| query(matchers, all, 0);
    let exact = [(EQUAL, METRIC, "cpu"), (EQUAL, HOST, "web1")];
    let whole = [(EQUAL, HOST, "web1"), (EQUAL, "label", "disk-used:/")];
    let ask = |who, queries| {
        let results = receiver.ask(who, queries).unwrap().into_iter();
        let values = results.map(|result| {
            let series = result.timeseries.iter();
            series.map(|series| series.samples[0].value).collect()
        });
        values.collect::<Vec<Vec<f64>>>()
    };
    let queries = || vec![of(&CPU), of(&exact), of(&whole)];
    // db1 has not ended its first minute.
    assert_eq!(ask(READER, queries()), [vec![], vec![1.0], vec![2.0]]);
    assert_eq!(ask("node/web1", queries()), [vec![], vec![1.0], vec![2.0]]);
    assert_eq!(ask("node/db1", queries()), vec![Vec::<f64>::new(); 3]);
    assert_eq!(ask(READER, vec![]), Vec::<Vec<f64>>::new());
}

#[test]
fn no_answer_is_too_large() {
    let mut receiver = Receiver::new();
    let labels: Vec<_> = (0..1_000).map(|number| format!("l{number}")).collect();
    let hosts: Vec<_> = (0..51).map(|number| format!("h{number}")).collect();
    receiver.now = START + HOUR;
    for host in &hosts {
        for some in labels.chunks(250) {
            let values: Vec<_> = some.iter().map(|label| (label.as_str(), 1.0)).collect();
            receiver.take(host, START + 1, &values);
        }
    }
    let all = |start| query(&[], (start, START + HOUR), 0);
    let few = |start, hosts: &str| {
        query(
            &[(MatcherType::Matches, HOST, hosts)],
            (start, START + HOUR),
            0,
        )
    };
    let refused = |query| receiver.ask(READER, vec![query]).unwrap_err().to_string();
    assert_eq!(refused(all(START)), TooMany.to_string());
    // No point can be there, so no series is looked for.
    assert_eq!(
        receiver.ask(READER, vec![all(START + HOUR + 1)]).unwrap()[0].timeseries,
        []
    );
    let two = receiver.ask(READER, vec![few(START, "h[12]")]).unwrap();
    assert_eq!(two[0].timeseries.len(), 2_000);
    let fifty = vec![few(START, "h.|h[1-4].")];
    assert_eq!(
        receiver.ask(READER, fifty).unwrap()[0].timeseries.len(),
        50_000
    );
    // Of all queries together.
    let twice = vec![few(START, "h.|h[1-4]."), few(START, "h1")];
    assert!(matches!(
        receiver.ask(READER, twice),
        Err(ReadError::TooManySeries(_))
    ));
    // From the store.
    let back = START - 2 * DAY;
    assert_eq!(
        receiver.ask(READER, vec![few(back, "h[1-5]")]).unwrap()[0]
            .timeseries
            .len(),
        5_000
    );
    assert!(matches!(
        receiver.ask(READER, vec![few(back, "h[1-6]")]),
        Err(ReadError::TooManyStoredSeries)
    ));
    for minute in 1..60 {
        for some in labels.chunks(250) {
            let values: Vec<_> = some.iter().map(|label| (label.as_str(), 1.5)).collect();
            receiver.take("h1", START + minute * MINUTE + 1, &values);
        }
    }
    let of_all = |stats: &str| {
        let matchers = [(EQUAL, HOST, "h1"), (MatcherType::Matches, STAT, stats)];
        receiver.ask(READER, vec![query(&matchers, (START, START + HOUR), 0)])
    };
    assert_eq!(of_all("sum|avg").unwrap()[0].timeseries.len(), 2_000);
    let many = [
        of_all(".*"),
        receiver.ask(READER, vec![few(START, "h1"); 10]),
    ];
    let sizes: Vec<_> = many
        .iter()
        .map(|answer| answer.as_ref().err().map(ToString::to_string))
        .collect();
    assert!(
        sizes
            .iter()
            .all(|error| error.is_none()
                || error.as_deref() == Some(&ReadError::TooLarge.to_string()))
    );
    assert!(sizes[1].is_some(), "{sizes:?}");
}
