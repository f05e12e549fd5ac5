//! `save_cache` and `restore_cache`: what one run saves the next one finds, whatever stands in the store.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use navvy_tests::{Bench, Finished, ObjectStore, Program, Signal, everywhere, sha256};

use crate::forge::{Forgery, directory, symlink};

const SAVES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - restore_cache: {name: restore, keys: ['v1-{{ .Branch }}-{{ checksum "go.sum" }}', 'v1-{{ .Branch }}-']}
      - run: {name: found, command: "cat ~/.cache/deps/one deps.txt 2>&1 || true; ls -l ~/.cache/deps 2>&1 || true"}
      - run: {name: make, command: "mkdir -p ~/.cache/deps; cat go.sum > ~/.cache/deps/one; ln -sf /etc/passwd ~/.cache/deps/link; cp go.sum deps.txt"}
      - save_cache: {name: save, key: 'v1-{{ .Branch }}-{{ checksum "go.sum" }}', paths: [~/.cache/deps, deps.txt, none, ./deps.txt]}
workflows:
  ci: {jobs: [build]}
"#;

/// A key of `go.sum`'s.
fn key(bytes: &str) -> String {
    let hex = sha256(bytes.as_bytes());
    let digest: Vec<u8> =
        (0..32).map(|nth| u8::from_str_radix(&hex[2 * nth..2 * nth + 2], 16).expect("hexadecimal")).collect();
    format!("v1-main-{}", base64(&digest).replace('/', "_"))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).map(|group| {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let letter = |nth: usize| {
            let shown = nth <= group.len();
            if shown { char::from(LETTERS[(bits >> (18 - 6 * nth)) as usize & 63]) } else { '=' }
        };
        (0..4).map(letter).collect::<String>()
    });
    groups.collect()
}

fn store(bench: &Bench) -> PathBuf {
    bench.home().join(".local/share/navvy/store/v1")
}

/// Every file below a directory, unfinished ones too.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] });
    let mut found: Vec<PathBuf> = below.collect();
    found.sort();
    found
}

