//! Plans as JSON: what a reviewer of a change here wants to see.

use std::path::Path;

use super::*;

fn machine() -> Machine {
    Machine {
        task: "0123456789abcdef".parse().unwrap(),
        owner: "machine/boot/1/2/3".into(),
        is_adoptable: false,
        entry: Entry::Mounts { bin: "/state/bin/d1".into(), run: "/run/navvy/0123456789abcdef".into() },
        network: "navvy".into(),
        cgroup_parent: None,
        size: Size { millicpus: 1500, memory: 1 << 30 },
        pids: 500,
        idle_limit_s: 600,
        has_all_ids: true,
        egress: Given::default(),
        authorities: None,
    }
}

fn container(image: &str) -> Container {
    Container { image: image.into(), ..Container::default() }
}

/// An image as convenience images are: a user of its own and an entrypoint that nobody wants in a primary.
fn cimg() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/bin".into()],
        entrypoint: vec!["/entry".into()],
        command: vec!["serve".into()],
        user: "circleci".into(),
        ..ImageConfig::default()
    }
}

fn postgres() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["docker-entrypoint.sh".into()],
        command: vec!["postgres".into()],
        exposed_ports: vec!["5432/tcp".into()],
        volumes: vec!["/var/lib/postgresql/data".into()],
        ..ImageConfig::default()
    }
}

fn planned(containers: &[Container], images: &[ImageConfig]) -> Plan {
    plan(containers, images, &machine()).unwrap()
}

fn primary(container: Container, image: ImageConfig) -> ContainerPlan {
    planned(&[container], &[image]).containers.remove(0)
}

#[test]
fn a_plain_job() {
    insta::assert_json_snapshot!(planned(&[container("cimg/base")], &[cimg()]));
}

#[test]
fn steps_of_root_gain_no_new_privileges() {
    for user in ["", "root", "0", "0:0", "root:wheel"] {
        let image = ImageConfig { user: user.into(), ..ImageConfig::default() };
        let planned = planned(&[container("debian")], &[image]);
        assert!(planned.containers[0].no_new_privileges, "{user:?}");
        assert_eq!(planned.step_user, None, "{user:?}");
    }
    // The config's user wins, either way round; others need their sudo.
    let root = Container { user: Some("root".into()), ..container("cimg/base") };
    assert!(primary(root, cimg()).no_new_privileges);
    let other = Container { user: Some("1000:5".into()), ..container("debian") };
    assert!(!primary(other, ImageConfig::default()).no_new_privileges);
}

#[test]
fn services_share_the_primarys_network() {
    let named = Container {
        name: Some("db".into()),
        environment: vec![("POSTGRES_PASSWORD".into(), "x".into())],
        ..container("postgres")
    };
    insta::assert_json_snapshot!(planned(
        &[container("cimg/base"), named, container("redis")],
        &[cimg(), postgres(), cimg()]
    ));
}

