//! The environment of a step, layer over layer (docs/navvy-run.md).
//!
//! Low to high: this host's egress, image, docker's proxies, primary container's `environment`, project and contexts, built-ins, job, step. What a step
//! assigns itself, or `$BASH_ENV` does, comes on top inside the environment.

use navvy_environment::egress::Given;
use navvy_job::compiled::Variables;
use navvy_protocol::place::BIN_DIR;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything below a step's own variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    /// Proxies and authorities that every job is given; each is left out where a layer above the image's sets it, in either
    /// case.
    pub egress: Given,
    pub image: Variables,
    pub container: Variables,
    /// `--env-file`, contexts in their order, `-e` and `--var`: the later wins.
    pub secrets: Variables,
    pub builtin: Variables,
    pub job: Variables,
}

impl Layers {
    /// The home of the job's steps, where anything says one: what they call `~`. Else it is the user's own.
    pub fn home(&self) -> Option<String> {
        let variables = self.for_step(&Variables::new(), false);
        let home = variables.into_iter().find(|(name, _)| name == "HOME").map(|(_, home)| home);
        home.filter(|home| home.starts_with('/'))
    }

    /// The whole environment of a step. Without a `HOME` the supervisor adds it, which knows the user's entry.
    pub fn for_step(&self, step: &Variables, terminal: bool) -> Vec<(String, String)> {
        let mut merged: Vec<(String, String)> = Vec::with_capacity(64);
        if terminal {
            set(&mut merged, "TERM", "xterm");
        }
        let above = [&self.container, &self.secrets, &self.builtin, &self.job, step];
        let has = |variables: &Variables, name: &str| variables.iter().any(|(known, _)| known == name);
        let is_set = |name: &str| above.iter().any(|layer| has(layer, name));
        let given = self.egress.lacking(is_set, |name| has(&self.image, name));
        for (name, value) in [&self.image, &given].into_iter().chain(above).flatten() {
            set(&mut merged, name, value);
        }
        let path = merged.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, path)| path.as_str());
        // Last, so that the in-job CLI never hides a program of the image.
        let path = format!("{path}:{BIN_DIR}");
        set(&mut merged, "PATH", &path);
        merged
    }
}

fn set(variables: &mut Vec<(String, String)>, name: &str, value: &str) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => variables.push((name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Variables {
        vec![(name.to_owned(), value.to_owned())]
    }

    fn get<'a>(variables: &'a [(String, String)], name: &str) -> &'a str {
        &variables.iter().find(|(known, _)| known == name).unwrap().1
    }

    #[test]
    fn each_layer_wins_over_those_below() {
        let mut layers = Layers { image: one("A", "image"), ..Layers::default() };
        assert_eq!(get(&layers.for_step(&vec![], true), "A"), "image");
        layers.container = one("A", "container");
        layers.secrets = [one("A", "first context"), one("A", "second context")].concat();
        assert_eq!(get(&layers.for_step(&vec![], true), "A"), "second context");
        layers.builtin = one("A", "builtin");
        layers.job = one("A", "job");
        assert_eq!(get(&layers.for_step(&vec![], true), "A"), "job");
        assert_eq!(get(&layers.for_step(&one("A", "step"), true), "A"), "step");
    }

    #[test]
    fn what_anything_sets_wins_over_the_egress_in_either_case() {
        let both = |name: &str, value| [one(name, value), one(&name.to_ascii_lowercase(), value)].concat();
        let egress = Given { below_image: both("HTTP_PROXY", "ours"), ..Given::default() };
        let mut layers = Layers { egress, ..Layers::default() };
        let has = |layers: &Layers, name: &str| {
            let all = layers.for_step(&vec![], false);
            all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        assert_eq!(
            (has(&layers, "HTTP_PROXY"), has(&layers, "http_proxy")),
            (Some("ours".into()), Some("ours".into()))
        );
        layers.image = one("http_proxy", "the image's");
        assert_eq!((has(&layers, "HTTP_PROXY"), has(&layers, "http_proxy")), (None, Some("the image's".into())));
        // Docker's config names its proxies for containers, even if their image says otherwise.
        layers.egress = Given { over_image: both("HTTP_PROXY", "docker's"), ..Given::default() };
        let docker_s = Some("docker's".to_owned());
        assert_eq!((has(&layers, "HTTP_PROXY"), has(&layers, "http_proxy")), (docker_s.clone(), docker_s));
        layers.job = one("HTTP_PROXY", "");
        let of_image = Some("the image's".to_owned());
        assert_eq!((has(&layers, "HTTP_PROXY"), has(&layers, "http_proxy")), (Some(String::new()), of_image));
        layers.image = vec![];
        assert_eq!((has(&layers, "HTTP_PROXY"), has(&layers, "http_proxy")), (Some(String::new()), None));
    }

    #[test]
    fn a_home_is_the_one_that_steps_see() {
        let mut layers = Layers::default();
        assert_eq!(layers.home(), None);
        layers.image = one("HOME", "/image");
        assert_eq!(layers.home().as_deref(), Some("/image"));
        layers.job = one("HOME", "/job");
        assert_eq!(layers.home().as_deref(), Some("/job"));
        // No place: a shell would find nothing there, either.
        for odd in ["", "relative"] {
            layers.job = one("HOME", odd);
            assert_eq!(layers.home(), None, "{odd:?}");
        }
    }

    #[test]
    fn the_in_job_cli_comes_last_on_the_path() {
        let layers = Layers { job: one("PATH", "/x"), ..Layers::default() };
        assert_eq!(get(&layers.for_step(&vec![], true), "PATH"), "/x:/opt/navvy/bin");
        assert!(get(&Layers::default().for_step(&vec![], true), "PATH").ends_with(":/bin:/opt/navvy/bin"));
    }
}