#[track_caller]
fn only(directory: &Path) -> PathBuf {
    let found = files(directory);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

everywhere! {
    fn what_is_saved_is_restored_by_the_next_run_and_by_its_prefix(bench: Bench) {
        bench.config(SAVES).file("go.sum", "first\n").commit("first");
        let done = bench.run(&[]).finish();
        done.passes();
        let first = key("first\n");
        assert_eq!(
            done.text("build", "restore"),
            format!("No cache is found for key: {first}\nNo cache is found for key: v1-main-\n")
        );
        let saved = done.text("build", "save");
        let wanted = format!(
            "Creating cache archive...\nUploading cache archive...\n\
             Warning: could not archive /home/circleci/project/none - Not found\nStored Cache to {first}\n  \
             * /home/circleci/.cache/deps\n  * /home/circleci/project/deps.txt\n2 files, 12 B as "
        );
        assert!(saved.starts_with(&wanted), "{saved}");

        let done = bench.run(&[]).finish();
        done.passes();
        let restored = done.text("build", "restore");
        assert!(restored.starts_with(&format!("Found a cache from build 1 at {first}\nSize: ")), "{restored}");
        assert!(restored.contains("\nCached paths:\n  * /home/circleci/.cache/deps\n  * /home/circleci/project/deps.txt\n"));
        assert!(restored.contains("\nUnarchiving cache...\nRestored 4 entries, 12 B\n"), "{restored}");
        let found = done.text("build", "found");
        assert!(found.starts_with("first\nfirst\n") && found.contains("link -> /etc/passwd"), "{found}");
        let again = done.text("build", "save");
        assert!(again.starts_with(&format!("Skipping cache generation, cache already exists for key: {first}\nFound one created at 20")), "{again}");

        // Another checksum: the newest that begins alike, whole; and one more is saved.
        bench.file("go.sum", "second\n");
        let done = bench.run(&[]).finish();
        done.passes();
        let restored = done.text("build", "restore");
        let second = key("second\n");
        assert!(restored.starts_with(&format!("No cache is found for key: {second}\nFound a cache from build 1 at {first}\n")), "{restored}");
        assert!(done.text("build", "found").starts_with("first\nfirst\n"));
        assert!(done.text("build", "save").contains(&format!("Stored Cache to {second}\n")));
        assert_eq!(files(&store(&bench).join("reserved")), [] as [PathBuf; 0]);
        assert_eq!(files(&store(&bench).join("body")).len(), 2);
    }
}

const TROUBLES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    environment: {NOT_A_SECRET: x}
    steps:
      - save_cache: {name: nothing, key: nothing, paths: [~/none, /nowhere]}
      - restore_cache: {name: no file, key: 'v1-{{ checksum "none.lock" }}'}
      - save_cache: {name: no field, key: 'v1-{{ .Brnch }}', paths: [.]}
      - save_cache: {name: too long, key: 'KEY', paths: [.]}
      - run: {name: unreadable, command: "mkdir a; echo x > a/ok; sudo sh -c 'echo x > a/root; chmod 600 a/root'"}
      - save_cache: {name: partly, key: 'v1-{{ .Environment.CONTEXT }}-{{ .Environment.NOT_A_SECRET }}-{{ .BuildNum }}-{{ arch }}', paths: [a]}
      - run: {name: after, command: echo went on}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn a_cache_that_cannot_be_saved_or_found_never_fails_the_job() {
    let bench = Bench::new();
    let done = bench.run_config(&TROUBLES.replace("KEY", &"k".repeat(901)), &["-e", "CONTEXT=of-mine"]);
    done.passes();
    let nothing = done.text("build", "nothing");
    assert!(nothing.contains("Warning: could not archive /home/circleci/none - Not found\n"), "{nothing}");
    assert!(nothing.ends_with("Skipping cache generation, none of its paths exist\n"), "{nothing}");
    let failed = |name: &str| {
        let step = done.step("build", name);
        assert_eq!(step.outcome, "error", "{name}");
        step.trailers.join("\n")
    };
    assert_eq!(
        failed("no file"),
        "error computing cache key: template: cacheKey:1:6: executing \"cacheKey\" at <checksum \"none.lock\">: error \
         calling checksum: open /home/circleci/project/none.lock: no such file or directory"
    );
    assert!(failed("no field").contains("can't evaluate field Brnch"));
    assert!(failed("too long").contains("901 characters"));
    let partly = done.text("build", "partly");
    assert!(partly.contains("Warning: \"home/circleci/project/a/root\": it cannot be read"), "{partly}");
    // What is a secret is masked where it is shown.
    assert!(partly.contains("Stored Cache to v1-****-<no value>-1-linux-"), "{partly}");
    assert_eq!(done.text("build", "after"), "went on\n");
    assert!(done.warnings().contains("the job goes on"), "{}", done.warnings());
    assert_eq!(files(&store(&bench).join("reserved")), [] as [PathBuf; 0]);
}

const RESTORES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - restore_cache: {name: restore, key: v1}
      - run: {name: look, command: "(find ~/kept /tmp/outside -mindepth 1 2>/dev/null || true) | sort"}
      - run: {name: make, command: "mkdir -p ~/kept && echo kept > ~/kept/file"}
      - save_cache: {name: save, key: v1-a, paths: [~/kept]}
workflows:
  ci: {jobs: [build]}
"#;

/// A bench with one cache, and where its body and its index object are.
fn saved() -> (Bench, PathBuf, PathBuf) {
    let bench = Bench::new();
    let done = bench.run_config(RESTORES, &[]);
    done.passes();
    assert!(done.text("build", "save").contains("Stored Cache to v1-a\n"));
    let (body, index) = (only(&store(&bench).join("body")), only(&store(&bench).join("cache")));
    (bench, body, index)
}

#[track_caller]
fn is_a_miss_that_was_put_aside(bench: &Bench, done: &Finished, why: &str) {
    done.passes();
    let restored = done.text("build", "restore");
    assert!(restored.contains("Warning: the cache at v1-a is damaged and was put aside: "), "{restored}");
    assert!(restored.contains(why), "{restored}");
    assert!(restored.ends_with("No cache is found for key: v1\n"), "{restored}");
    // Nothing of it was written, and its place is free again.
    assert_eq!(done.text("build", "look"), "");
    assert!(done.text("build", "save").contains("Stored Cache to v1-a\n"));
    assert_eq!(files(&store(bench).join("quarantine")).len(), 1);
}

#[test]
fn a_damaged_body_is_a_miss_and_is_put_aside() {
    let (bench, body, _) = saved();
    let mut bytes = std::fs::read(&body).expect("a body");
    bytes[80] ^= 1;
    std::fs::write(&body, bytes).expect("it can be written");
    is_a_miss_that_was_put_aside(&bench, &bench.run(&[]).finish(), "is not what was stored");
}

#[test]
fn a_body_that_is_gone_is_a_miss() {
    let (bench, body, _) = saved();
    std::fs::remove_file(body).expect("it is there");
    is_a_miss_that_was_put_aside(&bench, &bench.run(&[]).finish(), "is not in store");
}

/// Puts another body under an entry, as somebody would who may write to the store.
fn plant(body: &Path, index: &Path, archive: &[u8]) {
    std::fs::write(body, archive).expect("it can be written");
    let record = std::fs::read_to_string(index).expect("an index object");
    let field = |name: &str| {
        let from = record.find(name).expect("a field") + name.len();
        record[from..].split([',', '}', '"']).next().expect("its value").to_owned()
    };
    let (size, digest) = (field("\"size\":"), field("\"sha256\":\""));
    let record = record.replace(&format!("\"size\":{size}"), &format!("\"size\":{}", archive.len()));
    std::fs::write(index, record.replace(&digest, &sha256(archive))).expect("it can be written");
}

#[test]
fn a_secret_that_is_stored_is_told_with_file_and_name() {
    let bench = Bench::new();
    let config = "version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: 'mkdir -p ~/kept ws; echo token=$TOKEN > ~/kept/npmrc; echo $TOKEN | base64 -w0 > ws/encoded'
      - save_cache: {name: save, key: v1, paths: [~/kept]}
      - persist_to_workspace: {name: persist, root: ws, paths: [.]}
workflows: {main: {jobs: [build]}}
";
    let secret = ["-e", "TOKEN=hunter2-hunter2-hunter2"];
    let done = bench.run_config(config, &secret);
    done.passes();
    let line = "Warning: /home/circleci/kept/npmrc holds the value of TOKEN\n";
    assert!(done.text("build", "save").contains(line), "{}", done.text("build", "save"));
    assert!(done.text("build", "save").contains("Stored Cache to v1\n"));
    assert!(done.text("build", "persist").contains("Warning: encoded holds the value of TOKEN\n"));
    let told = done.warnings();
    assert!(told.contains("cache v1: /home/circleci/kept/npmrc holds the value of TOKEN"), "{told}");
    assert!(told.contains("workspace layer of step 3: encoded holds the value of TOKEN"), "{told}");
    let allowed =
        bench.run_config(&config.replace("v1", "v2"), &[secret[0], secret[1], "--secrets-in-artifacts=allow"]);
    allowed.passes();
    assert!(!allowed.text("build", "save").contains("Warning"), "{}", allowed.text("build", "save"));
}

#[test]
fn an_evil_archive_writes_nothing_outside_its_paths() {
    let beneath = |name: &str| format!("home/circleci/kept{name}").into_bytes();
    let through_a_link = Forgery::new()
        .entry(&directory(&beneath("")), b"")
        .entry(&symlink(&beneath("/out"), b"/tmp/outside"), b"")
        .file(&beneath("/out/evil"), b"evil")
        .end();
    let dots = Forgery::new().file(b"home/circleci/kept/../../../tmp/outside/evil", b"evil").end();
    for forgery in [through_a_link, dots] {
        let (bench, body, index) = saved();
        plant(&body, &index, &forgery.build());
        let done = bench.run(&[]).finish();
        done.passes();
        let restored = done.text("build", "restore");
        assert!(
            restored.contains("Warning: the cache at v1-a is damaged and was put aside: the archive is broken"),
            "{restored}"
        );
        assert!(!done.text("build", "look").contains("outside"), "{}", done.text("build", "look"));
    }
    // Names beside its paths are passed over.
    let (bench, body, index) = saved();
    let beside = Forgery::new()
        .file(b"home/circleci/.bashrc", b"evil")
        .file(&beneath("/file"), b"good")
        .file(b"tmp/outside/evil", b"evil")
        .end();
    plant(&body, &index, &beside.build());
    let done = bench.run(&[]).finish();
    done.passes();
    assert!(done.text("build", "restore").contains("Warning: 2 entries of the archive belong to none of its paths"));
    assert_eq!(done.text("build", "look"), "/home/circleci/kept/file\n");
}

#[test]
fn a_fork_reads_what_is_trusted_and_writes_only_its_own() {
    let bench = Bench::new();
    let restored = |done: &Finished| done.text("build", "restore");
    let run = |scope: &str| {
        let done = bench.config(RESTORES).run(&["--scope", scope]).finish();
        done.passes();
        done
    };
    assert!(restored(&run("fork:alice")).starts_with("No cache"));
    assert!(restored(&run("trusted")).starts_with("No cache"), "a fork's cache is nobody else's");
    assert!(restored(&run("fork:bob")).starts_with("Found a cache"), "what is trusted is read by all");
    assert!(restored(&run("trusted")).starts_with("Found a cache"));
}

#[test]
fn a_copy_in_another_directory_writes_nothing_that_this_one_restores() {
    let bench = Bench::new();
    let origin = "https://example.invalid/acme/shop.git";
    bench.config(RESTORES).git(&["remote", "add", "origin", origin]).succeeded();
    let copy = bench.home().join("copy");
    let there = copy.display().to_string();
    bench.git(&["init", "--quiet", "--initial-branch=main", &there]).succeeded();
    bench.git(&["-C", &there, "remote", "add", "origin", origin]).succeeded();
    bench.home_file("copy/.circleci/config.yml", RESTORES);
    let in_copy = |words: &[&str]| bench.program(words).directory(&copy).run();
    in_copy(&["run", "--plain"]).ends(0, &[]);
    assert!(in_copy(&["cache", "ls"]).text().ends_with("  local  v1-a\n"));
    let here = |words: &[&str]| {
        let done = bench.run(words).finish();
        done.passes();
        done.text("build", "restore")
    };
    assert_eq!(bench.navvy(&["cache", "ls"]).stdout(), "There are no caches of this project.\n");
    let told = bench.navvy(&["cache", "explain"]).stdout();
    assert!(told.contains("  Scope local:") && told.contains("scope local does not read what local:"), "{told}");
    assert!(here(&[]).starts_with("No cache"), "another directory's cache is not this one's, whatever its origin says");
    assert!(here(&[]).starts_with("Found a cache"));
    // The other one's are its own to remove.
    bench.navvy(&["cache", "rm", "--prefix", "v1"]).passes();
    assert!(in_copy(&["cache", "ls"]).text().ends_with("  local  v1-a\n"));
    // What is trusted both read.
    in_copy(&["cache", "rm", "v1-a"]).ends(0, &[]);
    assert!(here(&["--scope", "trusted"]).starts_with("No cache"));
    assert!(here(&[]).starts_with("Found a cache"));
    let done = in_copy(&["run", "--plain"]).ends(0, &[]).stdout();
    assert!(done.contains("Found a cache"), "{done}");
}

#[test]
fn caches_of_a_commit_that_nobody_accepted_are_told() {
    let bench = Bench::new();
    bench.config(RESTORES).commit("first");
    let told = |words: &[&str]| {
        let done = bench.run(words).finish();
        done.passes();
        done.warnings().contains("no branch of origin that was fetched holds HEAD")
    };
    assert!(!told(&[]), "nothing was ever fetched");
    bench.git(&["update-ref", "refs/remotes/origin/main", "HEAD"]).succeeded();
    assert!(!told(&[]));
    bench.commit("a pull request");
    assert!(told(&[]) && told(&["--scope", "trusted"]));
    assert!(!told(&["--scope", "fork:alice"]));
}

#[test]
fn a_real_object_store_keeps_them_as_well() {
    let server = ObjectStore::serve();
    let bench = server.used_by(Bench::new());
    bench.config(SAVES).file("go.sum", "first\n").commit("first");
    let done = bench.run(&[]).finish();
    done.passes();
    let first = key("first\n");
    assert!(
        done.text("build", "save").contains(&format!("Stored Cache to {first}\n")),
        "{}",
        done.text("build", "save")
    );
    let done = bench.run(&[]).finish();
    done.passes();
    let restored = done.text("build", "restore");
    assert!(restored.starts_with(&format!("Found a cache from build 1 at {first}\n")), "{restored}");
    assert!(done.text("build", "found").starts_with("first\nfirst\n"));
    assert!(done.text("build", "save").starts_with("Skipping cache generation"));
    assert!(bench.navvy(&["cache", "ls"]).stdout().ends_with(&format!("  local  {first}\n")));
    bench.navvy(&["cache", "rm", &first]).passes();
    assert_eq!(bench.navvy(&["cache", "ls"]).stdout(), "There are no caches of this project.\n");
    assert!(!bench.home().join(".local/share/navvy/store").exists());
}

#[test]
fn caches_are_listed_and_removed_by_key_and_by_prefix() {
    let (bench, ..) = saved();
    let table = bench.navvy(&["cache", "ls"]);
    table.passes();
    assert!(table.stdout().contains("  local  v1-a\n"), "{}", table.stdout());
    let line = bench.navvy(&["cache", "ls", "v1", "--json"]).stdout();
    assert!(line.starts_with("{\"key\":\"v1-a\",\"scope\":\"local\","), "{line}");
    assert!(line.contains("\"paths\":[\"/home/circleci/kept\"]"), "{line}");
    let none = bench.navvy(&["cache", "ls", "v2"]);
    assert_eq!(none.stdout(), "No cache of this project has a key that begins with `v2`.\n");
    bench.navvy(&["cache", "rm", "v1"]).exits_with(64).complains(&["scope local has no cache v1", "navvy cache ls"]);
    bench.navvy(&["cache", "rm", "v1-a", "--scope", "trusted"]).exits_with(64);
    let removed = bench.navvy(&["cache", "rm", "--prefix", "v"]);
    removed.passes();
    assert!(removed.stdout().starts_with("Removed v1-a, "), "{}", removed.stdout());
    for left in ["body", "cache", "reserved"] {
        assert_eq!(files(&store(&bench).join(left)), [] as [PathBuf; 0]);
    }
}

/// As names stand in the paths of a store: docs/storage.md.
fn short_digest(text: &str) -> String {
    sha256(text.as_bytes())[..32].to_owned()
}

#[test]
fn prune_sweeps_what_a_killed_saver_left_in_the_store() {
    let (bench, body, _) = saved();
    // As a saver leaves them that was killed two days ago.
    let id = "0123456789abcdef0123456789abcdef";
    let reserved = store(&bench).join("reserved");
    std::fs::create_dir_all(&reserved).expect("a directory can be made");
    std::fs::write(reserved.join(id), "{\"index\":\"v1/cache/none/,x\"}").expect("a mark can be made");
    let forsaken = body.with_file_name(id);
    std::fs::write(&forsaken, "half").expect("a body can be made");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 3600);
    let mark = std::fs::File::options().write(true).open(reserved.join(id)).expect("the mark");
    mark.set_modified(long_ago).expect("its time can be set");
    // And a workspace layer of a run that never ended.
    let layer = "fedcba9876543210fedcba9876543210";
    let layers = store(&bench).join("piece/layer").join(short_digest("1:x:local"));
    let layers = layers.join(short_digest("g")).join(short_digest("p"));
    std::fs::create_dir_all(&layers).expect("a directory can be made");
    let digest = sha256(b"x");
    let place = r#"{"kind":"piece","of":"layer","group":"g","producer":"p","node":0,"step":1}"#;
    let record = format!(
        r#"{{"version":1,"project":"x","scope":"local","place":{place},"body":{{"id":"{layer}","size":1,"sha256":"{digest}"}},"producer":{{"job":"p","task":"t"}}}}"#
    );
    std::fs::write(layers.join("0000000000-0000000001"), record).expect("an index object can be made");
    std::fs::write(body.with_file_name(layer), "x").expect("a body can be made");
    let index = std::fs::File::options().write(true).open(layers.join("0000000000-0000000001")).expect("it is there");
    let longer_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(16 * 24 * 3600);
    index.set_modified(longer_ago).expect("its time can be set");
    let pruned = bench.navvy(&["prune"]);
    pruned.passes();
    assert!(pruned.stdout().contains("Swept store file://"), "{}", pruned.stdout());
    assert!(pruned.stdout().contains("bodies: 1, workspace layers: 1.\n"), "{}", pruned.stdout());
    assert!(!forsaken.exists() && !body.with_file_name(layer).exists() && body.exists());
    assert_eq!(files(&reserved), [] as [PathBuf; 0]);
}

