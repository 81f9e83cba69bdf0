//! Debian's Prometheus and node_exporter, as documented, on ports of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::documents::root;
use crate::harness::process::{Running, run};
use crate::harness::{Holder, World, answer};

/// Debian's Prometheus, with a configuration of the documentation.
pub(crate) struct Prometheus {
    address: String,
    http: reqwest::Client,
    folder: PathBuf,
    running: Running,
}

/// The first YAML below this heading of a page.
pub(crate) fn yaml_below(page: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (_, below) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, yaml) = below.split_once("```yaml\n").unwrap();
    yaml.split_once("```").unwrap().0.to_owned()
}

/// A configuration of docs/prometheus.md, for this world's receiver.
pub(crate) fn documented(world: &World, heading: &str) -> String {
    for_world(world, &yaml_below("docs/prometheus.md", heading))
}

/// The same for this world's receiver, with the files of [`Prometheus::start`].
pub(crate) fn for_world(world: &World, config: &str) -> String {
    let config = replaced(config, "https://rx1.example:8443", &world.issuer());
    let folder = folder(world).display().to_string();
    replaced(&config, "/etc/prometheus/lizmon", &folder)
}

/// With another text for one that is there.
#[track_caller]
pub(crate) fn replaced(config: &str, text: &str, other: &str) -> String {
    assert!(config.contains(text), "no `{text}` in\n{config}");
    config.replace(text, other)
}

/// Where its files are.
pub(crate) fn folder(world: &World) -> PathBuf {
    world.folder().join("prometheus")
}

impl Prometheus {
    /// Starts it with the certificate of `holder`, whose name the files have.
    pub(crate) fn start(world: &World, holder: &Holder, config: &str) -> Self {
        let folder = folder(world);
        std::fs::create_dir_all(&folder).unwrap();
        for (from, to) in [
            (&world.root(), "root.crt"),
            (&holder.cert, &*format!("{}.crt", holder.name)),
            (&holder.key, &*format!("{}.key", holder.name)),
        ] {
            std::fs::copy(from, folder.join(to)).unwrap();
        }
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--web.listen-address=127.0.0.1:0");
        command.arg(format!("--config.file={}", file.display()));
        let data = folder.join("data");
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        let mut running = Running::start(&mut command);
        let address = listening(&mut running);
        running.said("Server is ready to receive web requests");
        Self {
            address,
            http: world.client(None, &["http/1.1"]),
            folder,
            running,
        }
    }

    /// Has another configuration from now on.
    pub(crate) fn reload(&mut self, config: &str) {
        std::fs::write(self.folder.join("prometheus.yml"), config).unwrap();
        self.running.signal(Signal::HUP);
        let loaded = "Completed loading of configuration file";
        self.running.wait_for(loaded);
    }

    /// Waits for a line of its log.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.running.wait_for(text)
    }

    /// Ends it, and returns what its own tool shows of its storage: `{labels} value milliseconds`.
    pub(crate) fn stop_and_dump(self) -> String {
        self.running.signal(Signal::TERM);
        self.running.wait().success();
        let mut promtool = Command::new("promtool");
        promtool
            .args(["tsdb", "dump"])
            .arg(self.folder.join("data"));
        run(&mut promtool).success()
    }

    /// The sum of a metric of its own.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.address);
        let text = answer(self.http.get(url)).await.text();
        let of_metric = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' '])
                .then_some(rest)?
                .rsplit_once(' ')
        });
        let values: Vec<f64> = of_metric.map(|(_, value)| value.parse().unwrap()).collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Value {
        let request = self.http.post(self.api(path)).form(form);
        Self::succeeded(request).await
    }

    /// What it has: names, series.
    pub(crate) async fn list(&self, path: &str) -> Value {
        Self::succeeded(self.http.get(self.api(path))).await["data"].clone()
    }

    fn api(&self, path: &str) -> String {
        format!("http://{}/api/v1{path}", self.address)
    }

    async fn succeeded(request: reqwest::RequestBuilder) -> Value {
        let asked = answer(request).await;
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body["status"], "success", "{body}");
        body
    }

    /// The values of a query now.
    pub(crate) async fn values(&self, query: &str) -> Vec<f64> {
        let body = self.ask("/query", &[("query", query.to_owned())]).await;
        let result = &body["data"]["result"];
        if body["data"]["resultType"] == "scalar" {
            return vec![number(&result[1])];
        }
        let found = result.as_array().unwrap().iter();
        found.map(|found| number(&found["value"][1])).collect()
    }

    /// The one value of a query at a time.
    pub(crate) async fn value(&self, query: &str, time: u64) -> f64 {
        let form = [("query", query.to_owned()), ("time", time.to_string())];
        let body = self.ask("/query", &form).await;
        assert_eq!(body["warnings"], Value::Null, "{query}");
        let [found] = &body["data"]["result"].as_array().unwrap()[..] else {
            panic!("{query}: {body}");
        };
        number(&found["value"][1])
    }

    /// The points of the one series of a query.
    pub(crate) async fn range(
        &self,
        query: &str,
        (start, end): (u64, u64),
        step: u64,
    ) -> Vec<(u64, f64)> {
        let form = [
            ("query", query.to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
            ("step", step.to_string()),
        ];
        let body = self.ask("/query_range", &form).await;
        let [found] = &body["data"]["result"].as_array().unwrap()[..] else {
            panic!("{query}: {body}");
        };
        let points = found["values"].as_array().unwrap().iter();
        let point = |point: &Value| (point[0].as_u64().unwrap(), number(&point[1]));
        points.map(point).collect()
    }
}

/// Debian's node_exporter, with every collector that it has of itself.
pub(crate) struct NodeExporter {
    pub(crate) address: String,
    _running: Running,
}

impl NodeExporter {
    /// `texts` is a folder whose `*.prom` files are among its metrics.
    pub(crate) fn start(texts: &Path) -> Self {
        let mut command = Command::new("prometheus-node-exporter");
        command.arg("--web.listen-address=127.0.0.1:0");
        let texts = texts.display();
        command.arg(format!("--collector.textfile.directory={texts}"));
        let mut running = Running::start(&mut command);
        Self {
            address: listening(&mut running),
            _running: running,
        }
    }
}

/// The address in the log of a program of Prometheus.
fn listening(running: &mut Running) -> String {
    let line = running.wait_for("msg=\"Listening on\"");
    let (_, address) = line.split_once("address=").unwrap();
    address.split(' ').next().unwrap().to_owned()
}

fn number(text: &Value) -> f64 {
    text.as_str().unwrap().parse().unwrap()
}
