//! An engine, asked through Debian's docker client.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{Answer, Program};

const CLIENT: &str = "/usr/bin/docker";

/// An engine. The default is the machine's own.
#[derive(Debug, Clone, Default)]
pub struct Docker {
    host: Option<String>,
}

impl Docker {
    pub fn at(host: impl Into<String>) -> Self {
        Self { host: Some(host.into()) }
    }

    /// Asks the client whatever it is, without judging its answer.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Answer {
        self.program().args(args).run()
    }

    /// Lines of the answer to a question that must succeed.
    #[track_caller]
    pub fn lines(&self, args: &[&str]) -> Vec<String> {
        self.ask(args).text().lines().map(str::to_owned).collect()
    }

    /// Containers of a task, ended ones included.
    #[track_caller]
    pub fn containers_of(&self, task: &str) -> Vec<String> {
        let filter = format!("label=dev.navvy.task={task}");
        self.lines(&["ps", "--all", "--no-trunc", "--filter", &filter, "--format", "{{.Names}}"])
    }

    #[track_caller]
    pub fn volumes_of(&self, task: &str) -> Vec<String> {
        let filter = format!("label=dev.navvy.task={task}");
        self.lines(&["volume", "ls", "--quiet", "--filter", &filter])
    }

    /// Volumes of any kind that containers of a task use: images may ask for nameless ones.
    #[track_caller]
    pub fn volumes_used_by(&self, task: &str) -> Vec<String> {
        let format = "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}}\n{{end}}{{end}}";
        let containers = self.containers_of(task);
        let mut args = vec!["inspect", "--type", "container", "--format", format];
        args.extend(containers.iter().map(String::as_str));
        self.lines(&args).into_iter().filter(|name| !name.is_empty()).collect()
    }

    #[track_caller]
    pub fn has_volume(&self, name: &str) -> bool {
        let filter = format!("name={name}");
        !self.lines(&["volume", "ls", "--quiet", "--filter", &filter]).is_empty()
    }

    /// Content id of an image, if it is here.
    pub fn image_id(&self, image: &str) -> Option<String> {
        let answer = self.ask(&["image", "inspect", "--format", "{{.Id}}", image]);
        (answer.exit_code == Some(0)).then(|| answer.stdout().trim().to_owned())
    }

    /// Copies an image of the machine's engine here, unless it is here already.
    #[track_caller]
    pub fn load_from_machine(&self, image: &str) {
        let machine = Self::default();
        let wanted = machine.image_id(image);
        assert!(wanted.is_some(), "image {image} is missing: run scripts/base-image");
        if self.image_id(image) != wanted {
            let archive = machine.ask(&["save", image]);
            assert_eq!(archive.exit_code, Some(0), "docker save {image}: {}", archive.stderr);
            self.program().args(["load"]).input(archive.stdout).run().succeeded();
        }
    }

    /// Loads a copy of an image that says it is made for another architecture.
    #[track_caller]
    pub fn load_as_foreign(&self, image: &str, name: &str, architecture: &str) {
        self.load_changed(image, name, |config| config["architecture"] = architecture.into());
    }

    /// Loads a copy of an image with another config: what a builder would never write, an archive may hold.
    #[track_caller]
    pub fn load_changed(&self, image: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let scratch = tempfile::tempdir().expect("a temporary directory can be made");
        let archive = self.ask(&["save", image]);
        assert_eq!(archive.exit_code, Some(0), "docker save {image}: {}", archive.stderr);
        Program::new("tar").args(["-x"]).directory(scratch.path()).input(archive.stdout).run().succeeded();
        edit_json(&scratch.path().join("manifest.json"), |manifest| {
            let config = manifest[0]["Config"].as_str().expect("an archive names its config").to_owned();
            edit_json(&scratch.path().join(config), edit);
            manifest[0]["RepoTags"] = vec![name].into();
        });
        let changed = Program::new("tar").args(["-c", "."]).directory(scratch.path()).run();
        self.program().args(["load"]).input(changed.stdout).run().succeeded();
    }

    /// A small image whose containers get a nameless volume and wait; returns its name.
    #[track_caller]
    pub fn image_with_volume(&self) -> String {
        let name = "navvy-tests/with-volume";
        let text = "FROM navvy/busybox:static\nVOLUME /data/\nCMD [\"sleep\", \"1000\"]\n";
        self.program().args(["build", "--quiet", "--tag", name, "-"]).input(text).run().succeeded();
        name.to_owned()
    }

    /// An image of one file of noise; returns its name. It is there to be pulled, not to be run.
    #[track_caller]
    pub fn image_of_noise(&self, name: &str, mebibytes: u32) -> String {
        let scratch = tempfile::tempdir().expect("a temporary directory can be made");
        let size = format!("count={mebibytes}");
        let dd = ["if=/dev/urandom", "of=noise", "bs=1M", &size, "status=none"];
        Program::new("dd").args(dd).directory(scratch.path()).run().succeeded();
        let archive = Program::new("tar").args(["-c", "noise"]).directory(scratch.path()).run();
        self.program().args(["import", "-", name]).input(archive.stdout).run().succeeded();
        name.to_owned()
    }

    /// Containers and volumes of tasks whose owner, by their label, was that process of this boot.
    #[track_caller]
    pub fn owned_by(&self, pid: u32) -> Vec<String> {
        let format = r#"{{.Names}} {{.Label "dev.navvy.owner"}}"#;
        let mut all = self.lines(&["ps", "--all", "--filter", "label=dev.navvy.task", "--format", format]);
        let format = r#"{{.Name}} {{.Label "dev.navvy.owner"}}"#;
        all.extend(self.lines(&["volume", "ls", "--filter", "label=dev.navvy.task", "--format", format]));
        let pid = pid.to_string();
        all.retain(|line| line.rsplit('/').nth(1) == Some(&pid));
        all
    }

    fn program(&self) -> Program {
        let program = Program::new(CLIENT).env("DOCKER_CONFIG", "/nonexistent");
        match &self.host {
            Some(host) => program.args(["--host", host]),
            None => program,
        }
    }
}

#[track_caller]
fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
