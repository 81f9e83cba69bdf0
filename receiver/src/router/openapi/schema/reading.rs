//! What readers get: summaries, hosts, history, delivery, alarms.

use lizmon_protocol::alarm::{AlarmEntry, AlarmList, AlarmPhase};
use lizmon_protocol::delivery::{
    Acknowledged, BEFORE_ASKED, Delivery, ProducerDelivery, Removed, StampClock,
};
use lizmon_protocol::history::{History, INTERVALS_MAX};
use lizmon_protocol::live::{LiveHost, LiveSummaries};
use lizmon_protocol::summary::{Average, HolderState, Host, Hosts, Summaries, Summary};
use serde_json::json;
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type};

use super::parts::{
    Keys as _, NamedSchema, any_count, boolean, count, epoch, list, map, named, number, object,
    one_of, or_null, pair, parsed, text,
};
use super::samples::{HOST, NOW, PRODUCER, machine};

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

pub(super) fn all() -> Vec<NamedSchema> {
    vec![
        NamedSchema::new("Interval", interval()).example("minute", &average()),
        summary(),
        summaries(),
        host(),
        hosts(),
        history(),
        producer_delivery(),
        delivery(),
        NamedSchema::new("Acknowledged", object().has("acknowledged", count()))
            .example("two", &Acknowledged { acknowledged: 2 }),
        alarm(),
        alarms(),
        live_host(),
        live_summaries(),
        listing(),
        list_of("SeriesList", map(text()).into())
            .example(
                "one",
                &json!({
                    "status": "success",
                    "data": [{"__name__": "cpu", "host": HOST}],
                }),
            )
            .example(
                "cut",
                &json!({"status": "success", "data": [], "warnings": [TRUNCATED]}),
            ),
        list_of("NameList", text().into())
            .example(
                "one",
                &json!({
                    "status": "success",
                    "data": ["__name__", "host"],
                }),
            )
            .example(
                "cut",
                &json!({"status": "success", "data": [], "warnings": [TRUNCATED]}),
            ),
    ]
}

/// When the store was last read, if that is a while ago.
fn as_of() -> ObjectBuilder {
    epoch().says(
        "When the summaries were last read from a shared store, if that is more than a moment ago: epoch seconds",
    )
}

fn interval() -> ObjectBuilder {
    object()
        .says("The samples with start-sec < epoch <= end-sec")
        .has("start-sec", epoch())
        .has("end-sec", epoch())
        .has("interval-size-sec", count())
        .has("num-samples", count())
        .has("avg", number().says("Their mean, rounded to two decimals"))
        .has("min", number())
        .has("max", number())
}

fn average() -> Average {
    Average {
        start_sec: 1_465_001_760,
        end_sec: 1_465_001_820,
        interval_size_sec: MINUTE,
        num_samples: 5,
        avg: 4.98,
        min: 4.8,
        max: 5.1,
    }
}

fn summary_of(as_of: Option<u64>) -> Summary {
    Summary {
        start: 1_464_998_160,
        end: NOW,
        timeslice_size_sec: MINUTE,
        average_count: 1,
        averages: vec![average()],
        as_of,
    }
}

fn summary() -> NamedSchema {
    let schema = object()
        .says("One window of a series; intervals without samples are left out")
        .has("start", epoch())
        .has("end", epoch())
        .has(
            "timeslice-size-sec",
            count().says("The width of each interval"),
        )
        .has("average-count", count())
        .has("averages", list(named("Interval")))
        .may_have("as-of", as_of());
    NamedSchema::new("Summary", schema)
        .example("minutes", &summary_of(None))
        .example("behind", &summary_of(Some(NOW)))
}

fn summaries() -> NamedSchema {
    let name: Schema = text().pattern(Some("^summary:by-(minute|hour):")).into();
    let schema = map(named("Summary"))
        .says("Summaries by name: `summary:by-minute:LABEL` and `summary:by-hour:LABEL`")
        .property_names(Some(name));
    let cpu = Summaries::from([("summary:by-minute:cpu".to_owned(), summary_of(None))]);
    NamedSchema::new("Summaries", schema)
        .example("cpu", &cpu)
        .example("none", &Summaries::new())
}

