//! Where in a text a field stands: for errors that are found after the text was parsed.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Line and column of what a path such as `bottles.dev.egress.routes[0].host` leads to, or of the
/// last on the way there that is written down.
pub(super) fn of(text: &str, path: &str) -> Option<(usize, usize)> {
    // serde_yaml tells places in errors only, so what is looked for is made one.
    let error = serde_yaml::Deserializer::from_str(text).deserialize_any(Walk(path)).err()?;
    error.location().map(|at| (at.line(), at.column()))
}

/// What is left of the path.
#[derive(Clone, Copy)]
struct Walk<'p>(&'p str);

/// The message of the error that only carries a place.
const HERE: &str = "here";

impl Walk<'_> {
    /// The rest of the path behind a key; names may hold dots, so it cannot be cut beforehand.
    fn behind(self, key: &str) -> Option<Self> {
        let rest = self.0.strip_prefix(key)?;
        match rest.chars().next() {
            None | Some('[') => Some(Self(rest)),
            Some('.') => Some(Self(&rest[1..])),
            Some(_) => None,
        }
    }

    /// The item that is meant, and the rest of the path behind it.
    fn item(self) -> Option<(usize, Self)> {
        let (number, rest) = self.0.strip_prefix('[')?.split_once(']')?;
        Some((number.parse().ok()?, Self(rest.strip_prefix('.').unwrap_or(rest))))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    // What is neither mapping nor list is the end of the way: serde's own error, at its place.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HERE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.0.is_empty() {
            return Err(A::Error::custom(HERE));
        }
        while let Some(key) = map.next_key::<String>()? {
            match self.behind(&key) {
                Some(rest) => map.next_value_seed(rest)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Err(A::Error::custom(HERE))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((number, rest)) = self.item() else { return Err(A::Error::custom(HERE)) };
        for _ in 0..number {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(rest)?;
        Err(A::Error::custom(HERE))
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    const TEXT: &str = "\
version: 1
bottles:
  my.box:
    image: y
    egress:
      routes:
        - host: a.example
        - {host: b.example, paths: [/x]}
base: &base {pids: 5}
other: {<<: *base, cpus: 1}
";

    #[test]
    fn place_of_a_field_is_where_it_stands() {
        for (path, place) in [
            ("version", (1, 10)),
            ("bottles.my.box.image", (4, 12)),
            ("bottles.my.box.egress.routes[0].host", (7, 17)),
            ("bottles.my.box.egress.routes[1]", (8, 11)),
            ("bottles.my.box.egress.routes[1].paths[0]", (8, 37)),
            ("other.cpus", (10, 26)),
        ] {
            assert_eq!(of(TEXT, path), Some(place), "{path}");
        }
    }

    #[test]
    fn field_that_is_not_written_down_stands_where_it_would() {
        for (path, place) in [
            ("bottles.my.box.egress.routes[1].methods", (8, 11)),
            ("bottles.my.box.egress.routes[7]", (7, 9)),
            ("bottles.nobody", (3, 3)),
            ("other.pids", (10, 8)),
        ] {
            assert_eq!(of(TEXT, path), Some(place), "{path}");
        }
    }
}
