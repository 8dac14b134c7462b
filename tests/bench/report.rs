//! Figures: medians of paired ratios, held against what is aimed at.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Serialize)]
struct Figure {
    median: f64,
    low: f64,
    high: f64,
    rounds: usize,
    unit: &'static str,
    aim: String,
    held: bool,
    /// Medians of the two sides of a ratio, in the unit of `sides_in`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ours: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    theirs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sides_in: Option<&'static str>,
}

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: BTreeMap<&'static str, Figure>,
    skipped: BTreeMap<&'static str, String>,
}

impl Report {
    /// A ratio, ours by theirs, from the rounds in which both were measured.
    pub(crate) fn ratio(
        &mut self,
        name: &'static str,
        ours: &[f64],
        theirs: &[f64],
        sides_in: &'static str,
        aim: Aim,
    ) {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let figure = Figure {
            ours: Some(median(ours)),
            theirs: Some(median(theirs)),
            sides_in: Some(sides_in),
            ..figure(&ratios, "ratio", aim)
        };
        self.figures.insert(name, figure);
    }

    /// A figure that is no ratio.
    pub(crate) fn plain(&mut self, name: &'static str, all: &[f64], unit: &'static str, aim: Aim) {
        self.figures.insert(name, figure(all, unit, aim));
    }

    /// Says aloud why a figure is not there.
    pub(crate) fn skip(&mut self, names: &[&'static str], why: &str) {
        for name in names {
            self.skipped.insert(name, why.to_owned());
        }
    }

    /// For a person.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{:<26} {:>9} {:>19}  {:<9} {}\n",
            "figure", "median", "lowest..highest", "aim", "sides (medians)"
        );
        for (name, figure) in &self.figures {
            let sides = match (figure.ours, figure.theirs, figure.sides_in) {
                (Some(ours), Some(theirs), Some(unit)) => {
                    format!("{} against {} {unit}", short(ours), short(theirs))
                }
                _ => figure.unit.to_owned(),
            };
            let _ = writeln!(
                text,
                "{name:<26} {:>9} {:>19}  {:<9} {sides}{}",
                short(figure.median),
                format!("{}..{}", short(figure.low), short(figure.high)),
                figure.aim,
                if figure.held { "" } else { "   MISSED" },
            );
        }
        for (name, why) in &self.skipped {
            let _ = writeln!(text, "{name:<26} skipped: {why}");
        }
        text
    }

    /// For a program.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

fn figure(all: &[f64], unit: &'static str, aim: Aim) -> Figure {
    let middle = median(all);
    let (aim, held) = match aim {
        Aim::AtLeast(least) => (format!(">= {least}"), middle >= least),
        Aim::AtMost(most) => (format!("<= {most}"), middle <= most),
    };
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    Figure {
        median: middle,
        low,
        high,
        rounds: all.len(),
        unit,
        aim,
        held,
        ours: None,
        theirs: None,
        sides_in: None,
    }
}

/// The middle of the values; of an even number of them the mean of the two in the middle.
pub(crate) fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// About three digits that say something.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