fn host() -> NamedSchema {
    let silent_hours = list(pair(epoch())).description(Some(
        "Whole hours of the last day without samples, after the first with some",
    ));
    let schema = object()
        .has("name", named("NodeName"))
        .has("last-epoch", epoch().says("The epoch of its newest sample"))
        .has("labels", list(text()))
        .has(
            "certificate-end",
            epoch().says("When the certificate it last reported with ends"),
        )
        .may_have(
            "state",
            one_of(["revoked", "ended"]).says("Why that certificate is no longer valid, if so"),
        )
        .has("silent", boolean().says("Whether it is overdue"))
        .may_have("last-received", epoch().says("By the receiver's clock"))
        .may_have("facts", named("Facts"))
        .may_have("tags", list(named("Tag")))
        .may_have(
            "newest",
            map(number()).says("Averages of the newest minutes of what is looked at first"),
        )
        .may_have("silent-hours", silent_hours)
        .may_have(
            "reported-by",
            map(epoch())
                .says("Once a gateway has reported it: who has in the last week, and when last"),
        );
    NamedSchema::new("Host", schema)
        .example("full", &full_host())
        .example("least", &least_host())
}

fn least_host() -> Host {
    Host {
        name: HOST.to_owned(),
        last_epoch: NOW,
        labels: vec!["cpu".to_owned()],
        certificate_end: NOW + 90 * DAY,
        ..Host::default()
    }
}

/// With every field, so that there is none without a description.
fn full_host() -> Host {
    Host {
        name: HOST.to_owned(),
        last_epoch: NOW,
        labels: vec!["cpu".to_owned()],
        certificate_end: NOW + 90 * DAY,
        state: Some(HolderState::Revoked),
        silent: true,
        last_received: Some(NOW),
        facts: Some(machine()),
        tags: [parsed("env=prod")].into(),
        newest: [("cpu".to_owned(), 4.98)].into(),
        silent_hours: vec![(1_464_980_400, 1_464_998_400)],
        reported_by: [("gateway/prom1".to_owned(), NOW)].into(),
    }
}

fn hosts() -> NamedSchema {
    let schema = object()
        .has("hosts", list(named("Host")))
        .may_have(
            "limits",
            list(text()).description(Some(
                "The patterns of names and the tags that the caller's certificate is limited to, if it is",
            )),
        )
        .may_have("as-of", as_of());
    let limited = Hosts {
        hosts: vec![full_host()],
        limits: vec!["web*".to_owned()],
        as_of: Some(NOW),
    };
    NamedSchema::new("Hosts", schema)
        .example("limited", &limited)
        .example("none", &Hosts::default())
}

fn history() -> NamedSchema {
    let schema = object()
        .has(
            "intervals",
            list(named("Interval")).max_items(Some(INTERVALS_MAX)),
        )
        .may_have(
            "next",
            epoch()
                .says("Where there are more intervals: the `from` of the query for the next ones"),
        )
        .may_have(
            "damaged",
            list(pair(epoch())).description(Some("Times of which the store has lost something")),
        )
        .may_have("as-of", as_of());
    let hour = Average {
        start_sec: 1_464_998_400,
        end_sec: 1_465_002_000,
        interval_size_sec: HOUR,
        ..average()
    };
    let full = History {
        intervals: vec![hour],
        next: Some(1_465_002_000),
        damaged: vec![(1_464_990_000, 1_464_991_000)],
        as_of: Some(NOW),
    };
    NamedSchema::new("History", schema)
        .example("page", &full)
        .example("none", &History::default())
}

fn producer_delivery() -> NamedSchema {
    let [first, last] = [count(), count()].map(Schema::from);
    let dropped = ArrayBuilder::new()
        .prefix_items([first, last, text().into()])
        .items(ArrayItems::False)
        .min_items(Some(3))
        .max_items(Some(3));
    let schema = object()
        .has("producer", named("Producer"))
        .has(
            "received",
            count().says("Distinct numbers that have arrived"),
        )
        .has(
            "duplicate",
            count().says("Records that came again and changed nothing"),
        )
        .has("missing", list(pair(count())))
        .has("dropped", list(dropped))
        .has("repaired", count())
        .may_have("highest", count().says("The highest number that arrived"));
    NamedSchema::new("ProducerDelivery", schema)
        .example("gap", &delivered(Some(7)))
        .example("older", &delivered(None))
}

fn delivered(highest: Option<u64>) -> ProducerDelivery {
    ProducerDelivery {
        producer: parsed(PRODUCER),
        received: 5,
        duplicate: 1,
        missing: vec![(4, 4)],
        dropped: vec![(3, 3, BEFORE_ASKED.to_owned())],
        repaired: 2,
        highest,
    }
}

