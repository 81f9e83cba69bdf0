//! `lizctl open`: a browser without a certificate reads through it, and nobody else does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Command;

use lizmon_ca::pki::Reason;
use lizmon_mtls::identity::Identity;
use lizmon_protocol::name::Role;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::enrolment::CaServer;
use crate::harness::World;
use crate::harness::process::{PATIENCE, Running, program, run};
use crate::harness::raw::tls_config;
use crate::harness::world::Holder;

fn open(world: &World, holder: &Holder, arguments: &[&str]) -> Command {
    let mut command = program("lizctl");
    command.args(["open", "--print"]).args(arguments);
    command.arg("--receiver").arg(world.issuer());
    command.arg("--cert").arg(&holder.cert);
    command.arg("--key").arg(&holder.key);
    command.arg("--ca").arg(world.root());
    command
}

/// A running `open`, and a browser.
struct Opened {
    running: Running,
    /// With the key.
    url: String,
    /// `http://127.0.0.1:PORT`
    origin: String,
    http: reqwest::Client,
}

fn browser(world: &World) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls_config(&world.root(), None, &["http/1.1"]))
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
}

impl Opened {
    fn start(world: &World, mut command: Command) -> Self {
        let mut running = Running::start(&mut command);
        let url = running.wait_for("http://");
        let (origin, _key) = url.split_once("/open/").expect("a key");
        Self {
            origin: origin.to_owned(),
            running,
            url,
            http: browser(world),
        }
    }