/// What stands in for a disk that does not answer: whoever opens a pipe waits for ever.
#[test]
fn a_mark_that_cannot_be_read_keeps_prune_neither_from_the_others_nor_from_its_end() {
    let (bench, body, _) = saved();
    let reserved = store(&bench).join("reserved");
    std::fs::create_dir_all(&reserved).expect("a directory can be made");
    let id = |digit: usize| format!("{digit}").repeat(32);
    let stuck = reserved.join(id(5));
    Program::new("mkfifo").args([&stuck]).run().succeeded();
    Program::new("touch").args(["--date", "2 days ago"]).args([&stuck]).run().succeeded();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 24 * 3600);
    for digit in [1, 9] {
        std::fs::write(reserved.join(id(digit)), "{\"index\":\"v1/cache/none/,x\"}").expect("a mark can be made");
        std::fs::write(body.with_file_name(id(digit)), "half").expect("a body can be made");
        let mark = std::fs::File::options().write(true).open(reserved.join(id(digit))).expect("the mark");
        mark.set_modified(long_ago).expect("its time can be set");
    }
    let pruned = bench.navvy(&["prune"]);
    assert_eq!(files(&reserved), [stuck]);
    pruned.exits_with(3).complains(&[&format!("v1/reserved/{} in store file://", id(5)), "did not answer"]);
    assert!(pruned.stdout().contains("bodies: 2.\n"), "{}", pruned.stdout());
}

