//! Nothing that grants anything goes along.

use super::*;

const TOKEN: &str = "s3cr3t-t0k3n";

#[test]
fn the_copy_holds_no_credential_hook_helper_or_include() {
    let host = Dir::repository();
    let with_token = format!("https://me:{TOKEN}@github.com/acme/shop.git");
    let library = Dir::repository();
    let url = format!("file://{}", library.path().display());
    host.git(&["submodule", "add", "-q", &url, "lib"]);
    host.commit("submodule");
    host.write(
        "included",
        format!("[http]\n\textraheader = X: {TOKEN}\n[remote \"origin\"]\n\tpushurl = {with_token}\n"),
    );
    fs::rename(host.join("included"), host.join(".git/included")).unwrap();
    for repository in [host.path().to_owned(), host.join("lib")] {
        let set = |name: &str, value: &str| git(&repository, &["config", "--add", name, value]);
        set("remote.upstream.url", &with_token);
        set("remote.second.url", &format!("https://{TOKEN}@github.com/acme/shop.git"));
        set("branch.main.remote", &with_token);
        set("credential.helper", &format!("!echo password={TOKEN}"));
        set("http.https://github.com/.extraheader", &format!("AUTHORIZATION: basic {TOKEN}"));
        set(&format!("url.https://{TOKEN}@github.com/.insteadOf"), "https://github.com/");
        set("core.hooksPath", &format!("/{TOKEN}"));
        set("core.sshCommand", &format!("ssh -i {TOKEN}"));
        set("alias.x", &format!("!echo {TOKEN}"));
        set("filter.x.clean", &format!("echo {TOKEN}"));
    }
    host.git(&["remote", "add", "origin", &with_token]);
    host.git(&["config", "submodule.lib.url", &with_token]);
    host.git(&["config", "include.path", "included"]);
    host.write(".git/hooks/post-checkout", format!("#!/bin/sh\necho {TOKEN}\n"));
    host.write(".git/FETCH_HEAD", format!("branch 'main' of {with_token}\n"));
    host.write(".git/logs/HEAD.old", TOKEN).write(".git/config.lock", TOKEN).write(".git/index.lock", TOKEN);
    host.write(".git/description", TOKEN).write(".git/something", TOKEN);

    let (copy, _) = host.stream();
    let found = Command::new("grep").args(["-raF", TOKEN]).arg(copy.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert_eq!(copy.git(&["config", "--local", "remote.origin.url"]), "https://github.com/acme/shop.git\n");
    assert_eq!(copy.git(&["status", "--porcelain"]), host.git(&["-c", "core.hooksPath=/x", "status", "--porcelain"]));
    let listed = copy.git(&["config", "--local", "--list", "--name-only"]);
    for section in ["credential", "http", "include", "url.", "alias", "filter", "hookspath", "pushurl"] {
        assert!(!listed.contains(section), "{section} in {listed}");
    }
    let mut made: Vec<_> = fs::read_dir(copy.join(".git")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    made.sort();
    assert_eq!(made, ["HEAD", "config", "index", "info", "objects", "packed-refs", "refs"]);
}

#[test]
fn streaming_changes_nothing_on_the_host() {
    let host = Dir::repository();
    host.write(".git/hooks/post-index-change", "#!/bin/sh\ntouch ran\n");
    fs::set_permissions(host.join(".git/hooks/post-index-change"), fs::Permissions::from_mode(0o755)).unwrap();
    host.git(&["config", "core.fsmonitor", "touch monitored; false"]);
    host.write("readme", "changed\n");
    let before = listing(host.path());
    let _ = host.stream();
    assert_eq!(listing(host.path()), before);
    assert!(!host.has("ran") && !host.has("monitored"));
}

/// Every path with size and times.
fn listing(directory: &Path) -> String {
    let found = Command::new("find").arg(directory).args(["-printf", "%P %s %T@ %C@\n"]).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}
