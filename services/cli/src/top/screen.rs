//! How `top` looks. Pure: what is known in, cells out.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Table, TableState},
};

use super::state::{App, Daemon, State};
use crate::table::{bytes, one_line};

const KEYS: &str = " q quit   ↑↓ choose   / filter   l log   Esc all";

/// The width from which on there is room for everything of an app.
const WIDE: u16 = 96;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame, state: &State) {
    let daemons = match u16::try_from(state.daemons.len()) {
        Ok(0) => 1, // nobody tells of them
        count => count.unwrap_or(u16::MAX).saturating_add(2).min(8),
    };
    let log = if state.logs { Constraint::Percentage(40) } else { Constraint::Length(0) };
    let rows =
        [Constraint::Length(1), Constraint::Length(daemons), Constraint::Min(3), log, Constraint::Length(1)];
    let [title, top, middle, bottom, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(heading(state), title);
    if !state.daemons.is_empty() {
        frame.render_widget(self::daemons(state), top);
    }
    apps(frame, state, middle);
    if state.logs {
        logs(frame, state, bottom);
    }
    frame.render_widget(footer(state), foot);
}

fn heading(state: &State) -> Paragraph<'_> {
    let (rate, broken) = state
        .apps
        .iter()
        .fold((0.0, 0.0), |(rate, broken), app| (rate + app.flow.rate, broken + app.flow.broken));
    let mut spans = vec![state.title.as_str().bold(), format!("   {rate:.1} requests/s").into()];
    if broken > 0.0 {
        spans.push(paint(state, format!("   {broken:.1} failed/s"), Color::Red));
    }
    if !state.trouble.is_empty() {
        spans.push(paint(state, format!("   {}", one_line(&state.trouble)), Color::Red));
    }
    Paragraph::new(Line::from(spans))
}

fn daemons(state: &State) -> Table<'_> {
    let row = |daemon: &Daemon| {
        let pid = daemon.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        Row::new([
            Line::from(daemon.name.clone()),
            mark(state, &daemon.state),
            Line::from(pid),
            Line::from(daemon.since.clone()),
            Line::from(daemon.restarts.to_string()),
            Line::from(memory(daemon.memory)),
            Line::from(one_line(&daemon.says)),
        ])
    };
    let widths = [12, 9, 8, 6, 8, 10].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    let head = ["DAEMON", "STATE", "PID", "SINCE", "RESTARTS", "MEMORY", "SAYS"];
    Table::new(state.daemons.iter().map(row), widths).header(header(head))
}

fn apps(frame: &mut Frame, state: &State, area: Rect) {
    let shown = state.shown();
    let wide = area.width >= WIDE;
    let row = |app: &&App| {
        let said = if app.reason.is_empty() { app.host.clone() } else { app.reason.clone() };
        let mut cells = vec![Line::from(one_line(&app.name)), mark(state, &app.state)];
        if wide {
            cells.extend([Line::from(app.driver.clone()), Line::from(app.since.clone())]);
        }
        let figures = [format!("{:.1}", app.flow.rate), millis(app.flow.p50), millis(app.flow.p99)];
        let figures = figures.into_iter().chain([memory(app.memory)]);
        cells.extend(figures.map(|figure| Line::from(figure).right_aligned()));
        cells.push(Line::from(format!(" {}", one_line(&said))));
        Row::new(cells)
    };
    let columns = [
        ("APP", 20, true),
        ("STATE", 9, true),
        ("DRIVER", 8, wide),
        ("SINCE", 6, wide),
        ("   REQ/S", 8, true),
        ("      P50", 9, true),
        ("      P99", 9, true),
        ("    MEMORY", 10, true),
    ];
    let columns = columns.into_iter().filter(|(.., shown)| *shown);
    let (mut head, mut widths): (Vec<_>, Vec<_>) =
        columns.map(|(name, width, _)| (name, Constraint::Length(width))).unzip();
    head.push(" HOST OR REASON");
    widths.push(Constraint::Fill(1));
    let table = Table::new(shown.iter().map(row), widths).header(header(head));
    let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut chosen = TableState::new().with_selected(state.at());
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn logs(frame: &mut Frame, state: &State, area: Rect) {
    let of = state.chosen().map_or("", |app| app.name.as_str());
    let block = Block::new().borders(Borders::TOP).title(format!(" log of {} ", one_line(of)));
    let room = usize::from(block.inner(area).height);
    let last = &state.lines[state.lines.len().saturating_sub(room)..];
    let lines: Vec<Line> = last.iter().map(|line| Line::from(one_line(line))).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn footer(state: &State) -> Paragraph<'_> {
    match (state.filtering, state.filter.as_str()) {
        (true, filter) => Paragraph::new(format!(" /{filter}_   Enter keeps it, Esc drops it")),
        (false, "") => Paragraph::new(KEYS),
        (false, filter) => Paragraph::new(format!("{KEYS}   only {filter:?}")),
    }
}

fn header<'n>(names: impl IntoIterator<Item = &'n str>) -> Row<'n> {
    Row::new(names).style(Style::new().add_modifier(Modifier::BOLD))
}

