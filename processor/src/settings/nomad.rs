//! Where tasks are launched: the settings of the way through Nomad.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use navvy_storage::Identity;

use super::{Gathering, Said};

/// The class that the vendor's own clients have.
const NODE_CLASS: &str = "linux-64bit";

/// Without an address nothing is launched.
#[derive(Debug, Default, Args)]
pub struct NomadArgs {
    /// Launch tasks through Nomad, whose HTTP API is at this URL: http://127.0.0.1:4646. Also $NAVVY_PROCESSOR_NOMAD.
    #[arg(long, value_name = "URL")]
    pub nomad: Option<String>,
    /// File with the ACL token for Nomad; it is read again when it changes. Also $NAVVY_PROCESSOR_NOMAD_TOKEN_FILE.
    #[arg(long, value_name = "FILE")]
    pub nomad_token_file: Option<String>,
    /// Authority (PEM) of Nomad's certificate, beside the machine's own. Also $NAVVY_PROCESSOR_NOMAD_CA.
    #[arg(long, value_name = "FILE")]
    pub nomad_ca: Option<String>,
    /// Certificate chain (PEM) that Nomad is shown. Also $NAVVY_PROCESSOR_NOMAD_CERTIFICATE.
    #[arg(long, value_name = "FILE")]
    pub nomad_certificate: Option<String>,
    /// Its private key (PEM). Also $NAVVY_PROCESSOR_NOMAD_KEY.
    #[arg(long, value_name = "FILE")]
    pub nomad_key: Option<String>,
    /// Namespace of the Nomad jobs. Default: default. Also $NAVVY_PROCESSOR_NOMAD_NAMESPACE.
    #[arg(long, value_name = "NAME")]
    pub nomad_namespace: Option<String>,
    /// Their region. Default: the one of the servers that are asked. Also $NAVVY_PROCESSOR_NOMAD_REGION.
    #[arg(long, value_name = "NAME")]
    pub nomad_region: Option<String>,
    /// Clients of this node class get tasks; `none`: of any. Default: linux-64bit. Also $NAVVY_PROCESSOR_NOMAD_NODE_CLASS.
    #[arg(long, value_name = "CLASS")]
    pub nomad_node_class: Option<String>,
    /// Datacenters whose clients get tasks, with commas between them. Default: *. Also $NAVVY_PROCESSOR_NOMAD_DATACENTERS.
    #[arg(long, value_name = "NAMES")]
    pub nomad_datacenters: Option<String>,
    /// Resource classes whose tasks are launched, with commas between them. Default: *, which is all but those of runners of one's
    /// own (NAMESPACE/NAME). Also $NAVVY_PROCESSOR_NOMAD_CLASSES.
    #[arg(long, value_name = "CLASSES")]
    pub nomad_classes: Option<String>,
    /// Under which URL agents on Nomad's clients find this processor: `https://ci.example:8585`. Default: the host of the public URL
    /// with the port for agents. Also $NAVVY_PROCESSOR_NOMAD_PROCESSOR.
    #[arg(long, value_name = "URL")]
    pub nomad_processor: Option<String>,
}

/// Names as in the file.
pub(super) const NAMES: [&str; 11] = [
    "nomad",
    "nomad_token_file",
    "nomad_ca",
    "nomad_certificate",
    "nomad_key",
    "nomad_namespace",
    "nomad_region",
    "nomad_node_class",
    "nomad_datacenters",
    "nomad_classes",
    "nomad_processor",
];

pub(super) fn flags(arguments: &NomadArgs) -> [(&'static str, &Option<String>); 11] {
    let values = [
        &arguments.nomad,
        &arguments.nomad_token_file,
        &arguments.nomad_ca,
        &arguments.nomad_certificate,
        &arguments.nomad_key,
        &arguments.nomad_namespace,
        &arguments.nomad_region,
        &arguments.nomad_node_class,
        &arguments.nomad_datacenters,
        &arguments.nomad_classes,
        &arguments.nomad_processor,
    ];
    std::array::from_fn(|nth| (NAMES[nth], values[nth]))
}

/// Which tasks are launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    /// Of all classes but those of runners of one's own.
    NotOwn,
    /// Of these.
    These(Vec<String>),
}

impl Classes {
    /// Is this one of them?
    pub fn has(&self, class: &str) -> bool {
        match self {
            Self::NotOwn => !class.contains('/'),
            Self::These(these) => these.iter().any(|one| one == class),
        }
    }
}

/// The way through Nomad.
#[derive(Debug, Clone)]
pub struct NomadSettings {
    /// Without a slash at its end.
    pub address: String,
    /// File with the ACL token.
    pub token_file: Option<PathBuf>,
    /// A further authority to trust.
    pub ca: Option<PathBuf>,
    /// What Nomad is shown.
    pub identity: Option<Identity>,
    /// Of the jobs.
    pub namespace: String,
    /// `None`: that of the servers which are asked.
    pub region: Option<String>,
    /// `None`: any.
    pub node_class: Option<String>,
    /// Names and patterns, as Nomad takes them.
    pub datacenters: Vec<String>,
    /// What is launched.
    pub classes: Classes,
    /// Where agents find the processor.
    pub processor: Option<String>,
}

