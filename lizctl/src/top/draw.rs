//! Draws the state, in any size.

use lizmon_protocol::summary::{Host, Summary};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table, Wrap};

use super::state::{HostView, SortBy, TopState};
use crate::host_state::{self, Trouble, fullest_disk};
use crate::view::format::{ago_short, number, percent};
use crate::view::plot::{self, Plot};
use crate::view::{chart, hosts, safe};

/// Rows of the log, where it is shown.
const LOG_ROWS: u16 = 6;
/// Columns from which on more is shown of a host.
const COLUMNS_FOR_DISK: u16 = 50;
const COLUMNS_FOR_AGE: u16 = 64;

const HELP: &[&str] = &[
    "up down PgUp PgDn Home End   mark a host",
    "Enter                        look at it",
    "t n c m d a                  sort: trouble name cpu mem disk age",
    "/                            filter by name; Esc clears it",
    "left right                   at a host: other labels",
    "Tab                          at a host: minutes or hours",
    "Esc                          back",
    "o                            a new address of the page, if any",
    "L                            show or hide the log",
    "q, Ctrl-C                    quit",
];

/// Everything.
pub(super) fn draw(state: &TopState, frame: &mut Frame<'_>) {
    let address_rows = address_rows(state, frame.area());
    let log_rows = if state.shows_log { LOG_ROWS } else { 0 };
    let parts = [
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(log_rows),
        Constraint::Length(address_rows),
        Constraint::Length(1),
    ];
    let [title, main, log, address, status] = Layout::vertical(parts).areas(frame.area());
    match &state.view {
        Some(view) => draw_host(state, view, title, main, frame),
        None => draw_list(state, title, main, frame),
    }
    if state.shows_log {
        let lines = state.log.iter().rev().take(usize::from(log.height)).rev();
        let lines: Vec<Line<'_>> = lines.map(|line| Line::raw(safe::text(line))).collect();
        frame.render_widget(Paragraph::new(lines), log);
    }
    if let Some(text) = &state.address {
        let text = Paragraph::new(text.as_str()).wrap(Wrap { trim: true });
        frame.render_widget(text, address);
    }
    frame.render_widget(status_line(state), status);
    if state.shows_help {
        draw_help(frame);
    }
}

/// An address that is cut is of no use. Where there is no room for all of it, there is none for it.
fn address_rows(state: &TopState, area: Rect) -> u16 {
    let Some(address) = &state.address else {
        return 0;
    };
    let rows = address.len().div_ceil(usize::from(area.width.max(1)));
    match u16::try_from(rows) {
        Ok(rows) if rows <= area.height / 4 => rows,
        _ => 0,
    }
}

/// What went wrong, else what is typed, else the keys.
fn status_line(state: &TopState) -> Line<'_> {
    if let Some(why) = &state.failure {
        let text = format!("! {}", safe::text(why));
        return Line::styled(text, state.style(Color::Red).add_modifier(Modifier::BOLD));
    }
    if state.is_typing {
        return Line::raw(format!(
            "/{}_  Enter keeps, Esc clears",
            safe::text(&state.filter)
        ));
    }
    if !state.has_answered && state.view.is_none() {
        return Line::raw(format!("asking {} …", state.receiver));
    }
    let keys = match &state.view {
        Some(_) => "left right: label  Tab: hours  Esc: back  ? help  q quit",
        None => "Enter: look  /: filter  t n c m d a: sort  ? help  q quit",
    };
    Line::styled(keys, Style::default().add_modifier(Modifier::DIM))
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    let height = (lines.len() as u16).min(area.height);
    let area = Rect { height, ..area };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_list(state: &TopState, title: Rect, main: Rect, frame: &mut Frame<'_>) {
    let visible = state.visible();
    let (all, silent) = (state.hosts.len(), state.hosts.iter());
    let silent = silent.filter(|(host, _)| host.silent).count();
    let hosts = if all == 1 { "host" } else { "hosts" };
    let mut text = format!("{all} {hosts}, {silent} silent");
    if !state.filter.is_empty() {
        text = format!("{text}, {} with {:?}", visible.len(), state.filter);
    }
    text = format!("{text}; by {}", sorted_by(state.sort));
    if all == 0 && state.has_answered {
        text = host_state::why_none(&state.limits, !state.wanted.is_empty());
    }
    frame.render_widget(Line::styled(text, bold()), title);
    let columns = columns_of(main.width);
    let rows = usize::from(main.height.saturating_sub(1));
    let at = state.marked_at(&visible);
    let first = at.saturating_sub(rows.saturating_sub(1));
    let longest = visible.iter().skip(first).take(rows);
    let longest = longest.map(|(host, _)| host.name.chars().count()).max();
    let name_width = longest
        .unwrap_or(4)
        .clamp(4, usize::from(main.width / 2).max(4)) as u16;
    let shown = visible.iter().enumerate().skip(first).take(rows);
    let shown = shown.map(|(index, (host, troubles))| {
        let cells = columns
            .iter()
            .map(|column| cell(*column, host, troubles, state));
        let row = Row::new(cells);
        match index == at {
            true => row.style(Style::default().add_modifier(Modifier::REVERSED)),
            false => row,
        }
    });
    let widths = columns.iter().map(|column| column.width(name_width));
    let head = Row::new(columns.iter().map(|column| column.head())).style(bold());
    frame.render_widget(Table::new(shown, widths).header(head), main);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Name,
    Cpu,
    Mem,
    Disk,
    Age,
    State,
}

