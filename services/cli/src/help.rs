//! Help for a terminal as wide as it is: words stay whole, and what is beside a name stays beside it. Where there is no terminal the
//! text is as it was written, for those who search it.

use std::fmt::Write;

use clap::error::Error;

use crate::out::{self, Look};

/// Shows what clap has to say, where it belongs.
pub(crate) fn show(answer: &Error) {
    let Look { width, colours } = out::seen();
    match width.filter(|_| !answer.use_stderr()) {
        Some(width) => {
            let text = answer.render();
            let text = if colours { text.ansi().to_string() } else { text.to_string() };
            let _ = out::write(fitted(&text, width).as_bytes());
        }
        None => drop(answer.print()), // where it can't be written, nobody reads it
    }
}

/// The lines of a text, none wider than that unless a word is.
fn fitted(text: &str, width: usize) -> String {
    text.split_inclusive('\n').map(|line| line_fitted(line, width)).collect()
}

fn line_fitted(line: &str, width: usize) -> String {
    if seen(line) <= width {
        return line.to_owned();
    }
    let hang = hang(line, width);
    let (mut fitted, mut at) = (String::new(), 0);
    for (number, word) in line.split(' ').enumerate() {
        let long = seen(word);
        if number > 0 && at > hang && at + 1 + long > width {
            fitted.truncate(fitted.trim_end_matches(' ').len());
            let _ = write!(fitted, "\n{:hang$}{word}", "");
            at = hang + long;
        } else {
            let gap = usize::from(number > 0);
            let _ = write!(fitted, "{:gap$}{word}", "");
            at += gap + long;
        }
    }
    fitted
}

/// Where the lines after the first begin: beside a name, or below the first one's own beginning.
fn hang(line: &str, width: usize) -> usize {
    let plain = plain(line);
    let begin = plain.len() - plain.trim_start().len();
    let beside = plain[begin..].find("  ").map(|gap| {
        let rest = &plain[begin + gap..];
        begin + gap + rest.len() - rest.trim_start().len()
    });
    beside.filter(|beside| *beside <= width / 2).unwrap_or(begin)
}

/// How many columns of a screen it takes.
fn seen(text: &str) -> usize {
    plain(text).trim_end_matches('\n').chars().count()
}

/// Without what colours it.
fn plain(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |plain, piece| plain + piece.split_once('m').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_stand_beside_their_name() {
        let text = "\
short
A line of words that is longer than it may be here.

  \u{1b}[1mplan\u{1b}[0m    Show what taking up the configuration would change
          Beside nothing, and below what it is about
a-word-that-is-longer-than-the-terminal-is
";
        let expected = "\
short
A line of words that is longer
than it may be here.

  \u{1b}[1mplan\u{1b}[0m    Show what taking up
          the configuration
          would change
          Beside nothing, and
          below what it is about
a-word-that-is-longer-than-the-terminal-is
";
        assert_eq!(fitted(text, 32), expected);
        assert_eq!(fitted(text, 200), text);
    }

    #[test]
    fn all_help_fits_a_terminal() {
        use clap::CommandFactory;
        let mut cli = crate::args::Cli::command();
        cli.build();
        for command in cli.get_subcommands_mut() {
            let text = fitted(&command.render_long_help().ansi().to_string(), 80);
            let wide = text.lines().find(|line| seen(line) > 80 && line.trim().contains(' '));
            assert_eq!(wide, None, "{}", command.get_name());
        }
    }
}
