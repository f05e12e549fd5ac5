//! What an operator has the pool keep ready: the table `[pool]` of a file.

use std::path::Path;

use navvy_job::resource::machine_class_names;
use navvy_plain_file as plain_file;
use navvy_vm::Settings as Machines;
use navvy_vm::pool::rules::{Kind, Rules, RulesFile};
use serde::Deserialize;

use crate::cli::CliError;

/// No settings are longer.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    pool: RulesFile,
}

/// The rules of a file; without one, the usual ones. All that is wrong is told.
pub fn read(path: Option<&Path>, machines: &Machines) -> Result<Rules, CliError> {
    let Some(path) = path else { return Ok(Rules::default()) };
    let wrong = |why: String| CliError::usage(format!("{}: {why}", path.display()));
    let bytes = plain_file::read(path, LONGEST).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is no text in UTF-8".to_owned()))?;
    rules(&text, machines).map_err(|whys| wrong(whys.join("; ")))
}

fn rules(text: &str, machines: &Machines) -> Result<Rules, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
    let rules = file.pool.rules().map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let prescaled = (1..).zip(&rules.prescaled).flat_map(|(nth, entry)| {
        unknown(&entry.kind, machines).into_iter().map(move |why| format!("prescale entry {nth}: {why}"))
    });
    let quotas =
        rules.quotas.keys().flat_map(|kind| unknown(kind, machines).into_iter().map(|why| format!("quotas: {why}")));
    let wrong: Vec<String> = prescaled.chain(quotas).collect();
    if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
}

/// What of a kind is not here.
fn unknown(kind: &Kind, machines: &Machines) -> Vec<String> {
    let Kind { class, image } = kind;
    let mut wrong = Vec::new();
    if machines.size_of(class).is_none() {
        let known: Vec<_> = machine_class_names().collect();
        wrong.push(format!("class {class:?} is no class of machines; there are {}", known.join(", ")));
    }
    if let Err(error) = machines.images.get(image) {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; {}", hint.trim_end_matches('.')));
        wrong.push(format!("image {image:?}: {error}{hint}"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use navvy_vm_image::Images;

    use super::*;

    fn wrong(text: &str) -> String {
        rules(text, &Machines::new(Images::at("/nonexistent"))).unwrap_err().join("\n")
    }

    #[test]
    fn what_is_no_setting_is_named_with_its_value_and_what_to_write() {
        for (text, words) in [
            ("[pools]", "unknown field `pools`"),
            ("[pool]\nprescaled = []", "unknown field `prescaled`, expected one of `prescale`"),
            ("[pool]\nquota = 0", "quota: 0 is no number from 1 to 10000"),
            ("[pool]\nquota = 'many'", "invalid type: string \"many\""),
            ("[pool]\ntime_zone = 'Mars/Base'", "time_zone: this machine knows no time zone \"Mars/Base\""),
        ] {
            let told = wrong(text);
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn machines_that_cannot_be_made_here_are_told_at_the_start() {
        let entry = |kind: &str| format!("[pool]\n[[pool.prescale]]\n{kind}count = 1\n");
        let told = wrong(&entry("class = 'huge'\nimage = 'debian-12-docker'\n"));
        assert!(told.contains("prescale entry 1: class \"huge\" is no class of machines; there are medium"), "{told}");
        assert!(told.contains("prescale entry 1: image \"debian-12-docker\""), "{told}");
        let quota = "[pool]\nquotas = [{class = 'medium', image = 'solaris', most = 1}]";
        assert!(wrong(quota).contains("quotas: image \"solaris\""), "{}", wrong(quota));
    }
}
