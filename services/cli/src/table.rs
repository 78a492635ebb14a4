//! Columns for people.

/// Lines of columns as wide as their widest cell; the last column is as wide as it likes. Empty without rows.
pub(crate) fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        line.trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(head)).chain(rows).collect::<Vec<_>>().join("\n")
}

/// One line of what somebody else said: nothing in it may move the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
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
mod tests {
    use super::*;

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
