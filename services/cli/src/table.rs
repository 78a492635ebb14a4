//! Columns for people.

use crate::out::{self, Look};

/// The least room that the last column is broken to.
const LEAST: usize = 24;
/// What stands before the last column where it has lines of its own.
const INDENT: usize = 4;

/// What of a table is done without where the terminal is too narrow for all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spare {
    /// The column of this name.
    Column(&'static str),
    /// What is beyond so many characters in it.
    Beyond(&'static str, usize),
}

/// Lines of columns as wide as their widest cell, laid for the terminal there is. Empty without rows.
pub(crate) fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    laid(head, rows, &[], out::seen())
}

/// The same, where something may be spared, the first first.
pub(crate) fn fitted<const N: usize>(head: [&str; N], rows: &[[String; N]], spare: &[Spare]) -> String {
    laid(head, rows, spare, out::seen())
}

/// Columns with their heads.
struct Columns(Vec<(String, Vec<String>)>);

impl Columns {
    fn of<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Self {
        let column = |at: usize| (head[at].to_owned(), rows.iter().map(|row| row[at].clone()).collect());
        Self((0..N).map(column).collect())
    }

    fn spare(&mut self, spare: Spare) {
        match spare {
            Spare::Column(name) => self.0.retain(|(head, _)| head != name),
            Spare::Beyond(name, most) => {
                let meant = self.0.iter_mut().filter(|(head, _)| head == name);
                meant.flat_map(|(_, cells)| cells).for_each(|cell| shorten(cell, most));
            }
        }
    }

    /// The widths of all but the last.
    fn widths(&self) -> Vec<usize> {
        let count = |text: &String| text.chars().count();
        let wide = |(head, cells): &(String, Vec<String>)| cells.iter().chain([head]).map(count).max();
        let before = self.0.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().map(|column| wide(column).unwrap_or(0)).collect()
    }

    /// What the last needs at least: its longest word stays whole.
    fn least(&self) -> usize {
        let cells = self.0.last().map_or(&[][..], |(_, cells)| cells);
        let words = cells.iter().flat_map(|cell| cell.split(' ')).map(|word| word.chars().count());
        let whole = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        words.max().unwrap_or(0).max(whole.min(LEAST))
    }
}

/// As many characters as that, of which the last says that there were more.
fn shorten(text: &mut String, most: usize) {
    if text.chars().count() > most {
        *text = text.chars().take(most.saturating_sub(1)).chain(['…']).collect();
    }
}

/// What may be spared is done without until it fits; then the last column is broken into lines, or has lines of its own. States have
/// colours where they are wanted.
fn laid<const N: usize>(head: [&str; N], rows: &[[String; N]], spare: &[Spare], look: Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut columns = Columns::of(head, rows);
    let before = |columns: &Columns| columns.widths().iter().map(|width| width + 2).sum::<usize>();
    let fits = |columns: &Columns| look.width.is_none_or(|width| before(columns) + columns.least() <= width);
    for spare in spare {
        if fits(&columns) {
            break;
        }
        columns.spare(*spare);
    }
    let (widths, beside) = (columns.widths(), fits(&columns));
    let at = if beside { before(&columns) } else { INDENT };
    let room = look.width.map(|width| width.saturating_sub(at));
    let last = columns.0.len() - 1;
    let line = |cells: Vec<&str>, colours: bool| {
        let mut line = String::new();
        for (cell, width) in cells[..last].iter().zip(&widths) {
            let (paint, plain) = if colours { paint(cell) } else { ("", "") };
            line.push_str(&format!("{paint}{cell:<width$}{plain}  "));
        }
        let text = broken(cells[last], room).join(&format!("\n{:at$}", ""));
        if !beside && !text.is_empty() {
            line.truncate(line.trim_end().len());
            line.push_str(&format!("\n{:at$}", ""));
        }
        line.push_str(&text);
        line.trim_end().to_owned()
    };
    let heads = columns.0.iter().map(|(head, _)| head.as_str()).collect();
    let row = |at: usize| columns.0.iter().map(|(_, cells)| cells[at].as_str()).collect();
    let rows = (0..rows.len()).map(|at| line(row(at), look.colours));
    std::iter::once(line(heads, false)).chain(rows).collect::<Vec<_>>().join("\n")
}

