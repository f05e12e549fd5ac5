//! What every store must do, whatever home it has.

mod expiry;
mod faults;
mod proxy;
mod served;
mod streams;
mod suite;
mod sweeps;
mod tls;

use std::sync::Arc;

use super::{ObjectPath, UrlSigner, Verb};

/// For stores that sign themselves: it must not be asked.
#[derive(Debug)]
struct SignsNothing;

impl UrlSigner for SignsNothing {
    fn sign(&self, path: &ObjectPath, verb: &Verb) -> String {
        panic!("{path} was to be signed for {verb:?}")
    }
}

fn signs_nothing() -> Arc<dyn UrlSigner> {
    Arc::new(SignsNothing)
}
