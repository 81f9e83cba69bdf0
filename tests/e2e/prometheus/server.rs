//! Debian's Prometheus, as documented, on a port of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::process::Running;
use crate::harness::{Holder, World, answer};

/// Debian's Prometheus with the settings of the documentation, which reads from the receiver as `holder`.
pub(crate) struct Prometheus {
    url: String,
    http: reqwest::Client,
    _running: Running,
}

impl Prometheus {
    pub(crate) fn start(world: &World, holder: &Holder) -> Self {
        let folder = world.folder().join("prometheus");
        std::fs::create_dir(&folder).unwrap();
        for (from, to) in [
            (&world.root(), "root.crt"),
            (&holder.cert, "prom1.crt"),
            (&holder.key, "prom1.key"),
        ] {
            std::fs::copy(from, folder.join(to)).unwrap();
        }
        let page = std::fs::read_to_string(document("docs/prometheus.md")).unwrap();
        let (_, config) = page.split_once("```yaml\n").unwrap();
        let (config, _) = config.split_once("```").unwrap();
        let config = config
            .replace("https://rx1.example:8443", &world.issuer())
            .replace("/etc/prometheus/lizmon", &folder.display().to_string());
        // It has some of its own.
        let config = format!("global: {{external_labels: {{site: lan}}}}\n{config}");
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--web.listen-address=127.0.0.1:0");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ));
        let mut running = Running::start(&mut command);
        let line = running.wait_for("msg=\"Listening on\"");
        let (_, address) = line.split_once("address=").unwrap();
        let url = format!("http://{}/api/v1", address.trim());
        running.said("Server is ready to receive web requests");
        Self {
            url,
            http: world.client(None, &["http/1.1"]),
            _running: running,
        }
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Value {
        let asked = answer(self.http.post(format!("{}{path}", self.url)).form(form)).await;
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(body["status"], "success", "{form:?}: {body}");
        body
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

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn number(text: &Value) -> f64 {
    text.as_str().unwrap().parse().unwrap()
}
