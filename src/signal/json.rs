//! JSON as bytes: how deep it is, and pieces of it that are kept as they came.

use serde_json::value::RawValue;

/// Whether brackets nest deeper than `limit`. Does not check that the text is JSON.
pub(crate) fn is_deeper_than(text: &str, limit: usize) -> bool {
    // As nearly always: there are not even so many.
    if text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// `value` as JSON text; for our own structures, which always serialise.
pub(crate) fn text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own structures have string keys only")
}

/// Serialises Unix seconds as ISO 8601, in UTC.
pub(crate) fn time<S: serde::Serializer>(unix: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&iso(*unix))
}

/// As [`time`], or null.
pub(crate) fn maybe_time<S: serde::Serializer>(unix: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match unix {
        Some(unix) => time(unix, serializer),
        None => serializer.serialize_none(),
    }
}

fn iso(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days since 0000-03-01: the leap day comes last in a year that begins in March.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", era * 400 + year + carry, second % 60)
}

/// Unix seconds of an ISO 8601 time of day, which is UTC unless it says otherwise.
pub(crate) fn unix(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', ' '])?;
    let number = |text: &str, digits: usize| {
        (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<i64>().ok())?
    };
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let (time, zone) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':');
    let (hour, minute) = (number(time.next()?, 2)?, number(time.next()?, 2)?);
    let second = time.next().map_or(Some(0), |second| number(second, 2))?;
    let offset = match (zone.get(..1), zone.get(1..).and_then(|zone| zone.split_once(':'))) {
        (None | Some("Z" | "z"), None) => 0,
        (Some(sign), Some((hours, minutes))) => {
            let offset = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
            if sign == "-" { -offset } else { offset }
        }
        (_, _) => return None,
    };
    let is_real =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !is_real
        || date.next().is_some()
        || time.next().is_some()
        || number(fraction, fraction.len()).is_none()
    {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let (of_era, of_year) = (year.rem_euclid(400), (153 * month + 2) / 5 + day - 1);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

/// JSON that was put together from JSON.
pub(crate) fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// An owned copy of one piece.
pub(crate) fn own(raw: &RawValue) -> Box<RawValue> {
    raw.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{is_deeper_than, iso, unix};

    #[test]
    fn times_are_iso_8601() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_768_991_400, "2026-01-21T10:30:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in known {
            assert_eq!((iso(seconds), unix(text)), (text.to_owned(), Some(seconds)));
        }
    }

    #[test]
    fn times_are_read_in_any_zone_and_refused_where_they_are_none() {
        for text in [
            "2026-01-25T10:00:00",
            "2026-01-25 10:00",
            "2026-01-25T11:30:00.250+01:30",
            "2026-01-25T09:00-01:00",
        ] {
            assert_eq!(unix(text), unix("2026-01-25T10:00:00Z"), "{text}");
        }
        for text in [
            "",
            "2026-01-25",
            "2026-13-01T00:00:00Z",
            "2026-1-01T00:00Z",
            "T",
            "2026-01-25T10:00:00+1",
            "1969-12-31T23:59:59Z",
            "2026-01-25T10:00:00.Z",
            "2026-01-25T1é:00",
        ] {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(!is_deeper_than(r#"{"a":"[[[[","b":[1]}"#, 2));
        assert!(is_deeper_than(r#"{"a":[[1]]}"#, 2));
        assert!(!is_deeper_than(r#"{"a":"\"[[["}"#, 1));
    }
}
