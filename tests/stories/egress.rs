//! How jobs reach the outside: docker's proxies, and with `--host-egress` this host's and its authorities.

use navvy_tests::{Bench, everywhere};

/// Services listen once they have said what they have.
const CONFIG: &str = r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/busybox:static
      - image: navvy/busybox:static
        name: db
        entrypoint: [/bin/sh, -c, 'env | grep -i -e proxy -e CERT | sort; echo listening; exec nc -ll -p 9000 -e true']
      - image: navvy/busybox:static
        name: own
        environment: {http_proxy: "http://own:1"}
        entrypoint: [/bin/sh, -c, 'env | grep -i http_proxy; echo listening; exec nc -ll -p 9001 -e true']
    resource_class: small
    steps:
      - run: {name: services, command: 'until nc db 9000 </dev/null && nc own 9001 </dev/null; do sleep 0.1; done'}
      - run: {name: proxies, command: 'env | grep -i _proxy | sort'}
      - run: {name: own, environment: {HTTP_PROXY: "http://mine:1"}, command: 'env | grep -i http_proxy'}
      - run: {name: authorities, command: 'env | grep -v -i proxy | grep -e CERT -e CA | sort; cat "$PIP_CERT"; echo x >>"$PIP_CERT"'}
workflows:
  ci: {jobs: [build]}
"#;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

everywhere! {
    fn docker_s_proxies_reach_jobs_and_services_and_their_password_nobody(bench: Bench) {
        bench.home_file(
            ".docker/config.json",
            r#"{"proxies": {"default": {"httpProxy": "http://proxy:3128", "httpsProxy": "http://me:hunter2secret@proxy:3128",
                "noProxy": "localhost,.example"}, "tcp://elsewhere:2375": {"httpProxy": "http://elsewhere:1"}}}"#,
        );
        let done = bench.config(CONFIG).run(&["-e", "NO_PROXY=*"]).finish();
        let proxies = done.text("build", "proxies");
        assert_eq!(
            proxies,
            "HTTPS_PROXY=http://****@proxy:3128\nHTTP_PROXY=http://proxy:3128\nNO_PROXY=*\n\
             http_proxy=http://proxy:3128\nhttps_proxy=http://****@proxy:3128\n"
        );
        assert_eq!(done.text("build", "own"), "HTTP_PROXY=http://mine:1\n");
        let services: Vec<String> =
            done.service_logs("build").iter().map(|log| String::from_utf8_lossy(log).into_owned()).collect();
        let visible = "HTTP_PROXY=http://proxy:3128\nNO_PROXY=localhost,.example\nhttp_proxy=http://proxy:3128\n\
            no_proxy=localhost,.example\nlistening\n";
        assert_eq!(services, [visible, "http_proxy=http://own:1\nlistening\n"]);
        let report = done.report("build");
        assert!(report.contains("Jobs get the proxies of ~/.docker/config.json (default): "), "{report}");
        assert!(report.contains("Service containers do not get HTTPS_PROXY"), "{report}");
        assert!(!String::from_utf8_lossy(&done.stdout).contains("hunter2"), "{}", done.stdout());
        let end = done.event("the end", |event| event.is("run_ended")).texts("fidelity").join("\n");
        assert!(end.contains("jobs got the proxies of ~/.docker/config.json"), "{end}");
    }

    fn this_host_s_proxies_and_authorities_are_given_when_asked(bench: Bench) {
        bench.home_file("ours.pem", format!("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n{CERTIFICATE}"));
        let ours = bench.home().join("ours.pem").display().to_string();
        let bench = bench.env("SSL_CERT_FILE", &ours).env("https_proxy", "http://me:hunter2secret@proxy:3128");
        bench.config(CONFIG);
        let without = bench.run(&[]).finish();
        assert_eq!(without.text("build", "proxies"), "", "off by default");
        let done = bench.run(&["--host-egress", "--var", "CURL_CA_BUNDLE=/mine"]).finish();
        // Where it cannot be mounted it is a copy of the container's own, which uid 0 may change.
        done.exits_with(i32::from(bench.is_near()));
        assert_eq!(
            done.text("build", "proxies"),
            "HTTPS_PROXY=http://****@proxy:3128\nhttps_proxy=http://****@proxy:3128\n"
        );
        let bundle = "/opt/navvy/ca/bundle.pem";
        let text = done.text("build", "authorities");
        let expected = format!(
            "CURL_CA_BUNDLE=/mine\nGIT_SSL_CAINFO={bundle}\nNODE_EXTRA_CA_CERTS={bundle}\nPIP_CERT={bundle}\n\
             REQUESTS_CA_BUNDLE={bundle}\nSSL_CERT_FILE={bundle}\n{CERTIFICATE}"
        );
        assert!(text.starts_with(&expected), "certificates alone: {text}");
        if bench.is_near() {
            assert!(text.contains("Read-only file system"), "{text}");
        }
        let db = String::from_utf8_lossy(&done.service_logs("build")[0]).into_owned();
        assert!(db.contains(&format!("SSL_CERT_FILE={bundle}\n")) && !db.contains("PROXY"), "{db}");
        for told in [done.report("build"), done.event("the end", |it| it.is("run_ended")).texts("fidelity").join("\n")] {
            assert!(told.contains("the CA bundle of this host (--host-egress): 1 certificates of "), "{told}");
            assert!(told.contains("the proxies of this host (--host-egress): HTTPS_PROXY"), "{told}");
        }
    }
}

#[test]
fn the_doctor_says_what_jobs_get_of_the_outside_and_how_they_get_more() {
    let bench = Bench::new();
    bench.home_file("ours.pem", CERTIFICATE);
    let ours = bench.home().join("ours.pem").display().to_string();
    let bench = bench.env("SSL_CERT_FILE", &ours).env("HTTPS_PROXY", "http://me:hunter2secret@proxy:3128");
    let line = |text: &str, name: &str| {
        text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    let text = bench.navvy(&["doctor"]).stdout();
    assert!(
        line(&text, "proxies").contains("this host has HTTPS_PROXY=http://****@proxy:3128, which jobs do not"),
        "{text}"
    );
    assert!(line(&text, "CA certificates").contains("SSL_CERT_FILE"), "{text}");
    assert!(text.contains("--host-egress") && !text.contains("hunter2"), "{text}");
    bench.config_file("navvy/settings.toml", "host-egress = true\n");
    let text = bench.navvy(&["doctor"]).stdout();
    assert!(line(&text, "proxies").contains("jobs get HTTPS_PROXY=http://****@proxy:3128"), "{text}");
    assert!(line(&text, "CA certificates").contains("jobs get the 1 of this host"), "{text}");
    bench.config(CONFIG).file(".navvy.toml", "host-egress = true\n");
    bench.run(&[]).finish().exits_with(64).complains(&[".navvy.toml", "host-egress", "concerns this machine"]);
    bench.file(".navvy.toml", "");
    let missing = bench.env("SSL_CERT_FILE", "/nonexistent/ca.pem");
    missing.run(&[]).finish().exits_with(64).complains(&["SSL_CERT_FILE: /nonexistent/ca.pem cannot be read"]);
}