/// An S3 server that has nothing, takes small objects, and never answers the upload of a body.
struct Swamp {
    address: String,
    requests: Receiver<String>,
}

impl Swamp {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = format!("http://{}", listener.local_addr().expect("it has an address"));
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                std::thread::spawn(move || answer(stream, &sender));
            }
        });
        Self { address, requests }
    }
}

fn answer(stream: TcpStream, requests: &Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let (mut request, mut length) = (String::new(), 0_u64);
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) <= 2 {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok();
        let words: Vec<&str> = request.split(' ').collect();
        let told = format!("{} {}", words[0], words.get(1).unwrap_or(&""));
        let is_body = told.starts_with("PUT") && told.contains("/v1/body/");
        requests.send(told.clone()).ok();
        if is_body {
            // Until the client gives up.
            reader.fill_buf().ok();
            return;
        }
        let answer = match words[0] {
            "GET" | "HEAD" if !told.contains('?') => "404 Not Found",
            "DELETE" => "204 No Content",
            _ => "200 OK",
        };
        let listed = |name: &str| format!("<{name}><IsTruncated>false</IsTruncated></{name}>");
        let body = match told.as_str() {
            told if told.contains("list-type") => listed("ListBucketResult"),
            told if told.contains("uploads") => listed("ListMultipartUploadsResult"),
            _ => String::new(),
        };
        let length = body.len();
        write!(&stream, "HTTP/1.1 {answer}\r\nETag: \"e\"\r\nContent-Length: {length}\r\n\r\n{body}").ok();
    }
}

