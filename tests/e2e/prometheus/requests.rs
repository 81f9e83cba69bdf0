//! Remote reads and lists of names as they come over the wire: who sees what, and what is refused.

use lizmon_protocol::name::Role;
use lizmon_receiver::prometheus::message::{
    LabelMatcher, LabelPair, MatcherType, Query, ReadRequest, ReadResponse, ResponseType,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::harness::{Answer, Holder, World, answer};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DISK: &str = "disk-used:/home";
const REQUESTS: &str = r#"requests{code="200"}"#;

pub(crate) fn read_request(
    matchers: &[(MatcherType, &str, &str)],
    (start, end): (u64, u64),
) -> ReadRequest {
    let matchers = matchers.iter().map(|(kind, name, value)| LabelMatcher {
        r#type: (*kind).into(),
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    ReadRequest {
        queries: vec![Query {
            start_timestamp_ms: start as i64 * 1_000,
            end_timestamp_ms: end as i64 * 1_000,
            matchers: matchers.collect(),
            hints: None,
        }],
        accepted_response_types: vec![ResponseType::StreamedXorChunks.into()],
    }
}

pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

pub(crate) async fn post_read(world: &World, holder: &Holder, body: Vec<u8>) -> Answer {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
    ];
    post_with(world, holder, &headers, body).await
}

async fn post_with(
    world: &World,
    holder: &Holder,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Answer {
    let token = world.token(holder).await;
    let request = holder.http.post(world.url("/api/v1/read"));
    let request = request.bearer_auth(token).body(body);
    let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    answer(headers.iter().fold(request, add)).await
}

pub(crate) fn unpacked(answer: &Answer) -> ReadResponse {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/x-protobuf");
    assert_eq!(answer.header("content-encoding"), "snappy");
    let bytes = snap::raw::Decoder::new()
        .decompress_vec(&answer.body)
        .unwrap();
    ReadResponse::decode(&bytes[..]).unwrap()
}

/// The series of an answer, as Prometheus writes them, each with how many points it has.
pub(crate) fn series(answer: &Answer) -> Vec<(String, usize)> {
    let ReadResponse { results } = unpacked(answer);
    let all = results.iter().flat_map(|result| &result.timeseries);
    let shown = |labels: &[LabelPair]| {
        assert!(labels.is_sorted_by(|a, b| a.name < b.name), "{labels:?}");
        let pairs = labels
            .iter()
            .map(|label| format!("{}={}", label.name, label.value));
        pairs.collect::<Vec<_>>().join(",")
    };
    all.map(|series| (shown(&series.labels), series.samples.len()))
        .collect()
}

/// One sample of each of two hosts, and the minute after.
async fn two_hosts(world: &World) -> [Holder; 2] {
    let nodes = [world.node("web1"), world.node("db1")];
    for node in &nodes {
        let token = world.token(node).await;
        let path = format!("/api/perf/{}/{}", node.name, world.clock.now());
        let values = json!({"cpu": 1, DISK: 2, REQUESTS: 3}).to_string();
        world
            .post(node, &token, &path, values)
            .await
            .no_content("a sample");
    }
    world.clock.advance(MINUTE);
    nodes
}

/// A node reads its own series alone, and a limited reader those of its hosts: of others they do not
/// learn that there are any.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_the_series_of_others() {
    let world = World::start().await;
    let [web, db] = two_hosts(&world).await;
    let reader = world.reader();
    let limited = world.holder_with(Role::Reader, "some", &["db*"]);
    let now = world.clock.now();
    let of = |host: &str| {
        [
            format!("__name__=cpu,host={host}"),
            format!("__name__=disk_used,host={host},label=disk-used:/home"),
            format!("__name__=requests,code=200,host={host}"),
        ]
    };
    let (all, any) = ((now - HOUR, now), MatcherType::Matches);
    for (holder, hosts) in [
        (&web, &["web1"][..]),
        (&db, &["db1"]),
        (&reader, &["db1", "web1"]),
        (&limited, &["db1"]),
    ] {
        for matchers in [
            &[][..],
            &[(any, "host", ".*")],
            &[(any, "host", "web1|db1")],
        ] {
            let request = read_request(matchers, all).encode_to_vec();
            let found = post_read(&world, holder, pack(&request)).await;
            let expected: Vec<_> = hosts
                .iter()
                .flat_map(|host| of(host))
                .map(|series| (series, 1))
                .collect();
            assert_eq!(series(&found), expected, "{} {matchers:?}", holder.name);
        }
        let token = world.token(holder).await;
        let get =
            async |path: &str| world.get(holder, &token, path).await.json(path)["data"].clone();
        assert_eq!(
            get("/api/v1/label/host/values").await,
            json!(hosts),
            "{}",
            holder.name
        );
        for host in ["web1", "db1"] {
            let of_host = [(MatcherType::Equal, "host", host)];
            let request = read_request(&of_host, all).encode_to_vec();
            let found = series(&post_read(&world, holder, pack(&request)).await);
            assert_eq!(found.len(), if hosts.contains(&host) { 3 } else { 0 });
            let path = format!("/api/v1/series?match[]=cpu%7Bhost=%22{host}%22%7D");
            let expected = match hosts.contains(&host) {
                true => json!([{"__name__": "cpu", "host": host}]),
                false => json!([]),
            };
            assert_eq!(get(&path).await, expected, "{} {host}", holder.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_as_prometheus_lists_them() {
    let world = World::start().await;
    two_hosts(&world).await;
    let reader = world.reader();
    let token = world.token(&reader).await;
    let get = async |path: &str| world.get(&reader, &token, path).await.json(path);
    let form = async |path: &str, form: &[(&str, &str)]| {
        let post = reader
            .http
            .post(world.url(path))
            .bearer_auth(&token)
            .form(form);
        answer(post).await.json(path)
    };
    let list = |data: Value| json!({"status": "success", "data": data});
    let names = json!(["__name__", "code", "host", "label", "stat"]);
    assert_eq!(get("/api/v1/labels").await, list(names.clone()));
    assert_eq!(get("/api/v1/labels?start=1&end=2.5").await, list(names));
    let of_cpu = json!(["__name__", "host"]);
    assert_eq!(
        get("/api/v1/labels?match[]=cpu").await,
        list(of_cpu.clone())
    );
    assert_eq!(
        form("/api/v1/labels", &[("match[]", "cpu")]).await,
        list(of_cpu)
    );
    for (path, expected) in [
        ("__name__/values", json!(["cpu", "disk_used", "requests"])),
        ("host/values", json!(["db1", "web1"])),
        ("label/values", json!([DISK])),
        ("stat/values", json!(["avg", "count", "max", "min", "sum"])),
        ("none/values", json!([])),
        (
            "__name__/values?match[]=%7Bhost=%22db1%22,code!=%22%22%7D",
            json!(["requests"]),
        ),
        ("host/values?match[]=none", json!([])),
    ] {
        let found = get(&format!("/api/v1/label/{path}")).await;
        assert_eq!(found, list(expected), "{path}");
    }
    let series = json!([
        {"__name__": "cpu", "host": "web1", "stat": "max"},
        {"__name__": "requests", "host": "web1", "code": "200"},
    ]);
    let both = [
        ("match[]", "cpu{stat=\"max\",host=\"web1\"}"),
        ("match[]", "requests{host='web1'}"),
    ];
    assert_eq!(form("/api/v1/series", &both).await, list(series));
    let first = get("/api/v1/label/__name__/values?limit=1").await;
    let cut = json!({"status": "success", "data": ["cpu"], "warnings": ["results truncated due to limit"]});
    assert_eq!(first, cut);
    for path in [
        "/api/v1/series",
        "/api/v1/series?match[]=cpu%7B",
        "/api/v1/series?match[]=%7B%7D",
        "/api/v1/series?match[]=cpu%7Bhost=~%22(%22%7D",
        "/api/v1/labels?match[]=sum(cpu)",
        "/api/v1/labels?limit=x",
        "/api/v1/labels?since=1",
        "/api/v1/label/a-b/values",
        "/api/v1/label/a%2Fb/values",
    ] {
        world
            .get(&reader, &token, path)
            .await
            .refused("malformed_query", path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_refused() {
    let world = World::start().await;
    two_hosts(&world).await;
    let reader = world.reader();
    let now = world.clock.now();
    let good = pack(&read_request(&[], (now - HOUR, now)).encode_to_vec());
    let (proto, snappy) = (
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
    );
    let of_read = (
        "content-type",
        "application/x-protobuf;proto=prometheus.ReadRequest",
    );
    let found = post_with(&world, &reader, &[of_read, snappy], good.clone()).await;
    assert_eq!(series(&found).len(), 6);
    for (story, headers, code) in [
        ("no type", &[snappy][..], "unsupported_media_type"),
        (
            "JSON",
            &[("content-type", "application/json"), snappy],
            "unsupported_media_type",
        ),
        (
            "a write",
            &[
                (
                    "content-type",
                    "application/x-protobuf;proto=prometheus.WriteRequest",
                ),
                snappy,
            ],
            "unsupported_media_type",
        ),
        ("not packed", &[proto], "unsupported_encoding"),
        (
            "gzip",
            &[proto, ("content-encoding", "gzip")],
            "unsupported_encoding",
        ),
    ] {
        let refused = post_with(&world, &reader, headers, good.clone()).await;
        refused.refused(code, story);
    }
    let equal = |name, value| (MatcherType::Matches, name, value);
    let of = |matchers: &[_]| pack(&read_request(matchers, (0, now)).encode_to_vec());
    let mut many = read_request(&[], (0, 1));
    many.queries = vec![many.queries[0].clone(); 17];
    for (story, body, code) in [
        ("nothing", Vec::new(), "malformed_protobuf"),
        ("no snappy", b"abc".to_vec(), "malformed_protobuf"),
        ("another size", vec![200, 1, 0, b'a'], "malformed_protobuf"),
        ("no message", pack(b"abc"), "malformed_protobuf"),
        ("a group", pack(&[0x0b, 0x0c]), "malformed_protobuf"),
        (
            "2 GiB",
            vec![0xff, 0xff, 0xff, 0xff, 7, 0, b'a'],
            "body_too_large",
        ),
        (
            "a million queries",
            pack(&[0x0a, 0].repeat(1 << 20)),
            "malformed_protobuf",
        ),
        ("a large body", vec![b'a'; 300 << 10], "body_too_large"),
        ("an expression", of(&[equal("a", "(")]), "malformed_query"),
        (
            "a large one",
            of(&[equal("a", "((a{100}){100}){100}")]),
            "malformed_query",
        ),
        (
            "many matchers",
            of(&[equal("a", "b"); 65]),
            "malformed_query",
        ),
        (
            "many queries",
            pack(&many.encode_to_vec()),
            "malformed_query",
        ),
    ] {
        let refused = post_read(&world, &reader, body).await;
        refused.refused(code, story);
    }
    // An empty message asks for nothing, and times may be any.
    assert_eq!(series(&post_read(&world, &reader, pack(b"")).await), []);
    for (start, end, count) in [
        (i64::MIN, i64::MAX, 6),
        (0, i64::MAX, 6),
        (i64::MAX, i64::MIN, 0),
        (i64::MAX, i64::MAX, 0),
        (i64::MIN, -1, 0),
        (now as i64 * 1_000 + 1, i64::MAX, 0),
    ] {
        let mut request = read_request(&[], (0, 0));
        request.queries[0].start_timestamp_ms = start;
        request.queries[0].end_timestamp_ms = end;
        let found = post_read(&world, &reader, pack(&request.encode_to_vec())).await;
        assert_eq!(series(&found).len(), count, "{start} {end}");
    }
    world.healthy().await;
}
