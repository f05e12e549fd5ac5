//! What a cache's entry says of it beside the store's own words.

use crate::storage::Entry;

/// In an entry's details: the absolute paths it holds, as JSON.
pub const PATHS: &str = "paths";

/// The absolute paths that a cache holds; `None` where its entry does not say.
pub fn paths(entry: &Entry) -> Option<Vec<String>> {
    serde_json::from_str(entry.record.details.get(PATHS)?).ok()
}
