//! The rows of the table, and what is run for each.

use anyhow::{Context as _, Result};

use crate::foreign::has_nginx;
use crate::full_store::LABELS;
use crate::goal::{Goal, Outcome, Round, Row, median};
use crate::posts::{self, Posts};
use crate::run::Figures;
use crate::scene::{Placing, Scene};
use crate::server::{Kind, Server};
use crate::stores::Stores;
use crate::{batches, handshakes, others, protocols, queries, streams};

/// What `--only` selects: a row, or several of the same runs.
pub(crate) struct Selectable {
    pub(crate) id: &'static str,
    pub(crate) run: fn(&Scene, &str) -> Result<Vec<Row>>,
}

const fn row(id: &'static str, run: fn(&Scene, &str) -> Result<Vec<Row>>) -> Selectable {
    Selectable { id, run }
}

pub(crate) const ROWS: [Selectable; 16] = [
    row("single", single),
    row("clock", clock),
    row("connections-512", connections_512),
    row("http2", http2),
    row("connections-10000", connections_10000),
    row("batch", batch),
    row("batch-zstd", batch_zstd),
    row("handshake", handshake),
    row("half", half),
    row("get", get),
    row("series", series),
    row("hosts", hosts),
    row("monitor", monitor),
    row("issue", issue),
    row("scrapes", protocols::scrapes),
    row("steps", protocols::steps),
];

const PER_CPU_SEC: &str = "per server CPU second";
/// A load that sends less than this part of its rate is told apart: it or the server has no time.
const REACHED_MIN: f64 = 0.98;

/// Bare's and ours of a round.
type Pair = [Figures; 2];

/// Runs a load on bare and on ours in turn.
fn pairs(
    scene: &Scene,
    (id, placing): (&str, Placing),
    load: impl AsyncFn(&Server) -> Result<Figures>,
) -> Result<Vec<Pair>> {
    scene.rounds((id, [Kind::Bare, Kind::Ours]), |kind| {
        let figures = scene.load(kind, placing, &load)?;
        let said = figures.said();
        Ok((figures, said))
    })
}

fn post_pairs(scene: &Scene, of: (&str, Placing), posts: Posts) -> Result<Vec<Pair>> {
    pairs(scene, of, async |server| {
        posts::post(scene, server, posts).await
    })
}

fn beside_bare(pairs: &[Pair], of: impl Fn(&Figures) -> f64) -> Vec<Round> {
    let round = |[bare, ours]: &Pair| Round {
        baseline: Some(of(bare)),
        ours: of(ours),
    };
    pairs.iter().map(round).collect()
}

fn alone(ours: impl Iterator<Item = f64>) -> Vec<Round> {
    let round = |ours| Round {
        baseline: None,
        ours,
    };
    ours.map(round).collect()
}

fn flat_out(scene: &Scene, connections: usize) -> Posts {
    Posts {
        connections,
        rate: None,
        lasting: scene.options.lasting(),
    }
}

const NO_ROUND: &str = "no round was measured";

/// The rate that was asked for, and what became of it.
fn rate_note(rate: f64, reached: impl Iterator<Item = f64>) -> Result<String> {
    let reached = median(reached).context(NO_ROUND)?;
    Ok(match reached >= rate * REACHED_MIN {
        true => format!("at {rate:.0} a second"),
        false => format!("of {rate:.0} a second only {reached:.0} were sent: not a measurement"),
    })
}