/// The columns that fit.
fn columns_of(width: u16) -> Vec<Column> {
    let mut columns = vec![Column::Name, Column::Cpu, Column::Mem];
    if width >= COLUMNS_FOR_DISK {
        columns.push(Column::Disk);
    }
    if width >= COLUMNS_FOR_AGE {
        columns.push(Column::Age);
    }
    columns.push(Column::State);
    columns
}

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Name => "HOST",
            Self::Cpu => "  CPU",
            Self::Mem => "  MEM",
            Self::Disk => " DISK",
            Self::Age => "LAST",
            Self::State => "STATE",
        }
    }

    fn width(self, name: u16) -> Constraint {
        match self {
            Self::Name => Constraint::Length(name),
            Self::Cpu | Self::Mem | Self::Disk => Constraint::Length(5),
            Self::Age => Constraint::Length(6),
            Self::State => Constraint::Min(6),
        }
    }
}

fn cell(column: Column, host: &Host, troubles: &[Trouble], state: &TopState) -> Cell<'static> {
    let share = |value: Option<f64>| {
        let text = value.map_or_else(|| "-".to_owned(), percent);
        Cell::from(Line::raw(text).right_aligned())
    };
    match column {
        Column::Name => Cell::from(safe::text(&host.name)),
        Column::Cpu => share(host.newest.get("cpu").copied()),
        Column::Mem => share(host.newest.get("mem").copied()),
        Column::Disk => share(fullest_disk(host).map(|(_, used)| used)),
        Column::Age => Cell::from(ago_short(host.last_epoch, state.now)),
        Column::State => {
            let words: Vec<Span<'static>> = troubles
                .iter()
                .flat_map(|trouble| {
                    let word = Span::styled(hosts::in_words(trouble), state.style(color(trouble)));
                    [word, Span::raw("  ")]
                })
                .collect();
            match words.is_empty() {
                true => Cell::from("ok"),
                false => Cell::from(Line::from(words)),
            }
        }
    }
}

fn color(trouble: &Trouble) -> Color {
    match trouble {
        Trouble::Alarm(_)
        | Trouble::Silent
        | Trouble::CertificateRevoked
        | Trouble::CertificateEnded => Color::Red,
        Trouble::CertificateNotRenewed
        | Trouble::DiskNearlyFull(..)
        | Trouble::MemoryNearlyFull(_)
        | Trouble::SilentHours(_) => Color::Yellow,
    }
}