/// The lines of a text in so much room, broken at blanks; a word that is too long stays whole, so that it can be copied.
fn broken(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room.filter(|room| text.chars().count() > *room) else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the start on");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= room {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// What begins and ends the colour of a word that is a state.
fn paint(word: &str) -> (&'static str, &'static str) {
    let colour = match word {
        "running" | "ready" | "ok" => "\u{1b}[32m",
        "starting" | "stopping" | "asleep" | "note" | "running, paused" => "\u{1b}[33m",
        "failed" | "unhealthy" | "BAD" | "missing" | "down" | "waiting" | "not serving" => "\u{1b}[31m",
        _ => return ("", ""),
    };
    (colour, "\u{1b}[0m")
}

/// One line of what somebody else said: nothing in it may move the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A line that an app wrote, for a terminal: its colours may stay, nothing else that a terminal would obey.
pub(crate) fn tame(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (mut out, mut rest, mut coloured) = (String::with_capacity(text.len() + 4), &*text, false);
    while let Some(c) = rest.chars().next() {
        let colour = colour(rest);
        let length = if colour > 0 { colour } else { c.len_utf8() };
        match c {
            _ if colour > 0 => out.push_str(&rest[..length]),
            '\t' => out.push('\t'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        coloured |= colour > 0;
        rest = &rest[length..];
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Bytes of the sequence for a colour that a text begins with; 0 = none.
fn colour(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if rest.as_bytes().get(digits) == Some(&b'm') { digits + 3 } else { 0 }
}

/// How long ago, for people: `5s`, `12m`, `3h`, `8d`. Empty when it never was.
pub(crate) fn ago(since_unix_ms: i64, now_unix_ms: i64) -> String {
    if since_unix_ms <= 0 {
        return String::new();
    }
    let seconds = (now_unix_ms - since_unix_ms).max(0) / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How much, for people: `17 B`, `5.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut rest = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TiB")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails where a table is too wide for a usual terminal; says how it is there.
    pub(crate) fn fits<const N: usize>(
        head: [&str; N],
        rows: &[[String; N]],
        spare: &[Spare],
    ) -> [String; 2] {
        [80, 100].map(|width| {
            let text = laid(head, rows, spare, at(width));
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}:\n{text}");
            }
            text
        })
    }

    #[test]
    fn of_what_an_app_writes_colours_reach_the_terminal_and_nothing_else_does() {
        assert_eq!(tame(b"a\tb"), "a\tb");
        assert_eq!(tame(b"\x1b[1;31mred\x1b[0m"), "\u{1b}[1;31mred\u{1b}[0m\u{1b}[0m");
        for (evil, said) in [
            (&b"\x1b]52;c;aGk=\x07"[..], " ]52;c;aGk= "),
            (b"\x1b[2J\rforged", " [2J forged"),
            (b"\x1b[31", " [31"),
            ("\u{9b}2J".as_bytes(), " 2J"),
        ] {
            assert_eq!(tame(evil), said);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["a".to_owned(), "long cell".to_owned(), "x".to_owned()],
            ["ünïcode".to_owned(), String::new(), String::new()],
        ];
        let expected = "NAME     STATE      WHY\na        long cell  x\nünïcode";
        assert_eq!(render(["NAME", "STATE", "WHY"], &rows), expected);
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(render(["NAME"], &[]), "");
    }

    fn at(width: usize) -> Look {
        Look { width: Some(width), colours: false }
    }

    #[test]
    fn a_table_fits_its_terminal_and_loses_nothing() {
        let row = [
            "shop".to_owned(),
            "failed".to_owned(),
            "it exited with code 3 and nobody knows why it did so".to_owned(),
        ];
        let expected = "\
NAME  STATE   WHY
shop  failed  it exited with code 3 and
              nobody knows why it did so";
        assert_eq!(laid(["NAME", "STATE", "WHY"], std::slice::from_ref(&row), &[], at(40)), expected);
        let expected = "\
NAME  STATE
    WHY
shop  failed
    it exited with code 3
    and nobody knows why it
    did so";
        assert_eq!(laid(["NAME", "STATE", "WHY"], &[row], &[], at(28)), expected);
        let url = "https://a-long-name-that-is-copied.example.org:8443/";
        assert_eq!(broken(&format!("see {url} now"), Some(LEAST)), ["see", url, "now"]);
    }

    #[test]
    fn what_may_be_spared_is_spared_in_order_and_no_more_of_it_than_needs_be() {
        let row = ["shop", "an-id-that-is-long", "sandbox", "https://shop/"].map(str::to_owned);
        let spare = [Spare::Column("DRIVER"), Spare::Beyond("ID", 6), Spare::Column("ID")];
        let lines =
            |width| laid(["NAME", "ID", "DRIVER", "URL"], std::slice::from_ref(&row), &spare, at(width));
        assert_eq!(
            lines(48),
            "NAME  ID                  DRIVER   URL\nshop  an-id-that-is-long  sandbox  https://shop/"
        );
        assert_eq!(lines(47), "NAME  ID                  URL\nshop  an-id-that-is-long  https://shop/");
        assert_eq!(lines(38), "NAME  ID      URL\nshop  an-id…  https://shop/");
        assert_eq!(lines(26), "NAME  URL\nshop  https://shop/");
        assert_eq!(
            laid(["NAME", "ID", "DRIVER", "URL"], std::slice::from_ref(&row), &spare, Look::default()),
            lines(48)
        );
    }

    #[test]
    fn states_have_colours_where_they_are_wanted_and_columns_stay_straight() {
        let row = ["x".to_owned(), "running".to_owned(), "y".to_owned()];
        let colours = Look { width: None, colours: true };
        let expected = "NAME  STATE    WHY\nx     \u{1b}[32mrunning\u{1b}[0m  y";
        assert_eq!(laid(["NAME", "STATE", "WHY"], &[row], &[], colours), expected);
    }

    #[test]
    fn nothing_that_others_said_moves_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2J\nb\tc"), "a [2J b c");
    }

    #[test]
    fn amounts_are_told_in_the_unit_that_fits() {
        let told = [0, 1023, 1024, 5 << 20, 3 << 30, 2 << 40].map(bytes);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB", "2.0 TiB"]);
    }

    #[test]
    fn times_are_told_as_people_tell_them() {
        let cases = [(5, "5s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d"), (-5, "0s")];
        for (seconds, text) in cases {
            assert_eq!(ago(1_000_000_000, 1_000_000_000 + seconds * 1000), text);
        }
        assert_eq!(ago(0, 5), "");
    }
}
