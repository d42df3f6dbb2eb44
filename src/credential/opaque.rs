//! OpaqueString (RFC 8265 §4.2): the form in which names, realms and passwords are compared and hashed, so that
//! two spellings of one text are one text (RFC 8489 §9.2.2, §14.3, §14.9).

use std::borrow::Cow;

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;

/// The OpaqueString form of a text: spaces of all kinds become U+0020, composed characters one code point.
/// `None` for an empty text and for characters that no name or password may have, control characters and
/// unassigned ones among them.
#[must_use]
pub fn opaque_string(text: &str) -> Option<Cow<'_, str>> {
    OpaqueString::enforce(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8265_4_2_examples() {
        let opaque = |text| opaque_string(text).map(Cow::into_owned);
        assert_eq!(opaque("correct horse battery staple").as_deref(), Some("correct horse battery staple"));
        assert_eq!(opaque("Correct Horse Battery Staple").as_deref(), Some("Correct Horse Battery Staple"));
        assert_eq!(opaque("πßå").as_deref(), Some("πßå"));
        assert_eq!(opaque("Jack of ♦s").as_deref(), Some("Jack of ♦s"));
        assert_eq!(opaque("foo\u{1680}bar").as_deref(), Some("foo bar"));
        assert_eq!(opaque(""), None);
        assert_eq!(opaque("my cat is a \u{9}by"), None);
    }

    #[test]
    fn rfc8489_9_2_2_two_spellings_are_one_name() {
        assert_eq!(opaque_string("Ame\u{301}lie"), opaque_string("Am\u{e9}lie"));
    }

    #[test]
    fn time_limited_names_and_base64_stay_as_they_are() {
        for text in ["1712345678:alice.s1", "0ZD6cnpTkaID21yeVWnCwmsDr9I=", "turnkey"] {
            assert!(matches!(opaque_string(text), Some(Cow::Borrowed(same)) if same == text));
        }
    }
}
