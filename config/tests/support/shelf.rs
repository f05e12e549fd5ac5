//! Orbs in memory, in place of an orb path.

use std::collections::BTreeMap;
use std::sync::Arc;

use navvy_config::{File, Inputs, NoOrb, OrbReference, OrbSource, OrbText};

/// Sources by exact reference.
#[derive(Debug)]
pub struct Shelf(BTreeMap<OrbReference, &'static str>);

/// What a config is compiled with where these orbs are.
pub fn shelf(orbs: &[(&str, &'static str)]) -> Inputs {
    let orbs = orbs.iter().map(|(reference, text)| (reference.parse().unwrap(), *text)).collect();
    Inputs { orbs: Some(Arc::new(Shelf(orbs))), ..Inputs::default() }
}

impl OrbSource for Shelf {
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb> {
        let fits = |known: &&OrbReference| {
            known.title() == reference.title()
                && match (reference.version(), known.version()) {
                    (Some(wanted), Some(version)) => wanted.covers(version),
                    _ => true,
                }
        };
        let Some(found) = self.0.keys().filter(fits).max() else {
            return Err(NoOrb::Missing { help: format!("put it at `orbs/{reference}.yml`\nthen look again") });
        };
        if self.0[found] == "changed" {
            let (message, help) = ("its source is not the one that is locked".into(), "lock it again".into());
            return Err(NoOrb::Refused { message, help });
        }
        let file = File { name: format!("orbs/{found}.yml"), text: self.0[found].into() };
        Ok(OrbText { resolved: found.clone(), file })
    }
}
