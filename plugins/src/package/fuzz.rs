//! What a stranger may upload: bundled components with bytes changed, cut, moved and repeated, and manifests of noise.
//!
//! Reading one gives a package or an error, never a panic; what is read says the same when it is read again. `make fuzz`
//! runs them with many more cases. Compiling what passes is `compile`'s business, in a process of its own.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::bundled;

/// One change of a component.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index, u8),
    Repeat(Index, u8),
    End(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => any::<Index>().prop_map(Change::End),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    match change {
        Change::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Change::Cut(at, length) => {
            let at = at.index(bytes.len());
            let end = (at + usize::from(*length)).min(bytes.len());
            bytes.drain(at..end);
        }
        Change::Repeat(at, length) => {
            let at = at.index(bytes.len());
            let end = (at + usize::from(*length)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        Change::End(at) => bytes.truncate(at.index(bytes.len())),
    }
}

proptest! {
    #[test]
    fn changed_components_are_read_or_refused(changes in vec(change(), 1..8)) {
        let mut bytes = bundled::component("webhook").expect("it is bundled").to_vec();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        if let Ok(package) = Package::read(&bytes) {
            let again = Package::read(&bytes).expect("it was read a moment ago");
            prop_assert_eq!(package.facts(), again.facts());
        }
    }

    #[test]
    fn manifests_of_noise_are_refused(text in "[{}\\[\\]\":,a-z0-9.@/ -]{0,200}") {
        prop_assert!(Manifest::from_json(text.as_bytes()).is_err());
    }

    /// JSON that is a manifest but for one value.
    #[test]
    fn manifests_with_a_strange_value_are_read_or_refused(
        section in prop_oneof![Just("plugin"), Just("sink"), Just("config"), Just("secrets"), Just("capabilities"), Just("limits")],
        field in "[a-z_]{1,12}",
        value in prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            ".{0,40}".prop_map(serde_json::Value::from),
            vec(".{0,8}", 0..4).prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ],
    ) {
        let bytes = bundled::component("webhook").expect("it is bundled");
        let manifest = Package::read(bytes).expect("a bundled plugin").manifest.to_json();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        manifest[section][field] = value;
        if let Ok(read) = Manifest::from_json(manifest.to_string().as_bytes()) {
            let canonical = read.to_json();
            let again = Manifest::from_json(&canonical).expect("its own canonical form");
            prop_assert_eq!(again.to_json(), canonical);
        }
    }
}
