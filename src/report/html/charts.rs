//! Error against work: against the iterations of Algorithm 1 if the method has its rounds, otherwise against the solver time of
//! each linear layer. With a table of the same by type of layer.

use super::format::{kind, many, mean_count, percent, seconds, tick};
use super::heat::kinds;
use super::operators::stop_reason;
use crate::report::OperatorReport;
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

/// The picture's sides and its plot's edges, in units of the view box: as large as a phone shows it without scaling.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 222.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 330.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 188.0;

/// One mark a kind, so that colour is not all that tells them apart; around the origin.
const MARKS: [&str; 8] = [
    "M-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0Z",
    "M-3,-3H3V3H-3Z",
    "M0,-4L3.9,3H-3.9Z",
    "M0,-4.2L4.2,0L0,4.2L-4.2,0Z",
    "M0,4L3.9,-3H-3.9Z",
    "M-1.2,-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2Z",
    "M-4,-2H4V2H-4Z",
    "M-2,-4H2V4H-2Z",
];

pub(super) fn work(operators: &[OperatorReport]) -> Markup {
    let has_rounds = operators.iter().any(|o| !o.solver.rounds.is_empty());
    html! {
        section aria-labelledby="work" {
            @if has_rounds {
                h2 #work { "Error against iterations" }
                p.note {
                    "The best error so far in percent of the first error, after so many FISTA iterations in all rounds: the mean over all \
                     linear layers of one type. 0 iterations are the warm start, if there is one. The refit comes after this."
                }
            } @else {
                h2 #work { "Error against solver time" }
                p.note { "Each point is one linear layer: the time to solve it, and its error." }
            }
            div.split {
                figure {
                    @if has_rounds { (iterations(operators)) } @else { (scatter(operators)) }
                    (legend(operators))
                }
                div { (table(operators, has_rounds)) }
            }
            @if has_rounds {
                details { summary { "All rounds by type of layer, in percent of the first error" } (rounds_table(operators)) }
            }
        }
    }
}

fn mark(class: usize) -> Markup {
    html! { path class={"mark s" (class % 8)} d=(MARKS[class % 8]) {} }
}

fn legend(operators: &[OperatorReport]) -> Markup {
    html! {
        ul.legend {
            @for (class, kind) in kinds(operators).iter().enumerate() {
                li { svg viewBox="-5 -5 10 10" aria-hidden="true" { (mark(class)) } (kind) }
            }
        }
    }
}

/// Work and outcome by kind.
fn table(operators: &[OperatorReport], has_rounds: bool) -> Markup {
    let row = |wanted: &str| {
        let own: Vec<&OperatorReport> = operators.iter().filter(|o| kind(&o.name) == wanted).collect();
        let number = own.len().max(1) as f64;
        let mean = |value: fn(&OperatorReport) -> f64| own.iter().map(|o| value(o)).sum::<f64>() / number;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for operator in &own {
            *reasons
                .entry(stop_reason(operator.solver.stop_reason))
                .or_default() += 1;
        }
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        html! {
            tr {
                th scope="row" { (wanted) }
                td { (percent(mean(|o| o.relative_error))) }
                @if has_rounds { td { (mean_count(mean(|o| o.solver.rounds.len() as f64))) } }
                td { (mean_count(mean(|o| o.solver.iterations as f64))) }
                td { (mean_count(mean(|o| o.solver.polish_iterations as f64))) }
                td { (seconds(mean(|o| o.seconds))) }
                td.wrap { (reasons.join(", ")) }
            }
        }
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="work by type of layer" {
            table.list {
                thead { tr {
                    th scope="col" { "mean of" }
                    th scope="col" { "error %" }
                    @if has_rounds { th scope="col" { "rounds" } }
                    @for column in ["steps", "refit", "time", "stopped by"] { th scope="col" { (column) } }
                } }
                tbody { @for kind in kinds(operators) { (row(kind)) } }
            }
        }
    }
}

/// The best relative error after each round as a share of the first one; the start counts as round 0 where there is one.
/// Empty where nothing was ever measured or nothing is left to gain.
pub(super) fn best_so_far(operator: &OperatorReport) -> Vec<f64> {
    let solver = &operator.solver;
    let mut best = Vec::with_capacity(solver.rounds.len() + 1);
    best.extend(solver.warm_start_error);
    for round in &solver.rounds {
        let before = best.last().copied().unwrap_or(f64::INFINITY);
        best.push(before.min(round.rounded_error));
    }
    match best.first().copied() {
        Some(first) if first > 0.0 => best.into_iter().map(|error| error / first).collect(),
        _ => Vec::new(),
    }
}

