//! What several tests of the driver need.

use rmpv::Value;

/// A configuration as Nomad hands it over.
pub fn packed(pairs: &[(&str, Value)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &map(pairs)).unwrap();
    bytes
}

/// A block in one.
pub fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
}

/// Removes the cgroup of this name from every hierarchy.
pub fn remove_cgroup(name: &str) {
    let mounts = crate::cgroup::Mounts::here().unwrap();
    let directories: Vec<_> = mounts.hierarchies().iter().map(|hierarchy| hierarchy.directory(name)).collect();
    let left = navvy_cgroup::remove(&directories);
    assert!(left.is_empty() || std::thread::panicking(), "{left:?}");
}
