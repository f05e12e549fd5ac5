//! Secrets: where they travel, and that nothing which leaves a job shows them.

use std::fs;
use std::path::Path;

use navvy_tests::{Bench, Run, everywhere};

const FROM_CONTEXT: &str = "hunter2-of-the-context";
const FROM_CONTEXT_BASE64: &str = "aHVudGVyMi1vZi10aGUtY29udGV4d";
const FROM_CALLER: &str = "caller's \"own\" value";
const FROM_FILE: &str = "first line of a key\\nits second line";
const LINES: [&str; 2] = ["first line of a key", "its second line"];

const PRINTS_ALL: &str = r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/base:bookworm
      - image: navvy/busybox:static
        name: db
        entrypoint: [/bin/sh, -c, 'echo listening; sleep 1000']
    resource_class: small
    steps:
      - run: {name: "uses hunter2-of-the-context", command: "echo hunter2-of-the-context $CTX_TOKEN"}
      - run: {name: encodes, command: 'printf "me:$CTX_TOKEN" | base64; printf %s "$CALLER" | base64 -w0'}
      - run: {name: quotes, command: 'set -x; : "$CALLER"; declare -p CALLER; printf "%q\n" "$CALLER"'}
      - run: {name: key, command: 'echo "$KEY"; echo "$KEY" | tail -n 1; printf "a\r\n%s" "$KEY"'}
      - run: {name: slowly, command: 'for c in $(printf %s "$CTX_TOKEN" | sed "s/./& /g"); do printf "%s" "$c"; done; printf hunter'}
      - run: {name: sits, command: 'echo ready to be looked at; until [ -e /tmp/go ]; do sleep 0.1; done; echo "$CTX_TOKEN"; exit 7'}
workflows:
  ci: {jobs: [{build: {context: deploy}}]}
"#;

fn start(bench: &Bench) -> Run<'_> {
    bench.file("deploy.env", format!("CTX_TOKEN={FROM_CONTEXT}\n"));
    bench.file("more.env", format!("KEY=\"{FROM_FILE}\"\nSTAGE=dev\n"));
    let (context, file) = (bench.project().join("deploy.env"), bench.project().join("more.env"));
    let (context, file) = (format!("deploy={}", context.display()), file.display().to_string());
    bench.config(PRINTS_ALL).run(&["--context", &context, "--env-file", &file, "-e", "CALLER", "--secrets-report"])
}

#[track_caller]
fn shows_nothing(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let quoted = ["caller's \\\"own\\\" value", "caller\\'s\\ \\\"own\\\"\\ value"];
    for secret in [FROM_CONTEXT, FROM_CONTEXT_BASE64, FROM_CALLER].iter().chain(&LINES).chain(&quoted) {
        assert!(!text.contains(secret), "{what} shows {secret:?}: {text}");
    }
}

fn nothing_below(directory: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(directory).expect("a directory can be read").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("an entry has a type"));
        if kind.is_dir() {
            files += nothing_below(&path);
        } else if kind.is_file() {
            shows_nothing(&path.display().to_string(), &fs::read(&path).expect("a file can be read"));
            files += 1;
        }
    }
    files
}

fn no_secret_is_anywhere(bench: &Bench) {
    let run = start(bench);
    let looked_at = run.wait_for_output("ready to be looked at");
    let task = looked_at.task().expect("output is a task's").to_owned();
    let containers = bench.docker().containers_of(&task);
    assert_eq!(containers.len(), 2, "{containers:?}");
    for container in &containers {
        shows_nothing("docker inspect", bench.docker().ask(&["inspect", container]).text().as_bytes());
    }
    let primary = format!("navvy-{task}-primary");
    let looks = "for file in /proc/1/environ /proc/1/cmdline /opt/navvy/run/*; do [ -f $file ] && cat $file; done; :";
    shows_nothing("the supervisor", bench.docker().ask(&["exec", &primary, "sh", "-c", looks]).text().as_bytes());
    nothing_below(&bench.state());
    nothing_below(&bench.state().with_file_name("run"));
    bench.docker().ask(&["exec", &primary, "touch", "/tmp/go"]).succeeded();
    let done = run.finish();
    done.exits_with(1);
    assert_eq!(done.text("build", "uses ****"), "**** ****\n");
    assert_eq!(done.text("build", "slowly"), "****hunter");
    assert_eq!(done.text("build", "key"), "****\n****\na\r\n****");
    let quotes = done.text("build", "quotes");
    assert!(quotes.starts_with("+ : '****'\n") && quotes.contains("declare -x CALLER=\"****\"\n"), "{quotes}");
    assert!(quotes.ends_with("'****'\n****\n"), "{quotes}");
    let step = done.step("build", "sits");
    assert!(done.text("build", "sits").ends_with("****\n"));
    assert_eq!(step.bytes, done.log("build", "sits").len() as u64);
    assert_eq!(step.sha256, navvy_tests::sha256(&done.log("build", "sits")));
    shows_nothing("--json", &done.stdout);
    shows_nothing("standard error", done.stderr.as_bytes());
    assert!(nothing_below(&bench.state()) > 6, "the run's files were looked at");
    assert!(done.warnings().contains("the value of STAGE is not masked"), "{}", done.warnings());
    let end = done.event("the end", |event| event.is("run_ended"));
    let masked = end.get("secrets").as_array().expect("the report was asked for").clone();
    let counted = |secret: &str, form: &str, place: &str| {
        let found = masked.iter().find(|it| it["secret"] == secret && it["form"] == form && it["place"] == place);
        found.and_then(|it| it["count"].as_u64())
    };
    assert_eq!(counted("CTX_TOKEN", "plain", "output of step 1"), Some(2), "{masked:?}");
    assert_eq!(counted("CTX_TOKEN", "base64", "output of step 2"), Some(1), "{masked:?}");
    assert!(counted("CTX_TOKEN", "plain", "step name").is_some(), "{masked:?}");
}