fn draw_host(state: &TopState, view: &HostView, title: Rect, main: Rect, frame: &mut Frame<'_>) {
    let found = state
        .hosts
        .iter()
        .find(|(host, _)| host.name == view.name.as_str());
    let troubles = found.map_or(&[][..], |(_, troubles)| troubles.as_slice());
    let mut spans = vec![Span::styled(safe::text(view.name.as_str()), bold())];
    for trouble in troubles {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(
            hosts::in_words(trouble),
            state.style(color(trouble)),
        ));
    }
    frame.render_widget(Line::from(spans), title);
    let Some(summaries) = &view.summaries else {
        let text = match &state.failure {
            Some(_) => "no summaries yet",
            None => "asking for its summaries …",
        };
        return frame.render_widget(Line::raw(text), main);
    };
    let labels = view.labels();
    let at = view.label_at(&labels);
    let Some(label) = labels.get(at) else {
        return frame.render_widget(Line::raw("it has no samples in the last day"), main);
    };
    let of = |window: &str| summaries.get(&format!("summary:{window}:{label}"));
    let windows = [("by minute", of("by-minute")), ("by hour", of("by-hour"))];
    let has_room = main.height >= 2 * (plot::ROWS_MIN + 2);
    let place = format!("{} ({}/{})", safe::text(label), at + 1, labels.len());
    if has_room {
        let areas: [Rect; 2] = Layout::vertical([Constraint::Fill(1); 2]).areas(main);
        for (area, (window, summary)) in areas.into_iter().zip(windows) {
            draw_plot(state, &format!("{place} {window}"), summary, area, frame);
        }
    } else {
        let (window, summary) = windows[usize::from(view.shows_hours)];
        draw_plot(state, &format!("{place} {window}"), summary, main, frame);
    }
}

