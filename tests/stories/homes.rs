//! One home: what `~` is in a job's commands, it is in every path of its config.

use navvy_tests::{Bench, Setting};

/// Steps that put something at each kind of path below the home, and look whether it is there.
const STEPS: &str = r#"
      - run: {name: where, command: 'pwd; echo ~; echo $HOME'}
      - run: {name: elsewhere, working_directory: ~/project/else/where, command: pwd}
      - run: |
          mkdir -p ~/project/kept ~/project/results ~/project/art
          echo kept >~/project/kept/file; echo art >~/project/art/file
          echo '<testsuite><testcase name="a"/></testsuite>' >~/project/results/a.xml
          echo key >~/project/key
      - save_cache: {name: save, key: 'v1-JOB-{{ checksum "~/project/key" }}', paths: [~/project/kept]}
      - run: rm -r ~/project/kept
      - restore_cache: {name: restore, keys: [v1-JOB-]}
      - run: {name: look, command: cat ~/project/kept/file}
      - persist_to_workspace: {name: persist, root: ~/project, paths: [kept]}
      - store_artifacts: {name: artifacts, path: ~/project/art}
      - store_test_results: {name: results, path: ~/project/results}
"#;

fn job(name: &str, image: &str, more: &str) -> String {
    let steps = STEPS.replace("JOB", name);
    format!("  {name}:\n    docker: [{image}]\n    resource_class: small\n{more}    steps:\n{}", &steps[1..])
}

/// As `navvy/base:bookworm`, with another `HOME`.
fn image_with_home(bench: &Bench, home: &str) -> String {
    let name = format!("navvy/home:story-{}", std::process::id());
    let dockerfile = format!("FROM navvy/base:bookworm\nENV HOME={home}\n");
    bench.file("image/Dockerfile", dockerfile);
    let directory = bench.project().join("image");
    let directory = directory.to_str().expect("a plain path");
    bench.docker().ask(&["build", "--quiet", "--tag", &name, directory]).succeeded();
    name
}

#[test]
fn a_home_is_the_same_in_paths_and_in_commands() {
    let bench = Bench::of(Setting::Plain);
    let image = image_with_home(&bench, "/opt/of/image");
    // It says of no home.
    let silent = "navvy/debian:bookworm";
    // Who, where their home is, and how they come by it.
    let jobs = [
        ("image", format!("{{image: '{image}'}}"), "", "/opt/of/image"),
        ("root", format!("{{image: '{image}', user: root}}"), "", "/opt/of/image"),
        ("number", format!("{{image: '{image}', user: '4242'}}"), "", "/opt/of/image"),
        ("passwd", format!("{{image: '{silent}', user: games}}"), "", "/usr/games"),
        ("roots", format!("{{image: '{silent}', user: root}}"), "", "/root"),
        ("nobodys", format!("{{image: '{silent}', user: '4242'}}"), "", ""),
        ("container", format!("{{image: '{silent}', environment: {{HOME: /opt/c}}}}"), "", "/opt/c"),
        ("own", format!("{{image: '{image}'}}"), "    environment: {HOME: /opt/own}\n", "/opt/own"),
    ];
    let mut config = "version: 2.1\njobs:\n".to_owned();
    for (name, image, more, _) in &jobs {
        config.push_str(&job(name, image, more));
    }
    config.push_str(&format!("workflows:\n  ci: {{jobs: [{}]}}\n", jobs.each_ref().map(|job| job.0).join(", ")));
    let done = bench.run_config(&config, &["--pull", "never"]);
    bench.docker().ask(&["rmi", &image]).succeeded();
    done.passes();
    for (name, _, _, home) in &jobs {
        let shown = if home.is_empty() { "/" } else { home };
        assert_eq!(done.text(name, "where"), format!("{home}/project\n{shown}\n{shown}\n"), "{name}");
        assert_eq!(done.text(name, "elsewhere"), format!("{home}/project/else/where\n"), "{name}");
        assert_eq!(done.text(name, "look"), "kept\n", "{name}");
        assert!(done.text(name, "save").contains("Stored Cache to "), "{name}: {}", done.text(name, "save"));
        for (step, said) in [("persist", "Persisted"), ("artifacts", "Uploaded 1 file"), ("results", "1 passed")] {
            assert!(done.text(name, step).contains(said), "{name}: {}", done.text(name, step));
        }
    }
}

#[test]
fn a_steps_own_home_is_where_its_directory_is() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: own, environment: {HOME: /tmp/own}, working_directory: ~/work, command: 'pwd; cd ~; pwd'}
      - run: {name: usual, working_directory: ~/work, command: 'pwd; cd ~; pwd'}
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    done.passes();
    assert_eq!(done.text("build", "own"), "/tmp/own/work\n/tmp/own\n");
    assert_eq!(done.text("build", "usual"), "/home/circleci/work\n/home/circleci\n");
}