/// For each kind its mean over operators after each round; an operator that has stopped keeps its best.
fn courses(operators: &[OperatorReport]) -> Vec<(&str, Vec<f64>)> {
    let course = |wanted: &str| {
        let own = operators.iter().filter(|o| kind(&o.name) == wanted);
        let own: Vec<Vec<f64>> = own.map(best_so_far).filter(|best| !best.is_empty()).collect();
        let longest = own.iter().map(Vec::len).max().unwrap_or(0);
        let at = |best: &Vec<f64>, round: usize| best[round.min(best.len() - 1)];
        (0..longest)
            .map(|round| own.iter().map(|best| at(best, round)).sum::<f64>() / own.len() as f64)
            .collect()
    };
    kinds(operators)
        .into_iter()
        .map(|kind| (kind, course(kind)))
        .collect()
}

/// Without a warm start the first entry is round 1.
fn first_round(operators: &[OperatorReport]) -> usize {
    usize::from(!operators.iter().any(|o| o.solver.warm_start_error.is_some()))
}

/// Iterations over all rounds, and the best error so far that they led to.
fn trace(operator: &OperatorReport) -> Vec<(usize, f64)> {
    let solver = &operator.solver;
    let start = solver.warm_start_error.map(|_| 0);
    let rounds = solver.rounds.iter().scan(0, |sum, round| {
        *sum += round.iterations;
        Some(*sum)
    });
    start
        .into_iter()
        .chain(rounds)
        .zip(best_so_far(operator))
        .collect()
}

/// More points than these are not told apart.
const POINTS: usize = 64;

/// For each kind its mean over operators after so many iterations; it begins where all of them have an error.
pub(super) fn curves(operators: &[OperatorReport]) -> Vec<(&str, Vec<(usize, f64)>)> {
    let curve = |wanted: &str| {
        let own = operators.iter().filter(|o| kind(&o.name) == wanted);
        let own: Vec<Vec<(usize, f64)>> = own.map(trace).filter(|trace| !trace.is_empty()).collect();
        let begin = own.iter().map(|trace| trace[0].0).max().unwrap_or(0);
        let places: BTreeSet<usize> = own.iter().flatten().map(|(done, _)| *done).collect();
        let places: Vec<usize> = places.range(begin..).copied().collect();
        let every = places.len().div_ceil(POINTS).max(1);
        let shown = places.iter().enumerate().filter(|(number, _)| {
            // Counted from the end, which is what a reader looks for; the beginning stays too.
            *number == 0 || (places.len() - 1 - number).is_multiple_of(every)
        });
        let at = |trace: &[(usize, f64)], place: usize| {
            let reached = trace.partition_point(|(done, _)| *done <= place);
            trace[reached.max(1) - 1].1
        };
        let mean =
            |place: usize| own.iter().map(|trace| at(trace, place)).sum::<f64>() / own.len().max(1) as f64;
        shown.map(|(_, place)| (*place, mean(*place))).collect()
    };
    kinds(operators)
        .into_iter()
        .map(|kind| (kind, curve(kind)))
        .collect()
}

fn iterations(operators: &[OperatorReport]) -> Markup {
    let curves = curves(operators);
    let all = || curves.iter().flat_map(|(_, curve)| curve.iter().copied());
    if all().next().is_none() {
        return html! { p { "No operator had an error to begin with." } };
    }
    let most = all().map(|(done, _)| done).max().unwrap_or(0);
    let x = Axis::new(0.0, most as f64, Scale::Whole);
    let y = Axis::new(
        all().map(|(_, error)| error).fold(0.99, f64::min),
        all().map(|(_, error)| error).fold(1.0, f64::max),
        Scale::Linear,
    );
    let place = |(done, error): (usize, f64)| (x.across(done as f64), y.up(error));
    // Marks that touch would hide the line.
    let marked = |curve: &[(usize, f64)]| {
        let every = curve.len().div_ceil(20).max(1);
        let marked = curve.iter().rev().step_by(every).copied();
        marked.collect::<Vec<_>>()
    };
    let names = ("FISTA iterations", "% of the first error");
    html! {
        (frame("best error so far, by iterations", &x, &y, names, |v| format!("{v:.0}"), |v| tick(v * 100.0), {
            html! {
                @for (class, (_, curve)) in curves.iter().enumerate() {
                    @let points: Vec<String> = curve.iter().map(|point| {
                        let (x, y) = place(*point);
                        format!("{x:.1},{y:.1}")
                    }).collect();
                    polyline class={"line s" (class % 8)} points=(points.join(" ")) {}
                }
                @for (class, (kind, curve)) in curves.iter().enumerate() {
                    @for (done, error) in marked(curve) {
                        @let (x, y) = place((done, error));
                        g transform={"translate(" (format!("{x:.1} {y:.1}")) ")"} {
                            title { (kind) "\n" (many(done, "iteration")) ": " (error * 100.0) " %" }
                            (mark(class))
                        }
                    }
                }
            }
        }))
    }
}