#[test]
fn an_entrypoint_is_the_supervisors_child_when_asked_for() {
    let mut labelled = cimg();
    labelled.labels.insert("com.circleci.preserve-entrypoint".into(), "true".into());
    let with_variables = Container { environment: vec![("A".into(), "1".into())], ..container("cimg/base") };
    insta::assert_json_snapshot!(primary(with_variables.clone(), labelled).entrypoint, @r#"
    [
      "/opt/navvy/bin/navvy-supervisor",
      "init",
      "--run-dir",
      "/opt/navvy/run",
      "--idle-limit",
      "600",
      "--user",
      "circleci",
      "--",
      "/entry",
      "serve"
    ]
    "#);
    // Only then do the config's variables go into the container itself.
    assert_eq!(primary(with_variables.clone(), cimg()).env, Vec::<String>::new());
    let asked = Container { entrypoint: Some(vec!["/own".into()]), ..with_variables };
    assert_eq!(primary(asked, cimg()).env, ["A=1"]);
}

#[test]
fn dockers_rules_join_entrypoint_and_command() {
    let child = |entrypoint: Option<&str>, command: Option<&str>| {
        let words = |text: Option<&str>| text.map(|text| text.split(' ').map(str::to_owned).collect());
        let asked = Container { entrypoint: words(entrypoint), command: words(command), ..container("i") };
        main_process(&asked, &cimg()).join(" ")
    };
    assert_eq!(child(None, None), "/entry serve");
    assert_eq!(child(Some("/own"), None), "/own");
    assert_eq!(child(None, Some("a b")), "/entry a b");
    assert_eq!(child(Some("/own"), Some("a b")), "/own a b");
}

#[test]
fn a_services_command_and_user_are_the_configs() {
    let service =
        Container { command: Some(vec!["-p".into(), "1".into()]), user: Some("postgres".into()), ..container("pg") };
    let service = planned(&[container("cimg/base"), service], &[cimg(), postgres()]).containers.remove(1);
    assert_eq!(service.entrypoint, None);
    assert_eq!(service.command.unwrap(), ["-p", "1"]);
    assert_eq!(service.user.as_deref(), Some("postgres"));
    assert!(!service.no_new_privileges);
}

#[test]
fn what_cannot_be_mounted_is_uploaded() {
    let machine = Machine { entry: Entry::Upload, ..machine() };
    let planned = plan(&[container("cimg/base")], &[cimg()], &machine).unwrap();
    assert_eq!(planned.containers[0].mounts, []);
    assert_eq!(planned.containers[0].entrypoint.as_ref().unwrap()[0], SUPERVISOR);
}

#[test]
fn a_parent_cgroup_holds_every_container() {
    let machine = Machine { cgroup_parent: Some("/navvy/task-x".into()), ..machine() };
    let planned = plan(&[container("a"), container("pg")], &[cimg(), postgres()], &machine).unwrap();
    assert!(planned.containers.iter().all(|c| c.cgroup_parent.as_deref() == Some("/navvy/task-x")));
}

#[test]
fn shared_memory_is_half_and_never_less_than_dockers() {
    let tiny = Machine { size: Size { millicpus: 1000, memory: 100 << 20 }, ..machine() };
    assert_eq!(plan(&[container("a")], &[cimg()], &tiny).unwrap().containers[0].shm_size, 64 << 20);
    assert_eq!(primary(container("a"), cimg()).shm_size, 512 << 20);
}

fn two_services(first: Container, second: Container) -> Result<Plan, String> {
    let images = [cimg(), postgres(), postgres()];
    plan(&[container("cimg/base"), first, second], &images, &machine()).map_err(|e| e.to_string())
}

fn named(name: &str) -> Container {
    Container { name: Some(name.into()), ..container("postgres") }
}

#[test]
fn two_named_services_on_one_port_are_refused() {
    insta::assert_snapshot!(two_services(named("a"), named("b")).unwrap_err(), @r#"services "a" and "b" both listen on port 5432/tcp: all containers of a job share one network, so the second would fail to start; give one of them another port by its command or environment"#);
    // Without names the second one's log shows it, as on the real service.
    assert_eq!(two_services(named("a"), container("postgres")).unwrap().notes, Vec::<String>::new());
    // One that is told how to run may well listen elsewhere.
    let moved = Container { environment: vec![("PGPORT".into(), "5433".into())], ..named("b") };
    insta::assert_snapshot!(two_services(named("a"), moved).unwrap().notes[0], @"Services a and b may both listen on port 5432/tcp; they share one network");
}

#[test]
fn names_are_host_names_and_unique() {
    assert!(two_services(named("a:1.2.3.4"), container("x")).unwrap_err().contains("is not a host name"));
    assert!(two_services(named("a"), named("a")).unwrap_err().contains("named twice"));
}

#[test]
fn a_service_with_nothing_to_run_is_refused() {
    let images = [cimg(), ImageConfig::default()];
    let error = plan(&[container("a"), container("scratch")], &images, &machine()).unwrap_err();
    assert_eq!(error, PlanError::NothingToRun { image: "scratch".into() });
}

#[test]
fn working_directories_among_open_files_are_known_whatever_they_look_like() {
    for hostile in ["/proc/self/fd/8", "//proc/./self/fd/8", "/x/../proc/self/fd/8", "/../proc/1/root", "/dev/fd/8"] {
        assert!(leads_into_processes(hostile), "{hostile}");
    }
    for usual in ["", "/", "/app", "/processes", "/home/proc", "/proc/..", "/dev"] {
        assert!(!leads_into_processes(usual), "{usual}");
    }
}

#[test]
fn services_are_given_proxies_and_authorities_where_neither_image_nor_config_sets_them() {
    let given = [("HTTP_PROXY", "ours"), ("http_proxy", "ours"), ("PIP_CERT", "/opt/navvy/ca/bundle.pem")];
    let below_image = given.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let over_image = vec![("NO_PROXY".to_owned(), "docker's".to_owned())];
    let egress = Given { over_image, below_image };
    let machine = Machine { egress, authorities: Some("/state/ca/d1".into()), ..machine() };
    let own = Container { environment: vec![("http_proxy".into(), "theirs".into())], ..container("other") };
    let quiet = ImageConfig { env: vec!["PIP_CERT=/image".into(), "NO_PROXY=image".into()], ..postgres() };
    let made = |machine: &Machine| {
        let containers = [container("cimg/base"), container("postgres"), own.clone()];
        plan(&containers, &[cimg(), quiet.clone(), postgres()], machine).unwrap().containers
    };
    let containers = made(&machine);
    let (primary, first, second) = (&containers[0], &containers[1], &containers[2]);
    assert!(primary.env.is_empty(), "its steps are given theirs by the agent");
    assert_eq!(first.env, ["NO_PROXY=docker's", "HTTP_PROXY=ours", "http_proxy=ours"]);
    assert_eq!(second.env, ["http_proxy=theirs", "NO_PROXY=docker's", "PIP_CERT=/opt/navvy/ca/bundle.pem"]);
    for container in &containers {
        let mount = container.mounts.iter().find(|mount| mount.target == CA_DIR).expect("each has the bundle");
        assert!(mount.read_only && mount.source == Path::new("/state/ca/d1"), "{mount:?}");
    }
    let uploaded = made(&Machine { entry: Entry::Upload, ..machine });
    assert!(uploaded.iter().all(|container| container.mounts.is_empty()));
    assert_eq!(uploaded[1].env, first.env);
}

#[test]
fn a_service_is_called_as_the_config_calls_it_whatever_image_stands_in() {
    let replaced = Container {
        image: "postgres:15".to_owned(),
        in_place_of: Some("cimg/postgres:15.3".to_owned()),
        ..Container::default()
    };
    assert_eq!(super::service_title(&replaced), "cimg/postgres:15.3");
    let named = Container { name: Some("db".to_owned()), ..replaced };
    assert_eq!(super::service_title(&named), "db");
}

#[test]
fn ports_of_an_image_with_thousands_are_summed_up_in_one_line() {
    let wide = ImageConfig { exposed_ports: (0..10_000).map(|n| format!("{n}/tcp")).collect(), ..postgres() };
    let services = (0..12).map(|n| Container { command: Some(vec!["serve".into()]), ..named(&format!("s{n:02}")) });
    let containers: Vec<_> = [container("cimg/base")].into_iter().chain(services).collect();
    let images: Vec<_> = [cimg()].into_iter().chain(std::iter::repeat_n(wide, 12)).collect();
    let notes = planned(&containers, &images).notes;
    insta::assert_snapshot!(notes.join("\n"), @"Several services may listen on the same ports, and share one network: s00, s01, s02 and 9 more, on 0/tcp, 1/tcp, 10/tcp and 9997 more");
    let sure: Vec<_> = containers.iter().map(|c| Container { command: None, ..c.clone() }).collect();
    let error = plan(&sure, &images, &machine()).unwrap_err();
    assert!(matches!(&error, PlanError::PortClash { port, .. } if port == "0/tcp"), "{error}");
    // What an image calls a port is not believed to be short.
    let long = ImageConfig { exposed_ports: vec!["9".repeat(1 << 20)], ..postgres() };
    let note =
        planned(&containers, &std::iter::once(cimg()).chain(std::iter::repeat_n(long, 12)).collect::<Vec<_>>()).notes;
    assert!(note[0].len() < 200, "{}", note[0].len());
}

#[test]
fn what_an_image_cannot_have_is_its_own_fault() {
    let said = |image: ImageConfig, role: usize| {
        let mut images = [cimg(), postgres()];
        images[role] = ImageConfig { entrypoint: vec!["/e".into()], ..image };
        plan(&[container("cimg/base"), container("pg")], &images, &machine()).map(drop).map_err(|e| e.to_string())
    };
    let env = |text: &str| ImageConfig { env: vec!["A=1".into(), text.into()], ..cimg() };
    let volume = |path: &str| ImageConfig { volumes: vec!["/data".into(), path.into()], ..cimg() };
    for role in [0, 1] {
        for odd in [env("=x"), env("A\0B=1"), env("A=1\0"), env(&format!("A={}", "x".repeat(128 << 10)))] {
            assert!(said(odd, role).unwrap_err().contains("cannot run as a container"), "{role}");
        }
        let large = (0..3_000).map(|n| format!("V{n}={}", "x".repeat(1_000))).collect();
        assert!(said(ImageConfig { env: large, ..cimg() }, role).unwrap_err().contains("its variables have"));
        let many = (0..101).map(|n| format!("/v{n}")).collect();
        assert!(said(ImageConfig { volumes: many, ..cimg() }, role).unwrap_err().contains("101 volumes"));
        for path in ["/", "//.", "/proc", "/a/../proc/self/", "/proc/1", "/dev/", "/opt/navvy/ca/bundle.pem"] {
            assert!(said(volume(path), role).unwrap_err().contains("it wants a volume at"), "{path}");
        }
        for usual in
            ["/sys/fs/cgroup", "/dev/shm", "/opt", "/opt/navvy", "/processes", "/devices", "relative", "/opt/navvy/ca"]
        {
            assert_eq!(said(volume(usual), role), Ok(()), "{usual}");
        }
        for usual in ["", "A", "A=", "A==", "A\nB=1"] {
            assert_eq!(said(env(usual), role), Ok(()), "{usual:?}");
        }
    }
    for ours in ["/opt/navvy/bin/navvy-supervisor", "/opt/navvy/run/x/y", "/opt/./navvy/x/../run/control.sock"] {
        assert!(said(volume(ours), 0).unwrap_err().contains("the supervisor"), "{ours}");
        assert_eq!(said(volume(ours), 1), Ok(()), "{ours}");
    }
    insta::assert_snapshot!(said(volume("/opt/navvy/run/x"), 0).unwrap_err(), @r#"image cimg/base cannot run as a container: it wants a volume at "/opt/navvy/run/x", where the supervisor is; this can only be fixed in the image"#);
}

#[test]
fn what_the_engine_needs_for_services_is_a_part_of_the_class() {
    let left = |memory: u64, services: usize| {
        let size = without_engines_share(Size { millicpus: 1000, memory }, services);
        assert_eq!(size.millicpus, 1000);
        size.memory
    };
    assert_eq!(left(2 << 30, 0), 2 << 30, "a job without services has its whole class");
    assert_eq!(left(2 << 30, 50), (2 << 30) - (250 << 20));
    assert_eq!(left(100 << 20, 50), 50 << 20);
}
