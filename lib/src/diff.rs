//! What one plan can do that another one cannot: the capabilities of both, compared.
//!
//! Pure. What can be told to be more or less is gained or lost; what is only other (the command, the
//! image) is changed. Sound where egress decides: see [`crate::policy::gained`].

use serde::Serialize;

use crate::plan::Plan;
use crate::policy;

mod ability;

/// The difference of two plans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// What the new one can do and the old one cannot.
    pub gained: Vec<Item>,
    /// What the old one can do and the new one cannot.
    pub lost: Vec<Item>,
    /// What is other, and neither more nor less.
    pub changed: Vec<Change>,
}

/// Something that a plan can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Item {
    /// The part of the plan that allows it: `egress`, `mounts`, …
    pub part: &'static str,
    /// What it is, in a line.
    pub can: String,
    /// Where the other plan can do it too, but less freely: in what, and how it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
}

/// Something that is other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// The field of the plan.
    pub part: &'static str,
    /// In the old one; `none` where it was not set.
    pub old: String,
    /// In the new one.
    pub new: String,
}

impl Diff {
    /// Compares two plans.
    #[must_use]
    pub fn of(old: &Plan, new: &Plan) -> Self {
        Self {
            gained: beyond(old, new),
            lost: beyond(new, old),
            changed: ability::changed(old, new),
        }
    }

    /// Whether the two can do the same, and are the same otherwise.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty() && self.changed.is_empty()
    }

    /// For a person: a line for each item, `+` gained, `-` lost, `~` changed.
    #[must_use]
    pub fn to_text(&self) -> String {
        let items = [('+', &self.gained), ('-', &self.lost)];
        let items = items.iter().flat_map(|(sign, items)| {
            items.iter().map(move |item| {
                let was = item.was.as_ref().map_or_else(String::new, |was| {
                    let when = if *sign == '+' { "was" } else { "is" };
                    format!(" ({when} {was})")
                });
                format!("{sign} {}: {}{was}\n", item.part, item.can)
            })
        });
        let changed = self
            .changed
            .iter()
            .map(|Change { part, old, new }| format!("~ {part}: {old} -> {new}\n"));
        items.chain(changed).collect()
    }
}

/// What `new` can do and `old` cannot.
fn beyond(old: &Plan, new: &Plan) -> Vec<Item> {
    let mut items: Vec<Item> = policy::gained(&old.egress.routes, &new.egress.routes)
        .into_iter()
        .map(|gain| Item {
            part: "egress",
            can: gain.rule.to_line(),
            was: gain.was.map(|(field, was)| format!("{field} {was}")),
        })
        .collect();
    let had = ability::all(old);
    items.extend(ability::all(new).into_iter().filter(|item| !had.contains(item)));
    items.extend(ability::amounts(old, new));
    items.sort();
    items.dedup();
    items
}

#[cfg(test)]
mod tests;