fn delivery() -> NamedSchema {
    let removed = object()
        .says("Samples that were removed because they were ahead of the receiver's clock")
        .has("samples", count())
        .has("at", epoch());
    let ahead = ObjectBuilder::new().schema_type(Type::Integer);
    let clock = object()
        .says("By how much the host's clock is ahead of its receivers' clocks, if its samples are stamped by theirs")
        .has("ahead-secs", ahead)
        .has("at", epoch());
    let schema = object()
        .has("producers", list(named("ProducerDelivery")))
        .may_have("removed", removed)
        .may_have("clock", clock)
        .may_have("as-of", as_of());
    let least = Delivery {
        producers: vec![delivered(Some(7))],
        removed: None,
        clock: None,
        as_of: None,
    };
    let full = Delivery {
        removed: Some(Removed {
            samples: 6,
            at: NOW,
        }),
        clock: Some(StampClock {
            ahead_secs: 3_600,
            at: NOW,
        }),
        as_of: Some(NOW),
        producers: vec![delivered(Some(7))],
    };
    NamedSchema::new("Delivery", schema)
        .example("full", &full)
        .example("least", &least)
}

fn alarm() -> NamedSchema {
    let phases = [
        AlarmPhase::Pending,
        AlarmPhase::Firing,
        AlarmPhase::Resolved,
    ];
    let schema = object()
        .has("id", text())
        .has("rule", text())
        .has("host", named("NodeName"))
        .has(
            "label",
            or_null(text(), Type::String).says("Null where the rule judges the host"),
        )
        .has("state", one_of(phases.map(AlarmPhase::as_str)))
        .has("since", epoch())
        .has("value", number())
        .has("severity", text())
        .has(
            "silenced-until",
            or_null(epoch(), Type::Integer).says("Null where the host is not silenced"),
        )
        .has("at", epoch().says("When it was judged last"))
        .may_have("flapping", boolean());
    NamedSchema::new("Alarm", schema)
        .example("silenced", &alarm_of(Some("mem"), Some(NOW + HOUR), true))
        .example("host", &alarm_of(None, None, false))
}

fn alarm_of(label: Option<&str>, silenced_until: Option<u64>, flapping: bool) -> AlarmEntry {
    AlarmEntry {
        id: "4f1a2b".to_owned(),
        rule: "memory".to_owned(),
        host: HOST.to_owned(),
        label: label.map(str::to_owned),
        state: AlarmPhase::Firing,
        since: NOW - 600,
        value: 97.5,
        severity: "warning".to_owned(),
        silenced_until,
        at: NOW,
        flapping,
    }
}

fn alarms() -> NamedSchema {
    let schema = object().has("alarms", list(named("Alarm")));
    let list = AlarmList {
        alarms: vec![alarm_of(Some("mem"), None, false)],
    };
    NamedSchema::new("Alarms", schema).example("one", &list)
}

fn live_host() -> NamedSchema {
    let newest: RefOr<Schema> = map(named("Interval"))
        .says("The newest minute of each label")
        .into();
    let schema = object()
        .has("name", named("NodeName"))
        .has("last-received", epoch())
        .has("silent", boolean())
        .has("newest", newest);
    NamedSchema::new("LiveHost", schema).example("cpu", &live())
}

fn live() -> LiveHost {
    LiveHost {
        name: HOST.to_owned(),
        last_received: NOW,
        silent: false,
        newest: [("cpu".to_owned(), average())].into(),
    }
}

fn live_summaries() -> NamedSchema {
    let schema = object()
        .says("The data of an event `summaries`")
        .has("now", epoch())
        .has("hosts", list(named("LiveHost")));
    let event = LiveSummaries {
        now: NOW + 1,
        hosts: vec![live()],
    };
    NamedSchema::new("LiveSummaries", schema).example("event", &event)
}

const TRUNCATED: &str = "results truncated due to limit";

/// What the HTTP API of Prometheus answers.
fn list_of(name: &'static str, of: Schema) -> NamedSchema {
    let schema = object()
        .has("status", one_of(["success"]))
        .has("data", list(of))
        .may_have("warnings", list(text()));
    NamedSchema::new(name, schema)
}

/// The form of such a list.
fn listing() -> NamedSchema {
    let schema = object()
        .may_have("match[]", list(text()))
        .may_have("limit", any_count())
        .may_have("start", text())
        .may_have("end", text());
    NamedSchema::new("Listing", schema).example("cpu", &json!({"match[]": ["cpu"]}))
}
