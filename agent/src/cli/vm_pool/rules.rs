//! What an operator has the pool keep ready: the table `[pool]` of a file.

use std::path::Path;

use navvy_plain_file as plain_file;
use navvy_vm::Machines;
use navvy_vm::pool::rules::{Rules, RulesFile};
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
    let file: File = toml::from_str(text).map_err(|error| vec![crate::settings::file::syntax(text, &error)])?;
    let rules = file.pool.rules().map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    machines.counted_rules(rules)
}

#[cfg(test)]
mod tests {
    use navvy_vm::Settings;
    use navvy_vm::pool::rules::Kind;
    use navvy_vm_image::Images;

    use super::*;

    fn settings() -> Settings {
        Settings::new(Images::at("/nonexistent"))
    }

    fn wrong(text: &str) -> String {
        rules(text, &Machines::qemu(settings())).unwrap_err().join("\n")
    }

    /// Two hosts: one for each image, the other for Ubuntu alone.
    fn hosts() -> Machines {
        let host = |name: &str, images: &[&str]| {
            let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
            serde_json::json!({"name": name, "address": "192.0.2.1", "host-key": key, "key-file": "/k", "reset": ["true"], "images": images})
        };
        let table = serde_json::json!({"hosts": [host("one", &["*"]), host("two", &["ubuntu-*"])]});
        Machines::ssh(settings(), &serde_json::from_value(table).unwrap()).unwrap_or_else(|fault| panic!("{fault}"))
    }

    #[test]
    fn an_image_elsewhere_is_counted_by_the_row_that_serves_it_and_hosts_are_as_many_as_there_are() {
        let text = |image: &str, count: u32| {
            format!(
                "[pool]\nprescale = [{{class = 'medium', image = '{image}', count = {count}}}]\n\
                 quotas = [{{class = 'medium', image = 'ubuntu-2204:current', most = 4}}, {{class = 'medium', image = 'ubuntu-*', most = 2}}]"
            )
        };
        let read = rules(&text("ubuntu-2204:current", 2), &hosts()).unwrap();
        let counted = Kind { class: "medium".to_owned(), image: "ubuntu-*".to_owned() };
        assert_eq!((&read.prescaled[0].kind, read.quotas.get(&counted)), (&counted, Some(&2)));
        assert_eq!(rules(&text("debian:12", 1), &hosts()).unwrap().prescaled[0].kind.image, "*");
        let told = rules(&text("debian:12", 2), &hosts()).unwrap_err().join("\n");
        assert!(told.contains("prescale entry 1: count is 2, and [[vm.ssh.hosts]] of your settings has 1"), "{told}");
        let told = rules("[pool]\nprescale = [{class = 'huge', image = 'x', count = 1}]", &hosts()).unwrap_err();
        assert!(told[0].contains("class \"huge\" is no class of machines"), "{told:?}");
    }

    #[test]
    fn what_is_no_setting_is_named_with_its_value_and_what_to_write() {
        for (text, words) in [
            ("[pools]", "unknown field `pools`"),
            ("[pool]\nprescaled = []", "unknown field `prescaled`, expected one of `prescale`"),
            ("[pool]\nquota = 0", "quota: 0 is no number from 1 to 10000"),
            ("[pool]\nquota = 'many'", "line 2: invalid type: string \"many\", expected a whole number from 0"),
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