fn single(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let posts = flat_out(scene, 64);
    let post = async |server: &Server| posts::post(scene, server, posts).await;
    let mut of_nginx = Vec::new();
    let pairs = scene.rounds((id, [Kind::Bare, Kind::Ours]), |kind| {
        if kind == Kind::Ours && has_nginx() {
            let nginx = scene.load(Kind::Nginx, Placing::Apart, post)?;
            eprintln!("{id} nginx: {}", nginx.said());
            of_nginx.push(nginx.per_cpu_sec());
        }
        let figures = scene.load(kind, Placing::Apart, post)?;
        let said = figures.said();
        Ok((figures, said))
    })?;
    let what = ("single POSTs, 64 connections, HTTP/1.1", PER_CPU_SEC);
    let bare = beside_bare(&pairs, Figures::per_cpu_sec);
    let with_nginx = pairs.iter().zip(&of_nginx);
    let with_nginx = with_nginx.map(|([_, ours], nginx)| Round {
        baseline: Some(*nginx),
        ours: ours.per_cpu_sec(),
    });
    let goal = Goal::RatioAtLeast(0.95);
    let mut nginx = Row::new("nginx", what, goal, with_nginx.collect()).beside("nginx's 204");
    if !has_nginx() {
        nginx.outcome = Outcome::NotMeasured("nginx is not installed".to_owned());
    }
    let bare = Row::new(id, what, Goal::RatioAtLeast(0.8), bare).beside("bare");
    Ok(vec![bare, nginx])
}

fn clock(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let pairs = post_pairs(scene, (id, Placing::AllCores), flat_out(scene, 64))?;
    let what = "the same, load and server on all cores";
    let per_sec = beside_bare(&pairs, Figures::per_sec);
    let p50 = beside_bare(&pairs, |figures| figures.latency_ms(0.5));
    let by_clock = (what, "per second on the clock");
    Ok(vec![
        Row::new(id, by_clock, Goal::RatioAtLeast(0.8), per_sec).beside("bare"),
        Row::new("clock-p50", (what, "p50, ms"), Goal::AtMost(1.0), p50).beside("bare"),
    ])
}

fn connections_512(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let pairs = post_pairs(scene, (id, Placing::Apart), flat_out(scene, 512))?;
    let rounds = beside_bare(&pairs, Figures::per_cpu_sec);
    let what = ("single POSTs, 512 connections", PER_CPU_SEC);
    let row = Row::new(id, what, Goal::RatioAtLeast(0.75), rounds);
    Ok(vec![row.beside("bare")])
}

fn http2(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let pairs = pairs(scene, (id, Placing::Apart), async |server| {
        streams::post(scene, server).await
    })?;
    let rounds = beside_bare(&pairs, Figures::per_cpu_sec);
    let (connections, each) = (streams::CONNECTIONS, streams::STREAMS);
    let what = format!("single POSTs, HTTP/2, {connections} x {each}");
    let row = Row::new(id, (&what, PER_CPU_SEC), Goal::RatioAtLeast(1.0), rounds);
    Ok(vec![row.beside("bare")])
}

fn connections_10000(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let connections = scene.options.many_connections();
    let rate = connections as f64;
    let posts = Posts {
        connections,
        rate: Some(rate),
        lasting: scene.options.lasting_at_least(10),
    };
    let pairs = post_pairs(scene, (id, Placing::Apart), posts)?;
    let note = rate_note(rate, pairs.iter().flatten().map(Figures::per_sec))?;
    let what = format!("{connections} connections at 1/s");
    let micros = beside_bare(&pairs, Figures::cpu_micros);
    let mib = beside_bare(&pairs, |figures| figures.rss_kib as f64 / 1_024.0);
    let cpu = Row::new(
        id,
        (&what, "CPU a request, us"),
        Goal::RatioAtMost(1.2),
        micros,
    );
    let goal = Goal::RatioAtMost(1.1);
    let memory = Row::new("memory-10000", (&what, "RSS, MiB"), goal, mib);
    Ok(vec![cpu.beside("bare").noted(note), memory.beside("bare")])
}

fn batch(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    batch_of(scene, id, (false, 5e6))
}

fn batch_zstd(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    batch_of(scene, id, (true, 4e6))
}

fn batch_of(scene: &Scene, id: &str, (is_packed, goal): (bool, f64)) -> Result<Vec<Row>> {
    let pairs = pairs(scene, (id, Placing::Apart), async |server| {
        batches::post(scene, server, is_packed).await
    })?;
    let (records, values) = (batches::RECORDS, batches::VALUES);
    let samples = (records * values) as f64;
    let rounds = beside_bare(&pairs, |figures| figures.per_cpu_sec() * samples);
    let form = if is_packed { "zstd" } else { "JSON" };
    let what = format!("batches of {records} x {values} values, {form}");
    let unit = "samples per server CPU second";
    let row = Row::new(id, (&what, unit), Goal::AtLeast(goal), rounds);
    Ok(vec![row.beside("bare")])
}

