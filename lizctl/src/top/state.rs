//! What is shown, and what keys do. No terminal, no clock, no receiver.

use std::cmp::Ordering;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use lizmon_protocol::name::{NodeName, TagFilter};
use lizmon_protocol::summary::{Host, Summaries};

use super::feed::News;
use crate::host_state::{self, Trouble, fullest_disk};

/// Rows that a page key moves by.
const PAGE: isize = 10;

/// What the hosts are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortBy {
    Trouble,
    Name,
    Cpu,
    Mem,
    Disk,
    Age,
}

/// What a key asks of the program.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    None,
    Quit,
    /// The summaries of this host are wanted from now on; or of none.
    Watch(Option<NodeName>),
    /// A new address of the page is wanted.
    NewAddress,
}

/// A host that is looked at.
#[derive(Debug)]
pub(super) struct HostView {
    pub(super) name: NodeName,
    /// `None` until the receiver has answered.
    pub(super) summaries: Option<Summaries>,
    /// The label that is plotted.
    pub(super) label: Option<String>,
    /// By hour in place of by minute, where there is no room for both.
    pub(super) shows_hours: bool,
}

/// Everything that is shown.
#[derive(Debug)]
pub(crate) struct TopState {
    pub(super) receiver: String,
    pub(super) now: u64,
    pub(super) hosts: Vec<(Host, Vec<Trouble>)>,
    pub(super) sort: SortBy,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    /// The name of the host that is marked.
    pub(super) marked: Option<String>,
    pub(super) view: Option<HostView>,
    /// Why the receiver gave no answer last time.
    pub(super) failure: Option<String>,
    pub(super) has_answered: bool,
    pub(super) shows_help: bool,
    pub(super) shows_log: bool,
    pub(super) log: Vec<String>,
    /// Of the page.
    pub(super) address: Option<String>,
    pub(super) uses_color: bool,
    /// The tags of the hosts that are asked for.
    pub(super) wanted: TagFilter,
    /// What the certificate is limited to.
    pub(super) limits: Vec<String>,
}

impl TopState {
    pub(crate) fn new(receiver: String, address: Option<String>, uses_color: bool) -> Self {
        Self {
            receiver,
            now: 0,
            hosts: Vec::new(),
            sort: SortBy::Trouble,
            filter: String::new(),
            is_typing: false,
            marked: None,
            view: None,
            failure: None,
            has_answered: false,
            shows_help: false,
            shows_log: false,
            log: Vec::new(),
            address,
            uses_color,
            wanted: TagFilter::default(),
            limits: Vec::new(),
        }
    }

    /// Of these hosts alone.
    pub(crate) fn of(mut self, wanted: TagFilter) -> Self {
        self.wanted = wanted;
        self
    }

    /// Begins with this host's page.
    pub(crate) fn looking_at(mut self, host: NodeName) -> Self {
        self.open(host);
        self
    }

    /// The host that is looked at.
    pub(super) fn view_of(&self) -> Option<NodeName> {
        Some(self.view.as_ref()?.name.clone())
    }

    pub(super) fn tick(&mut self, now: u64, log: Vec<String>) {
        self.now = now;
        self.log = log;
    }

    pub(super) fn set_address(&mut self, address: String) {
        self.address = Some(address);
    }

    pub(super) fn update(&mut self, news: News) {
        match news {
            News::Failed(why) => self.failure = Some(why),
            News::Summaries(name, summaries) => {
                self.failure = None;
                if let Some(view) = self.view.as_mut().filter(|view| view.name == name) {
                    view.summaries = Some(summaries);
                }
            }
            News::Hosts(hosts, mut alarms) => {
                (self.failure, self.has_answered) = (None, true);
                let blind = host_state::blind_hours(&hosts);
                self.limits = hosts.limits;
                let judged = hosts.hosts.into_iter().map(|host| {
                    let firing = alarms.remove(&host.name).unwrap_or_default();
                    let mut troubles: Vec<_> = firing.into_iter().map(Trouble::Alarm).collect();
                    troubles.extend(host_state::troubles(&host, &blind, self.now));
                    (host, troubles)
                });
                self.hosts = judged.collect();
            }
        }
    }