#[test]
fn a_job_that_is_canceled_while_it_saves_leaves_no_entry() {
    let swamp = Swamp::start();
    let bench = Bench::new().env("NAVVY_STORE", "s3://bucket/prefix");
    let options = [
        ("endpoint", swamp.address.as_str()),
        ("allow_http", "true"),
        ("disable_bulk_delete", "true"),
        ("region", "us-east-1"),
        ("access_key_id", "id"),
        ("secret_access_key", "key"),
    ];
    let lines: String = options.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
    bench.config_file("navvy/settings.toml", format!("[store.options]\n{lines}"));
    let run = bench.config(RESTORES).run(&[]);
    let mut seen = Vec::new();
    let limit = std::time::Duration::from_secs(60);
    while !seen.last().is_some_and(|request: &String| request.starts_with("PUT /bucket/prefix/v1/body/")) {
        seen.push(swamp.requests.recv_timeout(limit).unwrap_or_else(|_| panic!("{seen:?}")));
    }
    run.signal(Signal::Interrupt);
    let done = run.finish();
    done.exits_with(130);
    assert_eq!(done.step("build", "save").outcome, "canceled");
    seen.extend(swamp.requests.try_iter());
    assert!(!seen.iter().any(|request| request.starts_with("PUT") && request.contains("/v1/cache/")), "{seen:#?}");
    for left in ["body", "reserved"] {
        let removed = |request: &&String| request.starts_with("DELETE") && request.contains(&format!("/v1/{left}/"));
        assert_eq!(seen.iter().filter(removed).count(), 1, "{seen:#?}");
    }
}