fn handshake(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let pairs = pairs(scene, (id, Placing::Apart), async |server| {
        handshakes::start(scene, server).await
    })?;
    let rounds = beside_bare(&pairs, Figures::per_cpu_sec);
    let what = ("handshake, token, first POST", PER_CPU_SEC);
    let row = Row::new(id, what, Goal::RatioAtLeast(0.85), rounds);
    Ok(vec![row.beside("bare")])
}

fn half(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let posts = flat_out(scene, 64);
    let capacity = scene.load(Kind::Ours, Placing::Apart, async |server| {
        posts::post(scene, server, posts).await
    })?;
    let rate = capacity.per_sec() / 2.0;
    eprintln!("{id}: half of the capacity is {rate:.0} a second");
    let posts = Posts {
        rate: Some(rate),
        lasting: scene.options.lasting_at_least(20),
        ..posts
    };
    let pairs = post_pairs(scene, (id, Placing::Apart), posts)?;
    let sent = rate_note(rate, pairs.iter().flatten().map(Figures::per_sec))?;
    let longest = pairs.iter().map(|[_, ours]| ours.latency_ms(1.0));
    let longest = median(longest).context(NO_ROUND)?;
    let what = "single POSTs at half the capacity";
    let row = |id, (unit, quantile, goal): (&str, f64, f64)| {
        let rounds = beside_bare(&pairs, |figures| figures.latency_ms(quantile));
        Row::new(id, (what, unit), Goal::AtMost(goal), rounds).beside("bare")
    };
    Ok(vec![
        row("half-p99", ("p99, ms", 0.99, 2.0))
            .noted(format!("{sent}; the longest {longest:.1} ms")),
        row("half-p99.9", ("p99.9, ms", 0.999, 10.0)),
    ])
}

/// Samples a second beside queries.
const POSTS_BESIDE: f64 = 50_000.0;

fn get(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let pairs = pairs(scene, (id, Placing::Apart), async |server| {
        queries::query(scene, server).await
    })?;
    let rate = if scene.options.quick {
        5_000.0
    } else {
        POSTS_BESIDE
    };
    let posts = Posts {
        rate: Some(rate),
        ..flat_out(scene, 64)
    };
    let beside = scene.rounds(("get-p99", [Kind::Ours]), |kind| {
        let [posts, gets] = scene.load(kind, Placing::AllCores, async |server| {
            queries::query_beside(scene, server, posts).await
        })?;
        let (said, p99) = (posts.said(), gets.latency_ms(0.99));
        Ok((
            (posts.per_sec(), p99),
            format!("{said}; GET p99 {p99:.2} ms"),
        ))
    })?;
    let note = rate_note(rate, beside.iter().map(|[(per_sec, _)]| *per_sec))?;
    let p99 = alone(beside.iter().map(|[(_, p99)]| *p99));
    let what = "GET of a host, 10 full labels";
    let cpu = beside_bare(&pairs, Figures::cpu_micros);
    let cpu = Row::new(id, (what, "CPU, us"), Goal::AtMost(40.0), cpu);
    let what = "the same beside POSTs, on all cores";
    let p99 = Row::new("get-p99", (what, "p99, ms"), Goal::AtMost(2.0), p99);
    Ok(vec![
        cpu.beside("bare, as many bytes"),
        p99.noted(format!("POSTs {note}")),
    ])
}

