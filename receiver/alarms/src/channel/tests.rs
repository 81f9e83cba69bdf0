#![expect(
    clippy::disallowed_methods,
    reason = "tests look again until it is so, for a limited time"
)]

use std::path::Path;
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::rules::AlarmSeverity;
use crate::state::AlarmState;

#[test]
fn waits_grow_up_to_a_limit() {
    let secs = |failures, chance| backoff(failures, chance).as_secs_f64();
    let first = [0, 1, 2, 3].map(|failures| secs(failures, 0.5));
    assert_eq!(first, [1.0, 2.0, 4.0, 8.0]);
    assert_eq!((secs(40, 0.0), secs(u32::MAX, 1.0)), (90.0, 150.0));
}

fn channels(rules: &str) -> Channels {
    let rules = RuleSet::parse(Path::new("rules.toml"), rules).unwrap();
    let clock = ChannelClock {
        now: Arc::new(|| 1_465_001_814),
        chance: Arc::new(|| 0.0),
    };
    let runtime = tokio::runtime::Handle::current();
    Channels::start(Arc::new(rules), Arc::default(), clock, runtime)
}

fn notice(id: &str) -> AlarmNotice {
    AlarmNotice {
        id: format!("{id}-firing"),
        alarm: id.to_owned(),
        state: AlarmState::Firing,
        rule: "silent".to_owned(),
        label: String::new(),
        severity: AlarmSeverity::Critical,
        since: 1_465_001_000,
        at: 1_465_001_814,
        value: 814.0,
        flapping: None,
        reason: String::new(),
        held: false,
        to: Vec::new(),
    }
}