    /// The hosts that the filter leaves, by name or tag, in their order.
    pub(super) fn visible(&self) -> Vec<&(Host, Vec<Trouble>)> {
        let filter = self.filter.to_lowercase();
        let is_like = |text: &str| text.to_lowercase().contains(&filter);
        let matches = |(host, _): &&(Host, Vec<Trouble>)| {
            is_like(&host.name) || host.tags.iter().any(|tag| is_like(tag.as_str()))
        };
        let mut hosts: Vec<_> = self.hosts.iter().filter(matches).collect();
        let value = |host: &Host, label: &str| host.newest.get(label).copied();
        let of_disk = |host: &Host| fullest_disk(host).map(|(_, used)| used);
        hosts.sort_by(|(a, of_a), (b, of_b)| {
            let order = match self.sort {
                SortBy::Trouble => host_state::worse(of_a, of_b),
                SortBy::Name => Ordering::Equal,
                SortBy::Cpu => greater(value(a, "cpu"), value(b, "cpu")),
                SortBy::Mem => greater(value(a, "mem"), value(b, "mem")),
                SortBy::Disk => greater(of_disk(a), of_disk(b)),
                SortBy::Age => a.last_epoch.cmp(&b.last_epoch),
            };
            order.then_with(|| a.name.cmp(&b.name))
        });
        hosts
    }

    /// The place of the marked host among those that are visible.
    pub(super) fn marked_at(&self, visible: &[&(Host, Vec<Trouble>)]) -> usize {
        let is_marked = |host: &Host| self.marked.as_ref() == Some(&host.name);
        visible
            .iter()
            .position(|(host, _)| is_marked(host))
            .unwrap_or(0)
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Reaction {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return Reaction::Quit,
            _ if self.is_typing => {
                self.type_filter(key.code);
                return Reaction::None;
            }
            _ if self.shows_help => {
                self.shows_help = false;
                return Reaction::None;
            }
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Char('?') => self.shows_help = true,
            KeyCode::Char('L') => self.shows_log = !self.shows_log,
            KeyCode::Char('o') => return Reaction::NewAddress,
            code if self.view.is_some() => return self.key_of_host(code),
            code => return self.key_of_list(code),
        }
        Reaction::None
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.filter.push(c),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Up => self.step(-1),
            KeyCode::Down => self.step(1),
            KeyCode::Enter => self.is_typing = false,
            _ => (),
        }
    }

    fn key_of_list(&mut self, code: KeyCode) -> Reaction {
        match code {
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('t') => self.sort = SortBy::Trouble,
            KeyCode::Char('n') => self.sort = SortBy::Name,
            KeyCode::Char('c') => self.sort = SortBy::Cpu,
            KeyCode::Char('m') => self.sort = SortBy::Mem,
            KeyCode::Char('d') => self.sort = SortBy::Disk,
            KeyCode::Char('a') => self.sort = SortBy::Age,
            KeyCode::Enter | KeyCode::Right | KeyCode::Char('l') => return self.open_marked(),
            _ => (),
        }
        Reaction::None
    }

    fn step(&mut self, by: isize) {
        let visible = self.visible();
        let last = visible.len().saturating_sub(1);
        let at = self.marked_at(&visible).saturating_add_signed(by).min(last);
        self.marked = visible.get(at).map(|(host, _)| host.name.clone());
    }

    fn open_marked(&mut self) -> Reaction {
        let visible = self.visible();
        let host = visible.get(self.marked_at(&visible));
        // A name that is none cannot be asked for.
        let Some(name) = host.and_then(|(host, _)| host.name.parse::<NodeName>().ok()) else {
            return Reaction::None;
        };
        self.marked = Some(name.as_str().to_owned());
        self.open(name.clone());
        Reaction::Watch(Some(name))
    }

    fn open(&mut self, name: NodeName) {
        self.view = Some(HostView {
            name,
            summaries: None,
            label: None,
            shows_hours: false,
        });
    }

    fn key_of_host(&mut self, code: KeyCode) -> Reaction {
        match code {
            KeyCode::Esc | KeyCode::Backspace => {
                self.view = None;
                return Reaction::Watch(None);
            }
            KeyCode::Left | KeyCode::Up | KeyCode::Char('h' | 'k') => self.step_label(-1),
            KeyCode::Right | KeyCode::Down | KeyCode::Char('l' | 'j') => self.step_label(1),
            KeyCode::Tab => {
                if let Some(view) = &mut self.view {
                    view.shows_hours = !view.shows_hours;
                }
            }
            _ => (),
        }
        Reaction::None
    }

    fn step_label(&mut self, by: isize) {
        let Some(view) = &mut self.view else { return };
        let labels = view.labels();
        let last = labels.len().saturating_sub(1);
        let at = view.label_at(&labels).saturating_add_signed(by).min(last);
        view.label = labels.get(at).map(|label| (*label).to_owned());
    }
}

