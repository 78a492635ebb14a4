//! What `top` knows and what is chosen on it: keys in, rows out. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::traffic::Flow;

/// Longest filter.
const FILTER_MAX: usize = 64;

/// One daemon.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u64,
    pub(crate) since: String,
    pub(crate) memory: Option<u64>,
    /// What it says about itself, or why it is not ready.
    pub(crate) says: String,
}

/// One app.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) state: String,
    pub(crate) driver: String,
    pub(crate) since: String,
    pub(crate) memory: Option<u64>,
    pub(crate) flow: Flow,
    /// Why it does not run.
    pub(crate) reason: String,
}

/// What is shown.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) title: String,
    pub(crate) daemons: Vec<Daemon>,
    pub(crate) apps: Vec<App>,
    /// What could not be asked.
    pub(crate) trouble: String,
    /// The id of the chosen app: it stays chosen while others come and go.
    pub(crate) chosen: Option<String>,
    pub(crate) filter: String,
    /// Keys go into the filter.
    pub(crate) filtering: bool,
    /// The pane of the chosen app's log is open.
    pub(crate) logs: bool,
    pub(crate) lines: Vec<String>,
    /// Whether states have colours.
    pub(crate) colours: bool,
}

/// What a key comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    /// The screen is drawn anew.
    Draw,
    Nothing,
}

impl State {
    /// The apps that the filter lets through.
    pub(crate) fn shown(&self) -> Vec<&App> {
        let wanted = self.filter.to_lowercase();
        let fits = |app: &&App| {
            [&app.name, &app.host, &app.state, &app.id]
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
        };
        self.apps.iter().filter(fits).collect()
    }

    /// Which of the shown ones is chosen; none without any.
    pub(crate) fn at(&self) -> Option<usize> {
        let shown = self.shown();
        let at = shown.iter().position(|app| Some(&app.id) == self.chosen.as_ref());
        at.or(if shown.is_empty() { None } else { Some(0) })
    }

    /// The chosen app.
    pub(crate) fn chosen(&self) -> Option<&App> {
        self.at().and_then(|at| self.shown().get(at).copied())
    }

    /// A key that was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Effect {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Effect::Quit } else { Effect::Nothing };
        }
        if self.filtering {
            return self.typed(key.code);
        }
        match key.code {
            KeyCode::Char('q') => Effect::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Char('/') => {
                self.filtering = true;
                Effect::Draw
            }
            KeyCode::Esc => {
                self.filter.clear();
                Effect::Draw
            }
            KeyCode::Char('l') => {
                self.logs = !self.logs;
                Effect::Draw
            }
            _ => Effect::Nothing,
        }
    }

    fn typed(&mut self, code: KeyCode) -> Effect {
        match code {
            KeyCode::Enter => self.filtering = false,
            KeyCode::Esc => (self.filtering, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.len() < FILTER_MAX => self.filter.push(c),
            _ => return Effect::Nothing,
        }
        Effect::Draw
    }

    fn move_by(&mut self, step: isize) -> Effect {
        let shown = self.shown();
        let Some(at) = self.at() else { return Effect::Nothing };
        let to = at.saturating_add_signed(step).min(shown.len() - 1);
        self.chosen = Some(shown[to].id.clone());
        Effect::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(names: &[&str]) -> State {
        let app = |name: &&str| App { id: (*name).into(), name: (*name).into(), ..App::default() };
        State { apps: names.iter().map(app).collect(), ..State::default() }
    }

    fn press(state: &mut State, code: KeyCode) -> Effect {
        state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn chosen(state: &State) -> &str {
        state.chosen().map_or("", |app| app.id.as_str())
    }

    #[test]
    fn arrows_choose_and_what_is_chosen_stays_so_while_others_come_and_go() {
        let mut state = state(&["a", "b", "c"]);
        assert_eq!(chosen(&state), "a");
        assert_eq!(press(&mut state, KeyCode::Down), Effect::Draw);
        assert_eq!(chosen(&state), "b");
        state.apps.remove(0);
        assert_eq!((chosen(&state), state.at()), ("b", Some(0)));
        for _ in 0..5 {
            press(&mut state, KeyCode::Down);
        }
        assert_eq!(chosen(&state), "c");
        state.apps.pop();
        assert_eq!(chosen(&state), "b", "what is gone is chosen no more");
        state.apps.clear();
        assert_eq!((press(&mut state, KeyCode::Up), state.at()), (Effect::Nothing, None));
    }

    #[test]
    fn a_filter_is_typed_used_and_cleared() {
        let mut state = state(&["shop", "login"]);
        press(&mut state, KeyCode::Char('/'));
        for key in "qLO".chars() {
            assert_ne!(press(&mut state, KeyCode::Char(key)), Effect::Quit, "it is typed");
        }
        assert!(state.shown().is_empty());
        for _ in 0..3 {
            press(&mut state, KeyCode::Backspace);
        }
        press(&mut state, KeyCode::Char('L'));
        press(&mut state, KeyCode::Enter);
        assert_eq!((chosen(&state), state.shown().len(), state.filtering), ("login", 1, false));
        press(&mut state, KeyCode::Esc);
        assert_eq!(state.shown().len(), 2);
        press(&mut state, KeyCode::Char('/'));
        for _ in 0..1000 {
            press(&mut state, KeyCode::Char('x'));
        }
        assert_eq!(state.filter.len(), FILTER_MAX);
    }

    #[test]
    fn q_and_control_c_quit_and_l_opens_the_log() {
        let mut state = state(&["a"]);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Effect::Quit);
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
        assert!(press(&mut state, KeyCode::Char('l')) == Effect::Draw && state.logs);
        assert_eq!(press(&mut state, KeyCode::Char('x')), Effect::Nothing);
    }
}