fn rounds_table(operators: &[OperatorReport]) -> Markup {
    let courses = courses(operators);
    let longest = courses.iter().map(|(_, course)| course.len()).max().unwrap_or(0);
    let first = first_round(operators);
    html! {
        div.scroll tabindex="0" role="region" aria-label="all rounds by type of layer" {
            table.list {
                thead { tr { th scope="col" { "round" } @for (kind, _) in &courses { th scope="col" { (kind) } } } }
                tbody {
                    @for round in 0..longest {
                        tr {
                            th scope="row" { (round + first) }
                            @for (_, course) in &courses {
                                td { @match course.get(round) { Some(error) => (format!("{:.3}", error * 100.0)), None => "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn scatter(operators: &[OperatorReport]) -> Markup {
    let kinds = kinds(operators);
    let shown: Vec<&OperatorReport> = operators
        .iter()
        .filter(|o| o.relative_error > 0.0 && o.seconds > 0.0)
        .collect();
    let hidden = operators.len() - shown.len();
    let axis = |value: fn(&OperatorReport) -> f64| {
        let least = shown.iter().map(|o| value(o)).fold(f64::INFINITY, f64::min);
        let most = shown.iter().map(|o| value(o)).fold(0.0, f64::max);
        Axis::new(least, most, Scale::Logarithmic)
    };
    if shown.is_empty() {
        return html! { p { "No linear layer has an error: on the calibration text all outputs are as before." } };
    }
    let (x, y) = (axis(|o| o.seconds), axis(|o| o.relative_error));
    html! {
        (frame("error and solver time of every linear layer", &x, &y, ("seconds", "error %"), tick, |v| tick(v * 100.0), html! {
            @for operator in &shown {
                @let class = kinds.iter().position(|k| *k == kind(&operator.name)).unwrap_or(0);
                g transform={"translate(" (format!("{:.1} {:.1}", x.across(operator.seconds), y.up(operator.relative_error))) ")"} {
                    title { (operator.name) "\n" (operator.relative_error * 100.0) " %, " (operator.seconds) " s" }
                    (mark(class))
                }
            }
        }))
        @if hidden > 0 { p.note { (many(hidden, "linear layer")) " without an error or without a measured time: not shown." } }
    }
}

/// Axes with their ticks, and `content` in between.
fn frame(
    name: &str,
    x: &Axis,
    y: &Axis,
    (x_name, y_name): (&str, &str),
    x_text: impl Fn(f64) -> String,
    y_text: impl Fn(f64) -> String,
    content: Markup,
) -> Markup {
    html! {
        svg.chart viewBox={"0 0 " (WIDTH) " " (HEIGHT)} role="img" aria-label=(name) {
            @for tick in y.ticks() {
                line.grid x1=(LEFT) x2=(RIGHT) y1=(format!("{:.1}", y.up(tick))) y2=(format!("{:.1}", y.up(tick))) {}
                text x=(LEFT - 5.0) y=(format!("{:.1}", y.up(tick) + 3.5)) text-anchor="end" { (y_text(tick)) }
            }
            @for tick in x.ticks() {
                line.grid x1=(format!("{:.1}", x.across(tick))) x2=(format!("{:.1}", x.across(tick))) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                text x=(format!("{:.1}", x.across(tick))) y=(BOTTOM + 15.0) text-anchor="middle" { (x_text(tick)) }
            }
            line.grid x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            text x=(RIGHT) y=(BOTTOM + 30.0) text-anchor="end" { (x_name) }
            text x="0" y="10" { (y_name) }
            (content)
        }
    }
}

/// How an axis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Linear, with ticks at whole numbers only.
    Whole,
    /// Logarithmic; both ends are above zero.
    Logarithmic,
}

/// From values to places.
pub(super) struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
}

impl Axis {
    /// Holds `low` to `high`.
    pub(super) fn new(low: f64, high: f64, scale: Scale) -> Self {
        if scale == Scale::Logarithmic {
            // A little room around the marks, and more where all values are the same.
            let room = if high < low * 1.5 { 1.5 } else { 1.15 };
            let (low, high) = (low / room, high * room);
            return Self { low, high, scale };
        }
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, scale }
    }

    fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
            Scale::Linear | Scale::Whole => (value - self.low) / (self.high - self.low),
        }
    }

    fn across(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * self.share(value)
    }

    fn up(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.share(value)
    }

    /// Round numbers on the axis, a few of them.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let ratio = self.high / self.low;
        match self.scale {
            // Over less, round powers are too far apart.
            Scale::Logarithmic if ratio > 4.0 => self.powers(ratio),
            _ => self.steps(),
        }
    }

    fn powers(&self, ratio: f64) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let steps: &[f64] = match ratio {
            ratio if ratio < 30.0 => &[1.0, 2.0, 5.0],
            ratio if ratio < 1e3 => &[1.0, 3.0],
            _ => &[1.0],
        };
        // At most about ten of them, however far the values lie apart.
        let every = ((last - first) as usize).div_ceil(10).max(1);
        (first..=last)
            .step_by(every)
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9)).contains(tick))
            .collect()
    }

    fn steps(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 5.0;
        let unit = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * unit);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let step = if self.scale == Scale::Whole {
            step.max(1.0)
        } else {
            step
        };
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last).map(|k| k as f64 * step).collect()
    }
}
