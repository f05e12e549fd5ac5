//! A bug of our own, for the stories: what a panic leaves cannot be told without one.

/// Panics where `NAVVY_TEST_BUG` names this place. A release has no such bug.
pub fn here(place: &str) {
    let wanted = cfg!(debug_assertions) && std::env::var_os("NAVVY_TEST_BUG").is_some_and(|named| named == place);
    assert!(!wanted, "a bug that NAVVY_TEST_BUG asked for");
}