    fn port(&self) -> u16 {
        self.origin.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Uses the key, as a browser and as a script do: with and without `Accept`.
    async fn open(&self) -> reqwest::Response {
        self.http.get(&self.url).send().await.unwrap()
    }

    /// Uses the key. The cookie's pair.
    async fn cookie(&self) -> String {
        let opened = self.open().await;
        assert_eq!(opened.status(), StatusCode::SEE_OTHER);
        let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
        assert!(pair.contains(&self.port().to_string()), "{pair}");
        pair.to_owned()
    }

    /// The status of a GET with these headers.
    async fn status(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.http.get(format!("{}{path}", self.origin));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    }

    /// The status of what is sent exactly like this. What follows `~` is a header's end.
    fn raw(&self, head: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port())).unwrap();
        let head = format!("{head}~connection: close~~").replace('~', "\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        let status = text
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("{head}: {text}"));
        status.parse().unwrap()
    }

    fn end(self) {
        self.running.signal(Signal::INT);
        self.running.wait().success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_with_the_readers_certificate() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let token = world.token(&node).await;
    let path = format!("/api/perf/web1/{}", world.clock.now());
    let posted = world.post(&node, &token, &path, r#"{"disk:/":1}"#).await;
    posted.no_content("a sample");
    let opened = Opened::start(&world, open(&world, &reader, &["web1"]));
    let first = opened.open().await;
    assert_eq!(first.status(), StatusCode::SEE_OTHER);
    let header = |name: &str| first.headers()[name].to_str().unwrap();
    assert_eq!(header("location"), "/hosts/web1");
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    let cookie = header("set-cookie").split(';').next().unwrap();
    let get = |path: &str| {
        let request = opened.http.get(format!("{}{path}", opened.origin));
        request.header("cookie", cookie).send()
    };
    // Labels may have slashes, and the answer is the receiver's own.
    for path in [
        "/api/perf",
        "/api/perf/web1",
        "/api/perf/web1/disk:/",
        "/api/perf/web1/disk:%2F",
        "/api/delivery/web1",
        "/healthz",
        "/readyz",
    ] {
        let answer = get(path).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        for (name, value) in [
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
        assert!(!answer.headers().contains_key("set-cookie"), "{path}");
        let token = world.token(&reader).await;
        let direct = world.get(&reader, &token, path).await;
        assert_eq!(answer.bytes().await.unwrap(), direct.body, "{path}");
    }
    let url = format!("{}/api/perf", opened.origin);
    let head = opened.http.head(url).header("cookie", cookie);
    assert_eq!(head.send().await.unwrap().status(), StatusCode::OK);
    // The receiver's refusals are its own, too.
    let unknown = get("/api/perf/nobody").await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let unknown: Value = serde_json::from_slice(&unknown.bytes().await.unwrap()).unwrap();
    assert_eq!(unknown["code"], "unknown_host");
    opened.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_else_is_refused() {
    let world = World::start().await;
    let reader = world.reader();
    // A cookie of an earlier run, on the same port.
    let earlier = Opened::start(&world, open(&world, &reader, &[]));
    let listen = format!("127.0.0.1:{}", earlier.port());
    let old_cookie = earlier.cookie().await;
    earlier.end();
    let opened = Opened::start(&world, open(&world, &reader, &["--listen", &listen]));
    assert_eq!(
        opened.port().to_string(),
        listen.rsplit(':').next().unwrap()
    );
    let path = "/api/perf";
    assert_eq!(opened.status(path, &[]).await, 401, "no cookie");
    let old = [("cookie", old_cookie.as_str())];
    assert_eq!(opened.status(path, &old).await, 401, "an old cookie");
    let key = opened.url.strip_prefix(&opened.origin).unwrap();
    // None of these uses the key up.
    for (header, value, expected) in [
        ("host", "evil.example", 421),
        ("origin", "http://evil.example", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-purpose", "prefetch;prerender", 503),
        // A clipboard's or a chat's preview.
        ("accept", "image/avif,image/webp", 503),
        ("sec-fetch-mode", "no-cors", 503),
    ] {
        let page = ("accept", "text/html");
        let got = match header {
            "accept" => opened.status(key, &[(header, value)]).await,
            _ => opened.status(key, &[page, (header, value)]).await,
        };
        assert_eq!(got, expected, "{header}: {value}");
    }
    let head = opened.http.head(&opened.url).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    let cookie = opened.cookie().await;
    let with = |name, value| [("cookie", cookie.as_str()), (name, value)];
    assert_eq!(opened.status(path, &with("accept", "*/*")).await, 200);
    let own_origin = opened.origin.clone();
    for (name, value, expected) in [
        ("origin", own_origin.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
        ("host", "evil.example", 421),
        ("host", "0.0.0.0", 421),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
    ] {
        let got = opened.status(path, &with(name, value)).await;
        assert_eq!(got, expected, "{name}: {value}");
    }
    let elsewhere = browser(&world)
        .get(&opened.url)
        .header("accept", "text/html");
    let elsewhere = elsewhere.send().await.unwrap();
    assert_eq!(
        elsewhere.status(),
        StatusCode::UNAUTHORIZED,
        "the key again"
    );
    let page = elsewhere.text().await.unwrap();
    assert!(page.contains("run `lizctl open` again"), "{page}");
    // What is not on the list, in any spelling, and what is meant for a proxy.
    let host = format!("host: 127.0.0.1:{}~cookie: {cookie}", opened.port());
    for (line, expected) in [
        ("GET /api/perf", 200),
        ("POST /api/perf/web1/1", 405),
        ("PUT /api/crl", 405),
        ("DELETE /", 405),
        ("OPTIONS *", 405),
        ("GET /metrics", 404),
        ("GET /oauth2/token", 404),
        ("GET /api/certificates", 404),
        ("GET /api/perf/../certificates", 404),
        ("GET /api/perf/%2e%2e/certificates", 404),
        ("GET /api/perf/web1/../../certificates", 404),
        ("GET /api/perf/web1/%2e%2E/.%2e/certificates", 404),
        ("GET /api/perf/web1/..%2f..%2fcertificates", 404),
        ("GET //api/perf", 404),
        ("GET /api//perf", 404),
        ("GET /assets/..%5cmetrics", 404),
        ("GET http://127.0.0.1/api/perf", 400),
        ("GET http://evil.example/", 400),
        ("CONNECT evil.example:443", 405),
    ] {
        assert_eq!(
            opened.raw(&format!("{line} HTTP/1.1~{host}")),
            expected,
            "{line}"
        );
    }
    let twice = format!("GET /api/perf HTTP/1.1~{host}~host: evil.example");
    assert_ne!(opened.raw(&twice), 200, "two hosts");
    opened.end();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let done = run(&mut open(&world, &reader, &["--listen", address]));
        assert_eq!(done.status.code(), Some(2), "{address}: {}", done.stderr);
    }
}

/// The page says what is wrong, and works again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_and_a_revoked_reader_are_told() {
    let mut world = World::start().await;
    let reader = world.reader();
    let opened = Opened::start(&world, open(&world, &reader, &[]));
    let cookie = opened.cookie().await;
    let page = |path: &str| {
        let request = opened.http.get(format!("{}{path}", opened.origin));
        let request = request
            .header("cookie", &cookie)
            .header("accept", "text/html");
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    assert_eq!(page("/api/perf").await.0, 200);
    world.stop().await;
    let (status, text) = page("/").await;
    assert_eq!(status, 502, "{text}");
    assert!(
        text.contains("does not answer") && text.contains("http-equiv=\"refresh\""),
        "{text}"
    );
    // A stream of events is tried again by the browser after one that ends well, and after no other.
    let events = opened.http.get(format!("{}/live", opened.origin));
    let events = events
        .header("cookie", &cookie)
        .header("accept", "text/event-stream");
    let events = events.send().await.unwrap();
    assert_eq!(events.status(), StatusCode::OK);
    assert_eq!(events.text().await.unwrap(), "retry: 5000\n\n");
    world.boot_on_same_port().await;
    assert_eq!(page("/api/perf").await.0, 200, "it recovers");
    let (name, now) = (reader.name.parse().unwrap(), world.clock.now());
    let revoked = world
        .ca
        .revoke_holder(Role::Reader, &name, Reason::KeyCompromise, now);
    revoked.unwrap();
    let told = async {
        loop {
            let (status, text) = page("/api/perf").await;
            if status != 200 {
                return (status, text);
            }
        }
    };
    let (status, text) = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("it is refused");
    assert!(matches!(status, 401 | 502), "{status}: {text}");
    assert!(text.contains("refuses your certificate"), "{text}");
    assert!(!text.contains("http-equiv"), "it waits for nothing: {text}");
    opened.end();
    // Nor does another one begin.
    run(&mut open(&world, &reader, &[])).failure(3);
}

/// It serves for weeks: the certificate is renewed meanwhile, and the one before is not needed then.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_renewed_while_it_serves() {
    let world = World::start().await;
    let ca_server = CaServer::open(&world).await;
    // Past two thirds of its life, so that it is due at once.
    let reader = world.holder_for(Role::Reader, "ada", 1_800);
    let old = reader.shown();
    let ca_url = ca_server.base();
    let mut opened = Opened::start(&world, open(&world, &reader, &["--ca-url", &ca_url]));
    let cookie = opened.cookie().await;
    let said = opened.running.wait_for("was renewed");
    assert!(
        said.contains("spiffe://lizmon.internal/reader/ada"),
        "{said}"
    );
    let new = reader.shown();
    assert_ne!(new.chain[0], old.chain[0]);
    assert_ne!(new.key, old.key);
    let serial = Identity::from_der(&old.chain[0]).unwrap().serial;
    let serial = hex::encode(serial);
    let serial = serial.trim_start_matches("00").parse().unwrap();
    let (reason, now) = (Reason::Superseded, world.clock.now());
    world.ca.revoke(&serial, reason, now).unwrap();
    let with_old = world.client(Some(old), &["http/1.1"]);
    let refused = async {
        while with_old
            .get(world.url("/"))
            .send()
            .await
            .is_ok_and(|got| got.status() == 200)
        {}
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("the one before is refused");
    let cookie = [("cookie", cookie.as_str())];
    let served = async { while opened.status("/api/perf", &cookie).await != 200 {} };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("it is served with the new one");
    opened.end();
}

/// Where there is no CA to renew at, the terminal and the page say in time that it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nothing_renews_is_complained_of() {
    let world = World::start().await;
    let reader = world.holder_for(Role::Reader, "ada", 1_800);
    let mut opened = Opened::start(&world, open(&world, &reader, &[]));
    let said = opened.running.said("nothing renews it");
    assert!(said.contains("WARN") && said.contains("--ca-url"), "{said}");
    let cookie = opened.cookie().await;
    let page = opened.http.get(format!("{}/", opened.origin));
    let page = page.header("cookie", cookie).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("your certificate ends in"), "{page}");
    opened.end();
}

/// What the page listens to: events arrive as they happen, and a reader who is revoked gets no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_live_and_ends_with_the_right_to_read() {
    let world = World::start().await;
    let (node, reader) = (world.node("web1"), world.reader());
    let token = world.token(&node).await;
    let send = async |value: u32| {
        // What has come since the last event is told: by seconds.
        world.clock.advance(1);
        let path = format!("/api/perf/web1/{}", world.clock.now());
        let body = format!(r#"{{"cpu":{value}}}"#);
        world
            .post(&node, &token, &path, body)
            .await
            .no_content("a sample");
    };
    send(1).await;
    let opened = Opened::start(&world, open(&world, &reader, &[]));
    let cookie = opened.cookie().await;
    let streams = ["/live?host=web1", "/api/live"].map(|path| {
        let request = opened.http.get(format!("{}{path}", opened.origin));
        request
            .header("cookie", &cookie)
            .header("accept", "text/event-stream")
            .send()
    });
    let mut streams = futures_util::future::try_join_all(streams).await.unwrap();
    // Reads on until an event says so; false at the end.
    let reads = async |stream: &mut reqwest::Response, text: &str| {
        let mut seen = String::new();
        while !seen.contains(text) {
            match stream.chunk().await {
                Ok(Some(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    };
    for stream in &mut streams {
        let first = tokio::time::timeout(PATIENCE, reads(stream, "event: summaries"));
        assert!(first.await.expect("an event in time"));
    }
    // Only what is sent now has this maximum.
    send(77).await;
    for stream in &mut streams {
        let live = tokio::time::timeout(PATIENCE, reads(stream, "77"));
        assert!(live.await.expect("it arrives while the stream is open"));
    }
    let (name, now) = (reader.name.parse().unwrap(), world.clock.now());
    let revoked = world
        .ca
        .revoke_holder(Role::Reader, &name, Reason::KeyCompromise, now);
    revoked.unwrap();
    for stream in &mut streams {
        let ended = tokio::time::timeout(PATIENCE, reads(stream, "there is no such event"));
        assert!(!ended.await.expect("it ends"));
    }
    opened.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_its_owners_alone() {
    let world = World::start().await;
    let reader = world.reader();
    let socket = world.folder().join("lizmon.sock");
    let path = socket.to_str().unwrap();
    let start = || {
        let mut running = Running::start(&mut open(&world, &reader, &["--socket", path]));
        running.wait_for("listening at");
        running
    };
    let curl = |path: &str| {
        let mut command = Command::new("curl");
        command.args([
            "-qsS",
            "--noproxy",
            "*",
            "--max-time",
            "30",
            "--unix-socket",
        ]);
        run(command.arg(&socket).args(["-w", "%{http_code}", path])).success()
    };
    let running = start();
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    // Any name of a host will do, without a cookie; the paths are the same.
    let shown = curl("http://grafana/api/perf");
    assert_eq!(shown, r#"{"hosts":[]}200"#);
    assert!(curl("http://localhost/metrics").ends_with("404"));
    let second = run(&mut open(&world, &reader, &["--socket", path]));
    second.failure(1);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    // One that was killed leaves its socket behind, which is replaced.
    running.kill();
    assert!(socket.exists());
    let running = start();
    assert!(curl("http://localhost/healthz").ends_with("200"));
    running.signal(Signal::TERM);
    running.wait().success();
    assert!(!socket.exists(), "it is removed");
    // What is no socket stays.
    let victim = world.folder().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &socket).unwrap();
    for place in [&socket, &victim] {
        let done = run(&mut open(
            &world,
            &reader,
            &["--socket", place.to_str().unwrap()],
        ));
        done.failure(1);
        assert!(done.stderr.contains("is no socket"), "{}", done.stderr);
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}