impl Gathering {
    /// `None`: nothing is launched.
    pub(super) fn nomad(&mut self) -> Option<NomadSettings> {
        let Some(address) = self.said.get("nomad").cloned() else {
            let others: Vec<Said> = NAMES.iter().filter_map(|name| self.said.get(name).cloned()).collect();
            for said in others {
                self.wrong(&said, "has no effect without --nomad URL");
            }
            return None;
        };
        let address = self.web_address(&address, "http://127.0.0.1:4646");
        let processor = self.said.get("nomad_processor").cloned();
        let processor = processor.map(|said| self.web_address(&said, "https://ci.example:8585"));
        let path = |of: &Self, name: &str| of.text(name).map(PathBuf::from);
        Some(NomadSettings {
            token_file: path(self, "nomad_token_file"),
            ca: path(self, "nomad_ca"),
            identity: self.nomad_identity(),
            namespace: self.nomad_word("nomad_namespace").unwrap_or_else(|| "default".to_owned()),
            region: self.nomad_word("nomad_region"),
            node_class: match self.text("nomad_node_class").as_deref() {
                None => Some(NODE_CLASS.to_owned()),
                Some("" | "none") => None,
                Some(_) => self.nomad_word("nomad_node_class"),
            },
            datacenters: self.list("nomad_datacenters").unwrap_or_else(|| vec!["*".to_owned()]),
            classes: match self.list("nomad_classes") {
                None => Classes::NotOwn,
                Some(all) if all == ["*"] => Classes::NotOwn,
                Some(these) => Classes::These(these),
            },
            address,
            processor,
        })
    }

    /// Not shown where it is wrong: a password may stand in it.
    fn web_address(&mut self, said: &Said, example: impl fmt::Display) -> String {
        let url = said.value.trim_end_matches('/');
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_other = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | '/');
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(is_other)) {
            self.errors.push(format!("{}: it is no URL of a server; write it as {example}", said.place));
        }
        url.to_owned()
    }

    fn nomad_identity(&mut self) -> Option<Identity> {
        let [certificate, key] = ["nomad_certificate", "nomad_key"].map(|name| self.said.get(name).cloned());
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: certificate.value.into(), key: key.value.into() })
            }
            (None, None) => None,
            (Some(said), None) | (None, Some(said)) => {
                self.wrong(&said, "is only of use with both --nomad-certificate and --nomad-key");
                None
            }
        }
    }

    fn nomad_word(&mut self, name: &str) -> Option<String> {
        let said = self.said.get(name).cloned()?;
        if said.value.is_empty()
            || said.value.len() > 128
            || said.value.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            self.wrong(&said, "is no name in Nomad");
        }
        Some(said.value)
    }

    fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let said = self.said.get(name).cloned()?;
        let names: Vec<String> = said.value.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control())) {
            self.wrong(&said, "is no list; write names with commas between them");
        }
        if names.len() > 1 && name == "nomad_classes" && names.iter().any(|name| name == "*") {
            self.wrong(&said, "names classes beside *, which is all of them");
        }
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ServeArgs, Settings};
    use super::*;

    fn gathered(pairs: &[(&str, &str)]) -> Result<Option<NomadSettings>, String> {
        let home = [("HOME", "/home/u")].into_iter();
        let variables = home.chain(pairs.iter().copied()).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::gather(&ServeArgs::default(), &variables.collect());
        settings.map(|settings| settings.nomad).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_address_alone_launches_all_but_the_classes_of_own_runners() {
        assert!(gathered(&[]).unwrap().is_none());
        let settings = gathered(&[("NAVVY_PROCESSOR_NOMAD", "http://nomad:4646/")]).unwrap().unwrap();
        assert_eq!((settings.address.as_str(), settings.namespace.as_str()), ("http://nomad:4646", "default"));
        assert_eq!(
            (settings.node_class.as_deref(), &*settings.datacenters),
            (Some("linux-64bit"), &["*".to_owned()][..])
        );
        assert_eq!(settings.classes, Classes::NotOwn);
        let settings = gathered(&[
            ("NAVVY_PROCESSOR_NOMAD", "https://nomad:4646"),
            ("NAVVY_PROCESSOR_NOMAD_NODE_CLASS", "none"),
            ("NAVVY_PROCESSOR_NOMAD_DATACENTERS", "eu, us"),
            ("NAVVY_PROCESSOR_NOMAD_CLASSES", "medium,acme/big"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!((settings.node_class, settings.datacenters), (None, vec!["eu".to_owned(), "us".to_owned()]));
        assert_eq!(settings.classes, Classes::These(vec!["medium".to_owned(), "acme/big".to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_without_a_password() {
        let told = gathered(&[
            ("NAVVY_PROCESSOR_NOMAD", "http://me:hunter2@nomad"),
            ("NAVVY_PROCESSOR_NOMAD_KEY", "/key.pem"),
            ("NAVVY_PROCESSOR_NOMAD_CLASSES", "medium,*"),
            ("NAVVY_PROCESSOR_NOMAD_DATACENTERS", "a,,b"),
            ("NAVVY_PROCESSOR_NOMAD_NAMESPACE", "two words"),
        ]);
        let told = told.unwrap_err();
        for expected in [
            "NAVVY_PROCESSOR_NOMAD: it is no URL of a server",
            "NAVVY_PROCESSOR_NOMAD_KEY: \"/key.pem\" is only of use with both",
            "NAVVY_PROCESSOR_NOMAD_CLASSES: \"medium,*\" names classes beside *",
            "NAVVY_PROCESSOR_NOMAD_DATACENTERS: \"a,,b\" is no list",
            "NAVVY_PROCESSOR_NOMAD_NAMESPACE: \"two words\" is no name",
        ] {
            assert!(told.contains(expected), "{expected} is missing in:\n{told}");
        }
        assert!(!told.contains("hunter2"));
        let told = gathered(&[("NAVVY_PROCESSOR_NOMAD_REGION", "eu")]).unwrap_err();
        assert!(told.contains("NAVVY_PROCESSOR_NOMAD_REGION: \"eu\" has no effect without --nomad"), "{told}");
    }
}