everywhere! {
    fn no_secret_is_on_a_host_a_disk_a_terminal_or_a_wire(bench: Bench) {
        no_secret_is_anywhere(&bench.env("CALLER", FROM_CALLER));
    }
}

#[test]
fn overlapping_secrets_leave_no_tail_in_any_output() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/busybox:static
      - image: navvy/busybox:static
        name: db
        environment: {SAYS: "login alpha-beta-gamma done"}
        entrypoint: [/bin/sh, -c, 'echo $SAYS; echo over; exec nc -ll -p 7000 -e true']
    resource_class: small
    steps:
      # Once it answers, it has said what it has to say.
      - run: {name: waits, command: 'until nc 127.0.0.1 7000 </dev/null; do sleep 0.1; done'}
      - run: {name: both, command: 'echo "x${A}-gamma $A$B"; printf "%s" "alpha-beta-gam"; echo "$B" >&2'}
workflows:
  ci: {jobs: [build]}
"#;
    for mode in [&["--no-tty"][..], &[]] {
        let words = [&["-e", "A=alpha-beta", "-e", "B=beta-gamma", "-e", "C=true"], mode].concat();
        let done = bench.run_config(config, &words);
        done.passes();
        let text = done.text("build", "both");
        assert!(text.starts_with("x**** ********\n"), "{text:?}");
        assert!(!text.contains("beta-gamma") && !text.contains("alpha-beta"), "{text:?}");
        let service = String::from_utf8_lossy(&done.service_logs("build")[0]).into_owned();
        assert_eq!(service, "login **** done\nover\n");
        assert!(done.warnings().contains("the value of C is not masked"), "{}", done.warnings());
    }
}

#[test]
fn a_person_gets_a_table_of_what_was_masked() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: {name: says, command: 'echo "$TOKEN $TOKEN"; exit 3'}}]
workflows:
  ci: {jobs: [build]}
"#;
    let words = ["-e", "TOKEN=hunter2-of-all", "--secrets-report"];
    let done = bench.config(config).run_for_people(&words).finish();
    done.exits_with(1);
    let text = done.stdout();
    assert!(!text.contains("hunter2"), "{text}");
    let line = text.lines().find(|line| line.contains("output of step 1")).unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["TOKEN", "as", "it", "is", "build", "output", "of", "step", "1", "2"]);
    let without = bench.run_for_people(&words_without_report()).finish();
    assert!(!without.stdout().contains("Secrets masked"), "{}", without.stdout());
}

fn words_without_report() -> [&'static str; 2] {
    ["-e", "TOKEN=hunter2-of-all"]
}

#[test]
fn a_value_in_the_wrong_place_is_not_repeated() {
    let bench = Bench::new();
    bench.config(
        "version: 2.1\njobs: {build: {docker: [{image: navvy/busybox:static}], steps: [{run: 'true'}]}}\n\
        workflows: {ci: {jobs: [build]}}\n",
    );
    bench.file("bad.env", "KEY=x\nMIIEvQIBADANBg+kqhki==\n");
    let file = bench.project().join("bad.env");
    let done = bench.run(&["--env-file", &file.display().to_string()]).finish();
    done.exits_with(2).complains(&["bad.env:2", "not a variable name"]);
    assert!(!done.stderr.contains("MIIEvQ"), "{}", done.stderr);
    let done = bench.run(&["-e", "MIIEvQ+IBAD=="]).finish();
    done.exits_with(64);
    assert!(!done.stderr.contains("MIIEvQ"), "{}", done.stderr);
}