impl HostView {
    /// The labels that have summaries, by name.
    pub(super) fn labels(&self) -> Vec<String> {
        let names = self.summaries.iter().flat_map(|summaries| summaries.keys());
        let labels = names.filter_map(|name| name.strip_prefix("summary:")?.split_once(':'));
        let mut labels: Vec<String> = labels.map(|(_, label)| label.to_owned()).collect();
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    pub(super) fn label_at(&self, labels: &[String]) -> usize {
        let label = self.label.as_deref();
        let at = labels
            .iter()
            .position(|found| Some(found.as_str()) == label);
        at.unwrap_or(0)
    }
}

/// The greater one first, and what has none last.
fn greater(a: Option<f64>, b: Option<f64>) -> Ordering {
    let key = |value: Option<f64>| value.unwrap_or(f64::NEG_INFINITY);
    key(b).total_cmp(&key(a))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use lizmon_protocol::summary::Hosts;

    use super::*;

    pub(crate) fn state(hosts: &[(&str, f64, bool)]) -> TopState {
        let mut state = TopState::new("https://r1".into(), None, true);
        state.tick(1_465_001_817, Vec::new());
        let hosts = hosts.iter().map(|(name, cpu, silent)| Host {
            name: (*name).into(),
            certificate_end: 1_472_777_814,
            silent: *silent,
            newest: BTreeMap::from([("cpu".to_owned(), *cpu)]),
            ..Host::default()
        });
        let hosts = Hosts {
            hosts: hosts.collect(),
            ..Hosts::default()
        };
        state.update(News::Hosts(hosts, BTreeMap::new()));
        state
    }

    fn press(state: &mut TopState, keys: &str) -> Reaction {
        let mut last = Reaction::None;
        for key in keys.split(' ') {
            let code = match key {
                "down" => KeyCode::Down,
                "up" => KeyCode::Up,
                "end" => KeyCode::End,
                "enter" => KeyCode::Enter,
                "esc" => KeyCode::Esc,
                "backspace" => KeyCode::Backspace,
                key => KeyCode::Char(key.chars().next().unwrap()),
            };
            last = state.key(code.into());
        }
        last
    }

    fn names(state: &TopState) -> Vec<&str> {
        let visible = state.visible().into_iter();
        visible.map(|(host, _)| host.name.as_str()).collect()
    }

    const HOSTS: [(&str, f64, bool); 4] = [
        ("db1", 90.0, false),
        ("web1", 5.0, false),
        ("web2", 50.0, true),
        ("web3", 7.0, false),
    ];

    #[test]
    fn hosts_are_sorted_and_filtered() {
        let mut state = state(&HOSTS);
        assert_eq!(names(&state), ["web2", "db1", "web1", "web3"]);
        press(&mut state, "c");
        assert_eq!(names(&state), ["db1", "web2", "web3", "web1"]);
        press(&mut state, "n");
        assert_eq!(names(&state), ["db1", "web1", "web2", "web3"]);
        press(&mut state, "/ W e b");
        assert_eq!(names(&state), ["web1", "web2", "web3"]);
        press(&mut state, "q");
        assert!(names(&state).is_empty(), "letters are typed");
        press(&mut state, "backspace 3 enter");
        assert_eq!(names(&state), ["web3"]);
        assert_eq!(
            press(&mut state, "enter"),
            Reaction::Watch("web3".parse().ok())
        );
        assert_eq!(press(&mut state, "esc"), Reaction::Watch(None));
        press(&mut state, "esc");
        assert_eq!(names(&state).len(), 4);
    }

    #[test]
    fn the_mark_stays_on_its_host() {
        let mut state = state(&HOSTS);
        press(&mut state, "n down down");
        assert_eq!(state.marked.as_deref(), Some("web2"));
        press(&mut state, "c");
        assert_eq!(state.marked_at(&state.visible()), 1);
        press(&mut state, "end down down");
        assert_eq!(state.marked.as_deref(), Some("web1"));
        press(&mut state, "g up");
        assert_eq!(state.marked.as_deref(), Some("db1"));
        let mut none = TopState::new(String::new(), None, true);
        assert_eq!(press(&mut none, "down end enter"), Reaction::None);
    }

    #[test]
    fn an_error_is_shown_until_there_is_an_answer() {
        let mut state = state(&HOSTS);
        state.update(News::Failed("away".into()));
        assert_eq!(state.failure.as_deref(), Some("away"));
        assert_eq!(names(&state).len(), 4, "what was known stays");
        state.update(News::Hosts(Hosts::default(), BTreeMap::new()));
        assert_eq!(state.failure, None);
    }

    #[test]
    fn keys_that_end_it() {
        let mut state = state(&HOSTS);
        assert_eq!(press(&mut state, "? q"), Reaction::None, "it ends the help");
        assert_eq!(press(&mut state, "q"), Reaction::Quit);
        press(&mut state, "/");
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.key(ctrl_c), Reaction::Quit);
    }
}