/// A state, in a colour that says whether it is well.
fn mark(state: &State, word: &str) -> Line<'static> {
    let colour = match word {
        "ready" | "running" => Color::Green,
        "asleep" | "starting" | "stopping" => Color::Yellow,
        word if word.ends_with("paused") => Color::Yellow,
        _ => Color::Red,
    };
    Line::from(paint(state, word.to_owned(), colour))
}

fn paint(state: &State, text: String, colour: Color) -> Span<'static> {
    if state.colours { Span::styled(text, colour) } else { Span::raw(text) }
}

fn memory(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), bytes)
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1000.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::top::traffic::Flow;
    use ratatui::{Terminal, backend::TestBackend};

    fn known() -> State {
        let proxy = Daemon {
            name: "proxy".into(),
            state: "ready".into(),
            pid: Some(7),
            restarts: 1,
            since: "5s".into(),
            memory: Some(9 << 20),
            says: "3 routes".into(),
        };
        let shop = App {
            id: "1".into(),
            name: "debug-shop".into(),
            host: "shop".into(),
            state: "running".into(),
            driver: "sandbox".into(),
            since: "8m".into(),
            memory: Some(3 << 20),
            flow: Flow { rate: 12.5, broken: 0.0, p50: Some(0.0012), p99: Some(0.25) },
            reason: String::new(),
        };
        let lost = App {
            id: "2".into(),
            name: "lost".into(),
            state: "failed".into(),
            reason: "exited\u{1b}[2J with 3".into(),
            ..App::default()
        };
        State { title: "a platform".into(), daemons: vec![proxy], apps: vec![shop, lost], ..State::default() }
    }

    fn drawn(state: &State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let cells = terminal.backend().buffer().content();
        let line = |cells: &[ratatui::buffer::Cell]| {
            cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>()
        };
        cells.chunks(width.into()).map(|cells| line(cells).trim_end().to_owned()).collect()
    }

    #[test]
    fn daemons_and_apps_are_shown_with_their_figures() {
        let expected = "\
a platform   12.5 requests/s
DAEMON       STATE     PID      SINCE  RESTARTS MEMORY     SAYS
proxy        ready     7        5s     1        9.0 MiB    3 routes

APP                  STATE     DRIVER   SINCE     REQ/S       P50       P99     MEMORY  HOST OR REASON
debug-shop           running   sandbox  8m         12.5    1.2 ms  250.0 ms    3.0 MiB  shop
lost                 failed                         0.0         -         -          -  exited [2J with 3

 q quit   ↑↓ choose   / filter   l log   Esc all";
        assert_eq!(drawn(&known(), 110, 9).join("\n"), expected);
    }

    #[test]
    fn the_log_of_the_chosen_app_has_its_end_in_view() {
        let mut state = known();
        (state.logs, state.lines) = (true, (0..50).map(|at| format!("line {at}")).collect());
        let lines = drawn(&state, 60, 20);
        assert!(lines.iter().any(|line| line.contains("log of debug-shop")), "{lines:?}");
        assert_eq!(lines[18], "line 49");
    }

    #[test]
    fn what_is_filtered_out_is_not_shown_and_the_filter_is() {
        let state = State { filter: "lost".into(), ..known() };
        let text = drawn(&state, 110, 12).join("\n");
        assert!(text.contains("only \"lost\"") && !text.contains("debug-shop"), "{text}");
        let typing = drawn(&State { filtering: true, ..state }, 110, 12).join("\n");
        assert!(typing.contains("/lost_"), "{typing}");
    }

    #[test]
    fn what_matters_less_gives_way_where_there_is_little_room() {
        let text = drawn(&known(), 80, 12).join("\n");
        assert!(text.contains("P99") && text.contains("250.0 ms") && !text.contains("DRIVER"), "{text}");
    }

    #[test]
    fn no_terminal_is_too_small_to_draw_on() {
        let mut state = known();
        state.logs = true;
        for (width, height) in [(1, 1), (3, 2), (20, 5), (250, 3), (5, 80)] {
            drawn(&state, width, height);
        }
    }

    #[test]
    fn colours_are_there_only_where_they_are_wanted() {
        let coloured = |colours| {
            let mut terminal = Terminal::new(TestBackend::new(110, 12)).unwrap();
            let state = State { colours, ..known() };
            terminal.draw(|frame| draw(frame, &state)).unwrap();
            terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(coloured(true) && !coloured(false));
    }
}
