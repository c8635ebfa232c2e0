//! Numbers and names as the page writes them.

use indicatif::{DecimalBytes, HumanCount};
use serde_json::Value;

/// Three significant digits, without an exponent where that stays short.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    match magnitude {
        -3..=2 => format!("{value:.*}", (2 - magnitude).max(0) as usize),
        3..=5 => format!("{value:.0}"),
        _ => format!("{value:.1e}"),
    }
}

/// A share as a percentage, three significant digits, without its sign.
pub(super) fn percent(share: f64) -> String {
    short(share * 100.0)
}

/// The same for the narrow cells of a map: three decimals where more would be shown.
pub(super) fn cell(share: f64) -> String {
    match share * 100.0 {
        v if (0.001..0.0995).contains(&v) => format!("{v:.3}"),
        v if v > 0.0 && v < 0.001 => format!("{v:.0e}"),
        v => short(v),
    }
}

/// A round number without zeros behind it.
pub(super) fn tick(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    match rounded.abs() {
        v if v == 0.0 || (1e-4..1e6).contains(&v) => rounded.to_string(),
        _ => format!("{rounded:e}"),
    }
}

/// A mean of counts: whole where it is.
pub(super) fn mean_count(value: f64) -> String {
    match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => short(value),
    }
}

/// Seconds in the units that suit them; numbers stay with their units.
pub(super) fn seconds(value: f64) -> String {
    let whole = value.round() as u64;
    let text = match value {
        v if v < 5e-5 => "0 s".to_owned(),
        v if v < 0.1 => format!("{:.1} ms", v * 1000.0),
        v if v < 59.95 => format!("{} s", short(v)),
        v if v < 3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    };
    text.replace(' ', "\u{a0}")
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(count: u64) -> String {
    DecimalBytes(count).to_string()
}

/// A count with its thousands apart.
pub(super) fn count(value: usize) -> String {
    // A narrow space that does not break.
    HumanCount(value as u64).to_string().replace(',', "\u{202f}")
}

/// A value of the JSON in words.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// What a linear layer is called within its decoder layer.
pub(super) fn kind(operator: &str) -> &str {
    operator.rsplit('.').next().unwrap_or(operator)
}

/// The same for the head of a narrow column.
pub(super) fn short_kind(kind: &str) -> &str {
    kind.strip_suffix("_proj").unwrap_or(kind)
}

/// One or many.
pub(super) fn many(number: usize, one: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {one}{ending}", count(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let shown = [0.0, 1.0, 0.012345, 12.345, 123.45, 12345.6, 1.234e-5, 9.999e6].map(short);
        let wanted = ["0", "1.00", "0.0123", "12.3", "123", "12346", "1.2e-5", "1.0e7"];
        assert_eq!(shown, wanted);
        assert_eq!(percent(0.5), "50.0");
        let shown = [0.0, 0.04, 59.0, 59.99, 61.0, 3725.0].map(|s| seconds(s).replace('\u{a0}', " "));
        assert_eq!(
            shown,
            [
                "0 s",
                "40.0 ms",
                "59.0 s",
                "1 min 00 s",
                "1 min 01 s",
                "1 h 02 min"
            ]
        );
        let shown = [0.0, 1e-7, 0.000667, 0.5, 2.0].map(cell);
        assert_eq!(shown, ["0", "1e-5", "0.067", "50.0", "200"]);
        let shown = [0.0, 0.03, 0.1, 100.0, 1e-7, 0.30000000000000004].map(tick);
        assert_eq!(shown, ["0", "0.03", "0.1", "100", "1e-7", "0.3"]);
        assert_eq!([8.0, 8.5].map(mean_count), ["8", "8.50"]);
        let shown = [999, 1_500_000, 1000].map(bytes);
        assert_eq!(shown, ["999 B", "1.50 MB", "1.00 kB"]);
        let shown = [7, 1000, 1234567].map(count);
        assert_eq!(shown, ["7", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
        assert_eq!(many(1, "window"), "1 window");
        assert_eq!(many(2, "window"), "2 windows");
    }

    #[test]
    fn operators_have_short_names() {
        assert_eq!(kind("model.layers.0.self_attn.q_proj"), "q_proj");
        assert_eq!(kind("alone"), "alone");
        assert_eq!([short_kind("q_proj"), short_kind("fc1")], ["q", "fc1"]);
    }
}
