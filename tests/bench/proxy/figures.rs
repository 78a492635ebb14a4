//! Figures: of each contender one a run, told by their median and their spread, and what ours is to the best of the others.

use serde_json::{Value, json};

use super::contenders::NAMES;

/// The figure that tells whether a proxy was what limited its rate; and from where on it was.
pub(crate) const BUSY: &str = "% of its core";
const LIMITING: f64 = 95.0;
/// How much of its core the generator took, which shares it with the backend.
pub(crate) const GENERATOR: &str = "% of the generator's core";

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

    /// The best of the others.
    fn best(&self) -> Option<usize> {
        let medians = self.medians();
        let others = (1..NAMES.len()).filter(|at| medians[*at].is_some());
        let by_median =
            |a: &usize, b: &usize| medians[*a].partial_cmp(&medians[*b]).expect("figures are numbers");
        match self.better {
            Better::More => others.max_by(by_median),
            Better::Less => others.min_by(by_median),
            Better::Neither => None,
        }
    }

    /// How much better ours is than the best of the others: above 1 it is better, whichever way the figure goes. Compared within
    /// each run, because what the machine did meanwhile it did to both.
    fn ratio(&self) -> Option<Spread> {
        let pairs = self.runs[0].iter().zip(&self.runs[self.best()?]);
        let ratio =
            |(ours, best): (&f64, &f64)| if self.better == Better::More { ours / best } else { best / ours };
        Spread::of(&pairs.map(ratio).collect::<Vec<_>>())
    }

    fn json(&self, counts: bool) -> Value {
        let of = |runs: &Vec<f64>| {
            let spread = Spread::of(runs)?;
            Some(json!({"median": spread.middle, "min": spread.least, "max": spread.most, "runs": runs}))
        };
        let columns: serde_json::Map<String, Value> =
            NAMES.iter().zip(&self.runs).map(|(name, runs)| ((*name).to_owned(), of(runs).into())).collect();
        let ratio = self.ratio().map(|ratio| ratio.middle);
        json!({"figure": self.unit, "ratio": ratio, "counts": counts, "contenders": columns})
    }
}

/// Whether a row's ratio is told by this figure: by the rate where the proxies were what limited it, else by what a request
/// costs them; where there is no rate, by every figure that can be better.
fn counts(figures: &[Figure], at: usize) -> bool {
    let Some(busy) = figures.iter().find(|figure| figure.unit == BUSY) else {
        return figures[at].better != Better::Neither;
    };
    let shares = busy.medians();
    let limits = |at: usize| shares[at].is_some_and(|share| share >= LIMITING);
    let limits = limits(0) && figures[0].best().is_some_and(limits);
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
        let ratio = figure.ratio().map(|ratio| format!("{:.2}", ratio.middle)).unwrap_or_default();
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
        let Spread { least, middle, most } = figure.ratio().filter(|_| counts(figures, at))?;
        let (best, medians) = (figure.best()?, figure.medians());
        let (ours, others, name) = (round(medians[0]?), round(medians[best]?), NAMES[best]);
        let ratio = format!("{middle:.2} ({least:.2}–{most:.2})");
        Some(format!("| {row} | {} | {ours} | {others} {name} | {ratio} |\n", figure.unit))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: &'static str, better: Better, runs: [&[f64]; NAMES.len()]) -> Figure {
        Figure { unit, better, runs: runs.map(<[f64]>::to_vec) }
    }

    fn ratio(figure: &Figure) -> f64 {
        figure.ratio().unwrap().middle
    }

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better_whichever_way_the_figure_goes() {
        let rate = figure("requests/s", Better::More, [&[300.0], &[200.0], &[100.0], &[50.0]]);
        let cost = figure("µs", Better::Less, [&[20.0], &[30.0], &[60.0], &[90.0]]);
        assert_eq!((ratio(&rate), ratio(&cost)), (1.5, 1.5));
    }

    #[test]
    fn runs_are_compared_with_their_own_neighbours() {
        let slower_every_time =
            figure("requests/s", Better::More, [&[50.0, 10.0, 5.0], &[100.0, 20.0, 10.0], &[1.0], &[1.0]]);
        assert_eq!(ratio(&slower_every_time), 0.5);
    }

    #[test]
    fn the_rate_counts_where_the_proxies_were_the_limit_and_else_what_a_request_costs() {
        let rate = figure("requests/s", Better::More, [&[300.0], &[200.0], &[100.0], &[50.0]]);
        let cost = figure("µs", Better::Less, [&[20.0], &[30.0], &[60.0], &[90.0]]);
        let busy = |ours: f64| figure(BUSY, Better::Neither, [&[ours], &[99.0], &[10.0], &[10.0]]);
        let all = |ours: f64| [rate.clone(), cost.clone(), busy(ours)];
        let counting =
            |figures: &[Figure]| (0..figures.len()).filter(|at| counts(figures, *at)).collect::<Vec<_>>();
        assert_eq!(counting(&all(99.0)), [0]);
        assert_eq!(counting(&all(70.0)), [1]);
        assert_eq!(counting(&all(99.0)[..2]), [0, 1], "without a rate every figure counts");
    }

    #[test]
    fn who_was_not_measured_has_no_figure() {
        let alone = figure("requests/s", Better::More, [&[300.0], &[], &[], &[]]);
        assert!(alone.ratio().is_none());
        assert!(lines("row", &[alone]).contains("| 300 (300–300) | – | – | – |"));
    }
}