fn series(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let series = scene.options.series();
    let mut stores = Stores::new(scene);
    let (mut bytes, mut scaled, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..scene.options.rounds() {
        let (empty, full) = (stores.start(0)?, stores.start(series / LABELS)?);
        let added = full.rss_kib.saturating_sub(empty.rss_kib) * 1_024;
        let each = added as f64 / series as f64;
        let (least, secs) = (empty.took.as_secs_f64(), full.took.as_secs_f64());
        eprintln!(
            "{id} {}: {each:.0} bytes, READY after {secs:.2} s",
            round + 1
        );
        bytes.push(each);
        scaled.push(least + (secs - least).max(0.0) * 1e6 / series as f64);
        took.push(secs);
    }
    let took = median(took.into_iter()).context(NO_ROUND)?;
    let note = format!("{took:.2} s with {series} series, scaled to a million");
    let (bytes, scaled) = (alone(bytes.into_iter()), alone(scaled.into_iter()));
    let memory = ("a full series", "RSS, bytes");
    let memory = Row::new(id, memory, Goal::AtMost(2_300.0), bytes);
    let start = ("restart with a million series", "s until READY");
    let start = Row::new("restart", start, Goal::AtMost(2.0), scaled);
    Ok(vec![
        memory.noted(format!("{series} series")),
        start.noted(note),
    ])
}

fn hosts(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let sizes = [100, 1_000, 10_000, 100_000].into_iter();
    let sizes: Vec<u64> = sizes
        .filter(|hosts| *hosts <= scene.options.hosts())
        .collect();
    let mut stores = Stores::new(scene);
    let (mut rounds, mut said) = (Vec::new(), String::new());
    for round in 0..scene.options.rounds() {
        let costs = sizes.iter().map(|hosts| stores.sample_cost(*hosts));
        let costs = costs.collect::<Result<Vec<_>>>()?;
        let each = sizes.iter().zip(&costs);
        let each = each.map(|(hosts, cost)| format!("{hosts} hosts {cost:.2} us"));
        said = each.collect::<Vec<_>>().join(", ");
        eprintln!("{id} {}: {said}", round + 1);
        if let [least, .., most] = costs[..] {
            rounds.push(Round {
                baseline: Some(least),
                ours: most,
            });
        }
    }
    let most = sizes.last().copied().context(NO_ROUND)?;
    let what = format!("a set of ten values, {most} hosts");
    let unit = "CPU in journal and summaries, us";
    let row = Row::new(id, (&what, unit), Goal::RatioAtMost(1.5), rounds);
    let row = row.beside("100 hosts");
    Ok(vec![row.noted(format!("last round: {said}"))])
}

fn monitor(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let figures = others::monitor(scene, scene.options.lasting_at_least(30))?;
    let what = "monitor at 1 s, cpu and mem, with spool";
    let row = |(id, unit, figure, goal)| {
        let rounds = alone(std::iter::once(figure));
        Row::new(id, (what, unit), Goal::AtMost(goal), rounds)
    };
    let waits = "voluntary context switches a second";
    Ok(vec![
        row((id, "CPU a sample, ms", figures.cpu_ms_per_sample, 0.5)),
        row(("monitor-memory", "RSS, MiB", figures.rss_mib, 10.0)),
        row(("monitor-wakes", waits, figures.waits_per_sec, 3.0)),
    ])
}

fn issue(scene: &Scene, id: &str) -> Result<Vec<Row>> {
    let count = if scene.options.quick { 200 } else { 3_000 };
    let (mut in_memory, mut to_disk) = (Vec::new(), Vec::new());
    for round in 0..scene.options.rounds() {
        let memory = others::issue_in_memory(count)?;
        let disk = others::issue_to_disk(scene, count)?;
        eprintln!(
            "{id} {}: {memory:.0} in memory, {disk:.0} to disk",
            round + 1
        );
        in_memory.push(memory);
        to_disk.push(disk);
    }
    let what = format!("{count} certificates in bulk, P-256");
    let row = |id, (unit, goal, figures): (&str, f64, Vec<f64>)| {
        let rounds = alone(figures.into_iter());
        Row::new(id, (&*what, unit), Goal::AtLeast(goal), rounds)
    };
    let memory = ("in memory, per CPU second", 10_000.0, in_memory);
    let disk = (
        "to disk, per second on the clock, one core",
        3_000.0,
        to_disk,
    );
    Ok(vec![row(id, memory), row("issue-files", disk)])
}