async fn accepted(channels: &Channels, count: usize) -> Vec<Accepted> {
    let begun = Instant::now();
    let mut accepted = Vec::new();
    while accepted.len() < count {
        assert!(begun.elapsed().as_secs() < 60, "only {accepted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        accepted.extend(channels.take_accepted());
    }
    accepted
}

/// Reads a request with a body, and answers it. The headers and the body.
async fn serve(connection: &TcpStream, status: &str) -> String {
    let mut request = Vec::new();
    loop {
        connection.readable().await.unwrap();
        let mut some = [0; 4_096];
        match connection.try_read(&mut some) {
            Ok(0) => break,
            Ok(length) => request.extend(&some[..length]),
            Err(_) => continue,
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let value = line.to_ascii_lowercase();
            value
                .strip_prefix("content-length: ")?
                .parse::<usize>()
                .ok()
        });
        if body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    connection.writable().await.unwrap();
    connection.try_write(answer.as_bytes()).unwrap();
    String::from_utf8(request).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_again_as_it_was_until_it_is_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let channels = channels(&format!("[channels.a.webhook]\nurl = \"{url}\"\n"));
    assert!(channels.send("a", "web1", &notice("1")));
    assert!(!channels.send("b", "web1", &notice("1")), "there is none");
    let mut requests = Vec::new();
    for status in ["500 Broken", "204 No Content"] {
        let (connection, _) = listener.accept().await.unwrap();
        requests.push(serve(&connection, status).await);
    }
    let expected = Accepted {
        host: "web1".to_owned(),
        notice: "1-firing".to_owned(),
        channel: "a".to_owned(),
    };
    assert_eq!(accepted(&channels, 1).await, [expected]);
    assert_eq!(requests[0], requests[1]);
    assert!(
        requests[0].contains("webhook-id: 1-firing\r\n"),
        "{}",
        requests[0]
    );
    let report = &channels.reports()[0];
    assert_eq!((report.accepted, report.failed, report.given_up), (1, 1, 0));
    assert_eq!(report.failing, None);
}

/// What no repetition would change is given up at once, so that it holds up no other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let channels = channels(&format!("[channels.a.webhook]\nurl = \"{url}\"\n"));
    for id in ["1", "2"] {
        channels.send("a", "web1", &notice(id));
    }
    for status in ["422 Unprocessable", "200 OK"] {
        let (connection, _) = listener.accept().await.unwrap();
        serve(&connection, status).await;
    }
    assert_eq!(accepted(&channels, 2).await.len(), 2);
    let report = &channels.reports()[0];
    assert_eq!((report.accepted, report.given_up), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_hangs_delays_no_other() {
    // It accepts connections, and answers none.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", hanging.local_addr().unwrap());
    let channels = channels(&format!(
        "[channels.a.webhook]\nurl = \"{url}\"\n[channels.b.command]\ncommand = [\"/bin/true\"]\n"
    ));
    for id in ["1", "2", "3"] {
        assert!(channels.send("a", "web1", &notice(id)));
        assert!(channels.send("b", "web1", &notice(id)));
    }
    let accepted = accepted(&channels, 3).await;
    assert!(
        accepted.iter().all(|one| one.channel == "b"),
        "{accepted:?}"
    );
}

/// A queue that is full takes no more, and waits for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_has_its_limit() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", hanging.local_addr().unwrap());
    let channels = channels(&format!("[channels.a.webhook]\nurl = \"{url}\"\n"));
    let sent = (0..2 * QUEUE_MAX).filter(|at| channels.send("a", "h", &notice(&at.to_string())));
    // One of them is on its way.
    assert!((QUEUE_MAX..=QUEUE_MAX + 1).contains(&sent.count()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let folder = std::env::temp_dir().join(format!("lizmon-alarms-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("child");
    let channels = channels(&format!(
        "[channels.a.command]\ntimeout = \"2s\"\ncommand = [\"/bin/sh\", \"-c\", \"sleep 600 & echo $! > {}; wait\"]\n",
        file.display()
    ));
    let refused = channels.test("a", "1", "web1").await.unwrap_err();
    assert!(
        refused.to_string().contains("no answer within 2 s"),
        "{refused}"
    );
    let child: i32 = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let child = rustix::process::Pid::from_raw(child).unwrap();
    // Whoever has adopted it reaps it; a zombie has no command line.
    let line = format!("/proc/{}/cmdline", child.as_raw_nonzero());
    let begun = Instant::now();
    while std::fs::read(&line).is_ok_and(|line| !line.is_empty()) {
        assert!(begun.elapsed().as_secs() < 30, "it is still there");
        tokio::task::yield_now().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A body template that fails for one label alone held up everything behind it for a day.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_swallows_no_alarm() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let body = "body = \"{% if label == 'cpu' %}{{ nothing }}{% endif %}told\"";
    let channels = channels(&format!("[channels.a.webhook]\nurl = \"{url}\"\n{body}\n"));
    for label in ["cpu", "mem"] {
        let mut notice = notice(label);
        notice.label = label.to_owned();
        channels.send("a", "web1", &notice);
    }
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let (connection, _) = listener.accept().await.unwrap();
        let request = serve(&connection, "200 OK").await;
        bodies.push(request.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    assert!(bodies[0].contains("\"label\":\"cpu\""), "{bodies:?}");
    assert_eq!(bodies[1], "told");
}

/// A rule that was added after the start fires: Alertmanager took its alert for ended, because only
/// those of the first rules were repeated.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_later_rules_are_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let channel = format!("[channels.am.alertmanager]\nurl = \"{url}\"\nrefresh = \"1s\"\n");
    let channels = channels(&channel);
    let later = format!("{channel}[rules.later]\nlabel = \"cpu\"\nabove = 1\n");
    let later = RuleSet::parse(Path::new("rules.toml"), &later).unwrap();
    channels.replace(Arc::new(later));
    let notice = notice("1");
    let alarm = crate::state::Alarm {
        id: notice.alarm,
        rule: "later".to_owned(),
        label: "cpu".to_owned(),
        state: AlarmState::Firing,
        severity: AlarmSeverity::Warning,
        since: notice.since,
        at: notice.at,
        judged: notice.at,
        value: 7.0,
        quiet_since: None,
        firings: Vec::new(),
        flapping: false,
    };
    let entry = crate::board::BoardEntry {
        host: "web1".to_owned(),
        alarm,
        silenced_until: None,
        is_held: false,
    };
    channels.board.replace(0, vec![entry]);
    let told = async {
        let (connection, _) = listener.accept().await.unwrap();
        serve(&connection, "200 OK").await
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await;
    let request = told.expect("told within a minute");
    assert!(request.contains("\"alertname\":\"later\""), "{request}");
}

/// What a template or a shell would make of it does not matter: it is JSON on standard input.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_json_and_no_shell_sees_it() {
    let channels = channels(
        "[channels.a.command]\ncommand = [\"/bin/grep\", \"-q\", \"$(touch /tmp/x);`id`\"]\n",
    );
    let mut notice = notice("1");
    notice.label = "$(touch /tmp/x);`id`".to_owned();
    channels.send("a", "web1", &notice);
    // grep finds its own argument in what it gets.
    assert_eq!(accepted(&channels, 1).await.len(), 1);
}
