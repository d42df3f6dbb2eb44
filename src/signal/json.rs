//! JSON as bytes: how deep it is, and pieces of it that are kept as they came.

use serde_json::value::RawValue;

/// Whether brackets nest deeper than `limit`. Does not check that the text is JSON.
pub(crate) fn is_deeper_than(text: &str, limit: usize) -> bool {
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

/// An owned copy of one piece.
pub(crate) fn own(raw: &RawValue) -> Box<RawValue> {
    raw.to_owned()
}

#[cfg(test)]
mod tests {
    use super::is_deeper_than;

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert!(!is_deeper_than(r#"{"a":"[[[[","b":[1]}"#, 2));
        assert!(is_deeper_than(r#"{"a":[[1]]}"#, 2));
        assert!(!is_deeper_than(r#"{"a":"\"[[["}"#, 1));
    }
}
