//! Messages of serde in the words of this suite.

/// serde's message in our words: subject in single quotes, the nearest known name in place of the
/// list of all, no position (the caller of this shows it in front).
pub(super) fn helpful(message: &str) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    if let Some((before, rest)) = message.split_once("invalid type: ") {
        return format!("{before}{}", mismatch(rest));
    }
    let Some((before, rest)) = message.split_once("unknown ") else {
        return message.replace('`', "'");
    };
    // "unknown field `x`, expected one of `a`, `b`", "unknown variant `x`, expected `a` or `b`".
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let (Some(kind), Some(name)) = (rest.split(' ').next(), quoted.next()) else {
        return message.replace('`', "'");
    };
    let known: Vec<&str> = quoted.collect();
    let kind = if kind == "variant" { "value" } else { kind };
    format!("{before}unknown {kind} '{name}'{}", did_you_mean(name, &known))
}

/// "string \"GET\", expected a sequence" in our words, with what to write.
fn mismatch(text: &str) -> String {
    let Some((found, wanted)) = text.rsplit_once(", expected ") else {
        return text.replace('`', "'");
    };
    let value = found.split_once(['`', '"']).map(|(_, value)| value.trim_end_matches(['`', '"']));
    let kind = found.split(['`', '"']).next().unwrap_or(found).trim_end();
    let kind = match kind {
        "unit value" => "nothing",
        "sequence" => "a list",
        "map" => "a mapping",
        "floating point" => "the number",
        "integer" | "boolean" | "string" => &format!("the {kind}"),
        other => other,
    };
    let wanted = match wanted {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        _ if wanted.starts_with("struct ") || wanted == "a map" => "a mapping",
        other => other,
    };
    let is = value.map_or_else(|| kind.to_owned(), |value| format!("{kind} '{value}'"));
    let hint = match (wanted, kind, value) {
        ("a list", _, Some(value)) => format!(": write '[{value}]'"),
        ("a string", "the integer" | "the number" | "the boolean", _) => {
            ": put it in quotes".to_owned()
        }
        // A plain '~' is YAML's null.
        ("a string", "nothing", _) => ": fill it, or write '~' with quotes".to_owned(),
        _ => String::new(),
    };
    format!("{is} is here, where {wanted} belongs{hint}")
}

/// The end of a message about an unknown name: the nearest known one, else all of them.
#[must_use]
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!(": did you mean '{near}'"),
        None if known.is_empty() => String::new(),
        None => format!(": known are '{}'", known.join("', '")),
    }
}

/// The known name nearest to `name`, if one is near enough to be meant: at most two fifths of
/// the letters differ, or one is the beginning of the other.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known
        .iter()
        .map(|candidate| (edits(name, candidate), *candidate))
        .min_by_key(|(d, _)| *d)?;
    let longest = name.chars().count().max(best.chars().count());
    let extends = |a: &str, b: &str| a.len() > 2 && b.starts_with(a);
    (distance * 5 <= longest * 2 || extends(name, best) || extends(best, name)).then_some(best)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_are_told_with_what_to_write() {
        for (serde, ours) in [
            (
                "a.methods: invalid type: string \"GET\", expected a sequence at line 1 column 2",
                "a.methods: the string 'GET' is here, where a list belongs: write '[GET]'",
            ),
            (
                "env.A: invalid type: boolean `true`, expected a string",
                "env.A: the boolean 'true' is here, where a string belongs: put it in quotes",
            ),
            (
                "mounts[0]: invalid type: string \"./a:/b\", expected struct Mount",
                "mounts[0]: the string './a:/b' is here, where a mapping belongs",
            ),
            (
                "image: invalid type: unit value, expected a string",
                "image: nothing is here, where a string belongs: fill it, or write '~' with quotes",
            ),
        ] {
            assert_eq!(helpful(serde), ours);
        }
    }
}