fn draw_plot(
    state: &TopState,
    title: &str,
    summary: Option<&Summary>,
    area: Rect,
    frame: &mut Frame<'_>,
) {
    let [head, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let Some(summary) = summary.filter(|summary| !summary.averages.is_empty()) else {
        return frame.render_widget(Line::raw(format!("{title}: no samples")), head);
    };
    let newest = summary.averages.last();
    let values = newest.map_or_else(String::new, |last| {
        format!(
            "{} ({} to {})",
            number(last.avg),
            number(last.min),
            number(last.max)
        )
    });
    frame.render_widget(Line::styled(format!("{title}  {values}"), bold()), head);
    if below.width < plot::COLUMNS_MIN || below.height < plot::ROWS_MIN {
        let text = Paragraph::new("there is no room for a plot").wrap(Wrap { trim: true });
        return frame.render_widget(text, below);
    }
    let plot = Plot {
        summary,
        intervals: chart::intervals(summary),
        line: state.style(Color::Cyan),
        range: state.style(Color::DarkGray),
    };
    frame.render_widget(plot, below);
}

fn sorted_by(sort: SortBy) -> &'static str {
    match sort {
        SortBy::Trouble => "trouble",
        SortBy::Name => "name",
        SortBy::Cpu => "cpu",
        SortBy::Mem => "mem",
        SortBy::Disk => "disk",
        SortBy::Age => "last sample",
    }
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

impl TopState {
    /// In this colour, unless colours are not wanted: every mark is a word as well.
    fn style(&self, color: Color) -> Style {
        match self.uses_color {
            true => Style::default().fg(color),
            false => Style::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use lizmon_protocol::summary::{Average, Summaries};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::feed::News;
    use super::super::state::tests::state;
    use super::*;

    fn drawn(state: &TopState, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        plot::lines_of(buffer)
    }

    fn summaries(label: &str) -> Summaries {
        let averages: Vec<Average> = (1..=60)
            .map(|at| Average {
                start_sec: at * 60 - 60,
                end_sec: at * 60,
                interval_size_sec: 60,
                num_samples: 60,
                avg: at as f64,
                min: 0.0,
                max: 100.0,
            })
            .collect();
        let minutes = Summary {
            as_of: None,
            start: 0,
            end: 3600,
            timeslice_size_sec: 60,
            average_count: 60,
            averages,
        };
        let mut hours = minutes.clone();
        hours.timeslice_size_sec = 3600;
        hours.averages.truncate(1);
        hours.averages[0].end_sec = 3600;
        Summaries::from([
            (format!("summary:by-minute:{label}"), minutes),
            (format!("summary:by-hour:{label}"), hours),
        ])
    }

    #[test]
    fn the_list_at_80_and_at_40_columns() {
        let state = state(&[("web1", 5.0, false), ("web2", 97.3, true)]);
        let lines = drawn(&state, 80, 24);
        assert_eq!(lines[0], "2 hosts, 1 silent; by trouble");
        assert_eq!(lines[1], "HOST   CPU   MEM  DISK LAST   STATE");
        assert!(
            lines[2].starts_with("web2  97 %     -     - "),
            "{lines:#?}"
        );
        assert!(lines[2].ends_with("silent"), "{lines:#?}");
        assert!(lines[3].ends_with(" ok"), "{lines:#?}");
        assert!(lines[23].contains("? help"), "{lines:#?}");
        let lines = drawn(&state, 40, 10);
        assert_eq!(lines[1], "HOST   CPU   MEM STATE");
        assert_eq!(lines[2], "web2  97 %     - silent");
    }

    /// As many rows as there is room for, with the marked one among them.
    #[test]
    fn a_window_of_many_hosts() {
        use crossterm::event::KeyCode;
        let names: Vec<String> = (0..5_000).map(|at| format!("host-{at:04}")).collect();
        let hosts: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), 5.0, false))
            .collect();
        let mut state = state(&hosts);
        let rows = |state: &TopState| {
            let lines = drawn(state, 80, 24);
            let hosts = lines.iter().filter(|line| line.starts_with("host-"));
            let hosts: Vec<_> = hosts.map(|line| line[..9].to_owned()).collect();
            assert_eq!(hosts.len(), 21, "{lines:#?}");
            (hosts[0].clone(), hosts[20].clone())
        };
        let steps = [
            (KeyCode::Home, "host-0000", "host-0020"),
            (KeyCode::End, "host-4979", "host-4999"),
            (KeyCode::PageUp, "host-4969", "host-4989"),
            (KeyCode::Down, "host-4970", "host-4990"),
            (KeyCode::Char('g'), "host-0000", "host-0020"),
        ];
        for (key, first, last) in steps {
            state.key(key.into());
            let shown = rows(&state);
            assert_eq!(
                (shown.0.as_str(), shown.1.as_str()),
                (first, last),
                "{key:?}"
            );
        }
    }

    #[test]
    fn a_host_with_its_plots() {
        let mut state = state(&[("web1", 5.0, false)]).looking_at("web1".parse().unwrap());
        assert!(drawn(&state, 80, 24)[1].contains("asking for its summaries"));
        state.update(News::Summaries("web1".parse().unwrap(), summaries("cpu")));
        let lines = drawn(&state, 80, 24);
        assert_eq!(lines[1], "cpu (1/1) by minute  60.00 (0.00 to 100.00)");
        assert!(lines[12].starts_with("cpu (1/1) by hour"), "{lines:#?}");
        assert!(lines[2].starts_with("100.00 ┤░"), "{lines:#?}");
        // One plot where there is no room for two, and Tab shows the other.
        let lines = drawn(&state, 40, 10);
        assert!(lines[1].starts_with("cpu (1/1) by minute"), "{lines:#?}");
        assert!(lines[8].ends_with("01:00 UTC"), "{lines:#?}");
        state.key(crossterm::event::KeyCode::Tab.into());
        assert!(drawn(&state, 40, 10)[1].starts_with("cpu (1/1) by hour"));
    }

    #[test]
    fn any_size_and_hostile_names() {
        let hostile = "a\u{202e}b\u{1b}[2J<img src=x onerror=1>=cmd漢字漢字漢字";
        let mut state = state(&[("web1", 5.0, true), (hostile, 5.0, true)]);
        state.update(News::Failed(format!("why\n{hostile}")));
        let mut host = super::super::state::tests::state(&[("web1", 5.0, true)])
            .looking_at("web1".parse().unwrap());
        host.update(News::Summaries("web1".parse().unwrap(), summaries(hostile)));
        for state in [&mut state, &mut host] {
            for help in [false, true] {
                (state.shows_help, state.shows_log) = (help, help);
                for (width, height) in [(1, 1), (5, 2), (40, 10), (80, 24), (300, 80)] {
                    let lines = drawn(state, width, height).concat();
                    let acts = |c: char| c.is_control() || c == '\u{202e}';
                    assert!(!lines.contains(acts), "{width}x{height}: {lines:?}");
                }
            }
        }
        assert!(drawn(&state, 80, 24)[23].starts_with("! why\\na\\u{202e}b"));
    }

    #[test]
    fn without_color_every_mark_is_a_word() {
        let mut state = state(&[("web1", 5.0, true)]);
        let colors = |state: &TopState| {
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| draw(state, frame)).unwrap();
            let cells = terminal.backend().buffer().content().iter();
            cells.filter(|cell| cell.fg != Color::Reset).count()
        };
        assert!(colors(&state) > 0);
        state.uses_color = false;
        assert_eq!(colors(&state), 0);
    }
}
