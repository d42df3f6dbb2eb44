//! Who may read a timeline, whether it is in memory or in the books.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::signal::envelope::{Code, Refusal};
use crate::signal::identity::Identity;

/// What decides about a timeline of the books.
#[derive(Deserialize)]
struct Past {
    call_id: String,
    parties: Vec<Party>,
}

#[derive(Deserialize)]
struct Party {
    who: String,
    #[serde(default)]
    is_person: bool,
}

/// A timeline of the books as it stands there, for those who may read it.
///
/// # Errors
/// That there is none for them.
pub fn read_timeline(who: &Identity, id: &str, text: Option<String>) -> Result<Box<RawValue>, Refusal> {
    let text = text.ok_or_else(none)?;
    let past: Past = serde_json::from_str(&text).map_err(|_| none())?;
    let has_person = |user: &str| past.parties.iter().any(|party| party.is_person && party.who == *user);
    // The books may have changed the name of a room, whose tokens are not this one's then.
    if past.call_id != *id || !may_read(who, id, has_person) {
        return Err(none());
    }
    RawValue::from_string(text).map_err(|_| none())
}

/// Those who take part, those whose token names it, and admins.
pub(crate) fn may_read(who: &Identity, id: &str, has_person: impl FnOnce(&str) -> bool) -> bool {
    (who.names_a_person() && has_person(&who.user)) || who.rooms.names(id) || who.is_admin()
}

/// There is none, or none for who asks: the answer is the same.
pub(crate) fn none() -> Refusal {
    Refusal::new(Code::NoSuchCall, "you have no such call")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::signal::identity::Rooms;

    fn kept() -> Option<String> {
        let parties =
            r#"[{"who":"ann","is_person":true,"x":1},{"who":"bob","is_person":false},{"who":"old"}]"#;
        Some(format!(r#"{{"call_id":"room","status":null,"parties":{parties}}}"#))
    }

    fn named(room: &str) -> Rooms {
        Rooms::Named(Arc::new([room.to_owned()]))
    }

    #[test]
    fn a_timeline_of_the_books_is_for_those_who_took_part_those_whose_token_names_it_and_admins() {
        let reads = |who: &Identity| read_timeline(who, "room", kept()).is_ok();
        assert!(reads(&Identity::member("ann")));
        assert!(!reads(&Identity::member("cat")));
        assert!(!reads(&Identity::member("bob")), "whoever called itself bob was a guest");
        assert!(!reads(&Identity::member("old")), "of an older version, which did not say");
        assert!(!reads(&Identity::guest("ann", true)), "a guest is nobody in particular");
        assert!(!reads(&Identity { is_shared: true, ..Identity::member("ann") }));
        assert!(reads(&Identity { rooms: named("room"), ..Identity::member("cat") }));
        assert!(!reads(&Identity { rooms: named("other"), ..Identity::member("cat") }));
        assert!(reads(&Identity { role: Some("admin".into()), ..Identity::member("cat") }));
    }

    #[test]
    fn what_is_not_there_not_readable_or_of_another_room_is_refused_alike() {
        let ann = Identity { rooms: named("other"), ..Identity::member("ann") };
        let other = read_timeline(&ann, "other", kept());
        for found in [other, read_timeline(&ann, "room", None), read_timeline(&ann, "room", Some("{".into()))]
        {
            assert_eq!(found.map_err(|refusal| refusal.message).err(), Some(none().message));
        }
        let text = read_timeline(&ann, "room", kept()).map(|found| found.get().to_owned());
        assert_eq!(text.ok(), kept());
    }
}
