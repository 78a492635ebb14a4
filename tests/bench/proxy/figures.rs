//! Figures: of each contender one a run, told by their median and their spread, and what ours is to the best of the others.

use serde_json::{Value, json};

use super::contenders::NAMES;

/// The figure that tells whether a proxy was what limited its rate; and from where on it was.
pub(crate) const BUSY: &str = "% of its core";
const LIMITING: f64 = 95.0;

/// Which of two is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// It says something about another figure.
    Neither,
}

/// One figure of a row.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) unit: &'static str,
    better: Better,
    runs: [Vec<f64>; NAMES.len()],
}

/// The middle of runs, and the ends.
#[derive(Debug, Clone, Copy)]
struct Spread {
    least: f64,
    middle: f64,
    most: f64,
}

impl Spread {
    fn of(runs: &[f64]) -> Option<Self> {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Self { least, middle, most })
    }
}

impl Figure {
    pub(crate) fn new(unit: &'static str, better: Better) -> Self {
        Self { unit, better, runs: Default::default() }
    }

    /// What a run gave for one of the contenders.
    pub(crate) fn add(&mut self, contender: usize, value: f64) {
        self.runs[contender].push(value);
    }

    fn medians(&self) -> [Option<f64>; NAMES.len()] {
        self.runs.each_ref().map(|runs| Spread::of(runs).map(|spread| spread.middle))
    }

    /// How much better ours is than the best of the others: above 1 it is better, whichever way the figure goes.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let [ours, others @ ..] = self.medians();
        let (ours, others) = (ours?, others.into_iter().flatten());
        match self.better {
            Better::More => others.reduce(f64::max).map(|best| ours / best),
            Better::Less => others.reduce(f64::min).map(|best| best / ours),
            Better::Neither => None,
        }
    }

    fn json(&self, counts: bool) -> Value {
        let of = |runs: &Vec<f64>| {
            let spread = Spread::of(runs)?;
            Some(json!({"median": spread.middle, "min": spread.least, "max": spread.most, "runs": runs}))
        };
        let columns: serde_json::Map<String, Value> =
            NAMES.iter().zip(&self.runs).map(|(name, runs)| ((*name).to_owned(), of(runs).into())).collect();
        json!({"figure": self.unit, "ratio": self.ratio(), "counts": counts, "contenders": columns})
    }
}

/// Whether a row's ratio is told by this figure: by the rate where the proxies were what limited it, else by what a request
/// costs them; where there is no rate, by every figure that can be better.
fn counts(figures: &[Figure], at: usize) -> bool {
    let Some(busy) = figures.iter().find(|figure| figure.unit == BUSY) else {
        return figures[at].better != Better::Neither;
    };
    let [ours, others @ ..] = busy.medians();
    let rates = figures[0].medians();
    let best = (0..others.len()).max_by(|a, b| {
        let rate = |at: usize| rates[at + 1].unwrap_or_default();
        rate(*a).total_cmp(&rate(*b))
    });
    let best = best.and_then(|best| others[best]);
    let limits = [ours, best].into_iter().flatten().all(|share| share >= LIMITING);
    at == usize::from(!limits)
}

/// The head of the table.
pub(crate) fn head() -> String {
    let columns = NAMES.join(" | ");
    format!("| row | figure | {columns} | ours : best |\n|---|---|{}---|\n", "---|".repeat(NAMES.len()))
}

/// A row's lines. The ratio that counts is bold.
pub(crate) fn lines(row: &str, figures: &[Figure]) -> String {
    let line = |(at, figure): (usize, &Figure)| {
        let cells = figure.runs.iter().map(|runs| cell(Spread::of(runs)));
        let ratio = figure.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let ratio = if counts(figures, at) { format!("**{ratio}**") } else { ratio };
        let name = if at == 0 { row } else { "" };
        format!("| {name} | {} | {} | {ratio} |\n", figure.unit, cells.collect::<Vec<_>>().join(" | "))
    };
    figures.iter().enumerate().map(line).collect()
}

/// The head of the short table.
pub(crate) fn short_head() -> String {
    "| row | what counts | ours | best of the others | ours : best |\n|---|---|---|---|---|\n".to_owned()
}

/// A row's lines in the short table: the figures that count.
pub(crate) fn short_lines(row: &str, figures: &[Figure]) -> String {
    let line = |(at, figure): (usize, &Figure)| {
        let [ours, others @ ..] = figure.medians();
        let ratio = figure.ratio().filter(|_| counts(figures, at))?;
        let others = others.iter().zip(&NAMES[1..]).filter_map(|(value, name)| Some(((*value)?, *name)));
        let best = |a: &(f64, &str), b: &(f64, &str)| a.0.total_cmp(&b.0);
        let (value, name) =
            if figure.better == Better::More { others.max_by(best)? } else { others.min_by(best)? };
        let (ours, value) = (round(ours?), round(value));
        Some(format!("| {row} | {} | {ours} | {value} {name} | {ratio:.2} |\n", figure.unit))
    };
    figures.iter().enumerate().filter_map(line).collect()
}

/// A row for programs.
pub(crate) fn json(row: &str, figures: &[Figure]) -> Value {
    let figures: Vec<Value> =
        figures.iter().enumerate().map(|(at, figure)| figure.json(counts(figures, at))).collect();
    json!({"row": row, "figures": figures})
}

fn cell(spread: Option<Spread>) -> String {
    let Some(Spread { least, middle, most }) = spread else { return "–".to_owned() };
    format!("{} ({}–{})", round(middle), round(least), round(most))
}

/// Without digits that say nothing.
fn round(value: f64) -> String {
    let digits = usize::from(value.abs() < 100.0);
    format!("{value:.digits$}")
}