#[test]
fn what_a_view_puts_together_is_masked_once_more() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps: [{run: {name: go, command: "printf 'A hunter2\\033]0;t\\007secret\\nB hunter2\\000secret\\n'"}}]
workflows:
  ci: {jobs: [build]}
"#,
    );
    let done = bench.run_for_people(&["--plain", "-e", "TOKEN=hunter2secret"]).finish();
    done.passes();
    assert!(!done.stdout().contains("hunter2secret"), "{}", done.stdout());
    assert!(done.stdout().contains("A ****"), "{}", done.stdout());
}

/// With blanks around it, and whatever is written in another way somewhere.
const ODD: &str = " it's <\"corehorse\"> & `50%`/é ";

const WRITES_ODDLY: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: 'get it%2527s%2520%253C%2522corehorse%2522%253E%2520%2526%2520%256050%2525%2560/%25C3%25A9'
          command: |
            python3 - \<<'P'
            import html, json, os, sys, urllib.parse
            from xml.sax.saxutils import quoteattr
            token = os.environ["TOKEN"]
            bare = token.strip()
            quote, plus = urllib.parse.quote, urllib.parse.quote_plus
            forms = [token, bare, html.escape(bare), html.escape(token, quote=False), bare.replace("'", "''"), bare.replace('"', '""'),
                html.escape(bare).encode("ascii", "xmlcharrefreplace").decode(), json.dumps(bare), json.dumps({"a": json.dumps({"b": token})}),
                quote(bare), quote(quote(bare)), plus(plus(token)), quote(quote(bare, safe=""), safe="")]
            os.makedirs("out")
            text = "".join(f"{number}: {form} end\n" for number, form in enumerate(forms))
            open("out/log", "w").write(text)
            sys.stdout.buffer.write(text.encode())
            cases = "".join(f"<testcase name={quoteattr(form)}><failure message={quoteattr(form)}>{html.escape(form)}</failure></testcase>" for form in forms)
            open("out/junit.xml", "w").write(f"<testsuite>{cases}</testsuite>")
            sys.stdout.buffer.write(("\ufeff" + token).encode("utf-16-le") + b"\n" + bare.encode("utf-16-be") + b"\n")
            P
      - store_artifacts: {path: out}
      - store_test_results: {path: out}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn a_value_that_is_written_in_another_way_is_masked_wherever_it_goes() {
    let bench = Bench::new();
    let given = format!("TOKEN={ODD}");
    let done = bench.run_config(WRITES_ODDLY, &["-e", &given, "--secrets-in-artifacts=mask"]);
    done.passes();
    let narrow = |bytes: &[u8]| bytes.iter().copied().filter(|byte| *byte != 0).collect::<Vec<u8>>();
    let shows_none = |what: &str, bytes: &[u8]| {
        let text = String::from_utf8_lossy(&narrow(bytes)).into_owned();
        assert!(!text.contains("corehorse"), "{what}: {text}");
    };
    shows_none("the events", done.stdout().as_bytes());
    let log = done.log("build", "get ****");
    shows_none("the log", &log);
    assert_eq!(String::from_utf8_lossy(&log).matches("****").count(), 15, "{}", String::from_utf8_lossy(&log));
    bench.ask(&["artifacts", "get", "out/log", "--to", &bench.home().display().to_string()]).passes();
    shows_none("the artifact", &fs::read(bench.home().join("out/log")).unwrap());
    let kept = bench.ask(&["tests", "--json"]).passes().stdout();
    assert!(kept.contains("****"), "{kept}");
    shows_none("the results", kept.as_bytes());
}

const PROXY: &str = "http://me:s3cret%40word@proxy.example:3128";

#[test]
fn what_cannot_be_a_secret_is_shown_and_told_once() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: values, command: 'echo $SSL_CERT_FILE $HTTP_PROXY $DEBUG $STAGE $FROM_CALLER $TOKEN'}
      - run: {name: proxy, command: 'echo $HTTPS_PROXY; echo s3cret%40word s3cret@word; echo proxy.example:3128'}
workflows:
  ci: {jobs: [{build: {context: deploy}}, {build: {name: again, context: deploy}}]}
