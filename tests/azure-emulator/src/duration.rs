//! Durations as people write them in YAML: `250ms`, `90s`, `75m`, `3h`; for the clock also with a sign.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Parses `250ms`, `90s`, `75m` or `3h`.
fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(milliseconds_each))
    {
        Some(milliseconds) if milliseconds_each > 0 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(format!(
            "`{text}` is not a duration: write a whole number and ms, s, m or h, such as 250ms or 75m"
        )),
    }
}

fn print(duration: &Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, each) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds > 0 && milliseconds.is_multiple_of(each) {
            return format!("{}{unit}", milliseconds / each);
        }
    }
    format!("{milliseconds}ms")
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&print(duration))
}

/// The same for a field that may be absent.
pub(crate) mod optional {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// The same with a sign, as whole seconds: `5m`, `-30s`.
pub(crate) mod signed_seconds {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (sign, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        let seconds = parse(magnitude).map_err(D::Error::custom)?.as_secs();
        i64::try_from(seconds)
            .map(|seconds| sign * seconds)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_in_the_units_people_use() {
        for text in ["250ms", "90s", "75m", "3h", "0ms"] {
            assert_eq!(print(&parse(text).unwrap()), text);
        }
        assert_eq!(parse("60m").unwrap(), Duration::from_secs(3600));
    }

    #[test]
    fn a_number_without_a_unit_or_with_a_strange_one_is_refused() {
        for text in ["", "5", "5d", "1.5s", "-5s", "s", "99999999999999999999h"] {
            assert!(parse(text).unwrap_err().contains("is not a duration"), "{text}");
        }
    }
}
