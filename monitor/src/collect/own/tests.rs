use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::super::collector::SelfStats;
use super::super::options::{CollectOptions, OwnCommand};
use super::super::readings::LabelBudget;
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
/// The wall clock of these tests.
const NOW: Duration = Duration::from_secs(1_465_001_814);

/// Takes samples, each a second after the last, until one has so many values; and what it noted.
fn sample_until(own: &OwnOptions, count: usize) -> (Vec<(String, f64)>, Option<CollectError>) {
    let options = CollectOptions {
        own: own.clone(),
        ..CollectOptions::default()
    };
    let start = CollectorStart {
        options: &options,
        monotonic: Arc::new(|| Duration::ZERO),
    };
    let mut collector = (OWN.start)(&start).unwrap();
    let mut budget = LabelBudget::new(OWN.labels_max, 0);
    for second in 0.. {
        let context = CollectContext {
            now: NOW,
            // It goes on only as far as no value grows old.
            monotonic: Duration::from_secs(second.min(50)),
            stats: SelfStats::default(),
            failures: 0,
        };
        let mut readings = Readings::new(&mut budget, context.monotonic);
        collector.collect(&context, &mut readings).unwrap();
        let (values, problem) = readings.finish();
        if values.len() >= count {
            let pairs = values
                .iter()
                .map(|(label, value)| (label.to_string(), value.get()));
            return (pairs.collect(), problem);
        }
        std::thread::yield_now();
    }
    unreachable!("the loop has no end")
}

fn file(folder: &std::path::Path, name: &str, text: &str, written: Duration) {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + written).unwrap();
}

#[test]
fn files_of_values() {
    let folder = tempfile::tempdir().unwrap();
    let own = OwnOptions {
        files: Some(folder.path().to_owned()),
        ..OwnOptions::default()
    };
    let path = folder.path();
    file(
        path,
        "a.txt",
        "smart:sda temperature 41\nsmart:sda wear 3\n",
        NOW,
    );
    // Of a clock that is ahead; not renamed yet; hidden.
    file(path, "b.txt", "jobs 2\n", NOW + HOUR);
    file(path, "c.txt.new", "left out 1\n", NOW);
    file(path, ".d.txt", "left out 1\n", NOW);
    let values = [
        ("own:jobs", 2.0),
        ("own:smart:sda temperature", 41.0),
        ("own:smart:sda wear", 3.0),
    ];
    let expect = |fault: Option<&str>| {
        let (mut pairs, problem) = sample_until(&own, values.len());
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            pairs,
            values.map(|(label, value)| (label.to_owned(), value))
        );
        let told = problem.map(|problem| problem.to_string());
        assert_eq!(told.as_deref(), fault);
    };
    expect(None);
    // Each of these is named, and stops no other.
    let stale = NOW - own.files_stale - Duration::from_secs(1);
    file(path, "e.txt", "old 1\n", stale);
    expect(Some("`e.txt`: it was not written for 601 s"));
    fs::remove_file(path.join("e.txt")).unwrap();
    fs::create_dir(path.join("e.txt")).unwrap();
    expect(Some("`e.txt`: it is not a file"));
    fs::remove_dir(path.join("e.txt")).unwrap();
    symlink("/nowhere", path.join("e.txt")).unwrap();
    expect(Some("`e.txt`: it cannot be read (entity not found)"));
    fs::remove_file(path.join("e.txt")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(path.join("e.txt"))
        .status();
    assert!(made.unwrap().success());
    expect(Some("`e.txt`: it is not a file"));
    fs::remove_file(path.join("e.txt")).unwrap();
    file(path, "e.txt", &"x".repeat((64 << 10) + 1), NOW);
    expect(Some("`e.txt`: it has more than 64 KiB"));
    file(path, "e.txt", "jobs\n", NOW);
    expect(Some("`e.txt`: line 1 is not `label value`"));
    file(path, "e.txt", "jobs 3\n", NOW);
    expect(Some("there are two values for the label `own:jobs`"));
}

#[test]
fn commands_beside_the_samples() {
    let command = |name: &str, script: &str| OwnCommand {
        name: name.to_owned(),
        words: ["sh", "-c", script].map(str::to_owned).to_vec(),
    };
    let own = OwnOptions {
        commands: vec![
            command("one", "echo 42"),
            command("several", "echo 'a b 1'; echo 'c 2'"),
            command("failed", "echo 1; exit 3"),
            // It never ends: no sample waits for it.
            command("hung", "sleep 1000"),
        ],
        ..OwnOptions::default()
    };
    let (mut pairs, problem) = sample_until(&own, 3);
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("own:a b", 1.0), ("own:c", 2.0), ("own:one", 42.0)];
    assert_eq!(
        pairs,
        expected.map(|(label, value)| (label.to_owned(), value))
    );
    // Whether that one has ended by then is not known.
    let told = problem.map(|problem| problem.to_string());
    let failed = "`failed`: it ended with exit code 3";
    assert!(
        told.is_none() || told.as_deref() == Some(failed),
        "{told:?}"
    );
}