"#,
    );
    bench.file("deploy.env", format!("DEBUG=TRUE\nTOKEN=hunter2hunter2\nHTTPS_PROXY={PROXY}\n"));
    bench.file("more.env", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n");
    let (context, file) = (bench.project().join("deploy.env"), bench.project().join("more.env"));
    let (context, file) = (format!("deploy={}", context.display()), file.display().to_string());
    let bench = bench.env("FROM_CALLER", "my own value");
    let words = ["--context", &context, "--env-file", &file, "-e", "HTTP_PROXY=http://proxy.example:3128"];
    let done = bench.run(&[&words[..], &["--var", "STAGE=staging", "--var", "FROM_CALLER"]].concat()).finish();
    done.passes();
    assert_eq!(
        done.text("build", "values"),
        "/etc/ssl/certs/ca-certificates.crt http://proxy.example:3128 TRUE staging my own value ****\n"
    );
    assert_eq!(done.text("build", "proxy"), "****\n**** ****\nproxy.example:3128\n");
    let told = done.warnings();
    assert_eq!(told.matches("the values of SSL_CERT_FILE, DEBUG, HTTP_PROXY are not masked").count(), 1, "{told}");
    let plain = bench.run(&["--context", &context, "--var", &format!("HTTPS_PROXY={PROXY}")]).finish();
    plain.passes();
    assert_eq!(plain.text("build", "proxy"), "****\n**** ****\nproxy.example:3128\n", "its password stays secret");
    bench.run(&["-e", "TOKEN=x", "--var", "TOKEN=y"]).finish().exits_with(64).complains(&["TOKEN is given twice"]);
}

#[test]
fn a_key_of_several_lines_is_read_from_a_file_in_quotes() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: count, command: 'echo "$KEY" | wc -l; echo "$KEY" | md5sum; echo "$LITERAL" | md5sum'}
      - run: {name: show, command: 'echo "$KEY"'}
workflows:
  ci: {jobs: [{build: {context: deploy}}]}
"#,
    );
    let key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----";
    bench.file("deploy.env", format!("# A key\nexport KEY=\"{key}\n\"   # as openssl wrote it\n"));
    bench.file("more.env", format!("LITERAL='{key}\n'\n"));
    let (context, file) = (bench.project().join("deploy.env"), bench.project().join("more.env"));
    let (context, file) = (format!("deploy={}", context.display()), file.display().to_string());
    let done = bench.run(&["--context", &context, "--env-file", &file]).finish();
    done.passes();
    let text = done.text("build", "count");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1]), ("5", lines[2]), "{text}");
    assert!(!done.text("build", "show").contains("MIIE"), "{}", done.text("build", "show"));
    bench.file("more.env", format!("A=1\nOPEN=\"{key}\nB=2\n"));
    let done = bench.run(&["--env-file", &file]).finish();
    done.exits_with(2).complains(&["more.env:2", "is not closed"]);
    assert!(!done.stderr.contains("MIIE"), "{}", done.stderr);
}

#[test]
fn settings_give_variables_and_a_project_s_name_nothing_outside_it() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: {name: values, command: 'echo $STAGE $LEVEL $TOKEN $MINE $BOTH'}}]
workflows:
  ci: {jobs: [build]}
"#,
    );
    bench.file(".navvy.toml", "env-file = ['.env']\n[env]\nSTAGE = 'staging'\nLEVEL = 3\nBOTH = 'project'\n");
    bench.file(".env", "TOKEN='hunter2 of the project'\n");
    bench
        .config_file("navvy/settings.toml", "env-file = ['my.env']\nenv-file-projects = ['*']\n[env]\nBOTH = 'user'\n");
    bench.config_file("navvy/my.env", "MINE=hunter2-of-mine\n");
    let done = bench.run(&["--var", "LEVEL=4"]).finish();
    done.passes();
    assert_eq!(done.text("build", "values"), "staging 4 **** **** project\n");
    bench.home_file("key.env", "KEY=hunter2\n");
    let key = bench.home().join("key.env");
    std::os::unix::fs::symlink(&key, bench.project().join("linked.env")).unwrap();
    for named in ["../home/key.env", &key.display().to_string(), "linked.env"] {
        bench.file(".navvy.toml", format!("env-file = ['{named}']\n"));
        bench.run(&[]).finish().exits_with(64).complains(&[".navvy.toml: env-file ", "this one is outside"]);
    }
    bench.file(".navvy.toml", "[env]\nA = 1.10\n");
    bench.run(&[]).finish().exits_with(64).complains(&[".navvy.toml: line ", "write its value in quotes"]);
}
