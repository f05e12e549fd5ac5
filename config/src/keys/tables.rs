//! The tables.

use super::table::Shape::{
    Any, Either, Integer, List, Map, Named, Null, Shared as Common, Template, Text, Texts, Truth, Words,
};
use super::table::{Key, Keys, Shape, Shared, key};

pub(crate) const JOB_TYPES: [&str; 6] = ["build", "approval", "no-op", "release", "lock", "unlock"];
pub(crate) const WHENS: [&str; 3] = ["on_success", "on_fail", "always"];
pub(crate) const CHECKOUT_METHODS: [&str; 3] = ["blobless", "full", "shallow"];
pub(crate) const PARAMETER_TYPES: [&str; 7] =
    ["string", "boolean", "integer", "enum", "executor", "steps", "env_var_name"];
/// Executors and the pipeline take values only.
pub(crate) const PLAIN_TYPES: [&str; 4] = ["string", "boolean", "integer", "enum"];

pub(crate) static TOP: Keys = Keys::new(
    "config",
    "A config of jobs and workflows. Other keys at the top may hold anchors.",
    &[
        key("version", Words(&["2.1", "2.0", "2"]), "Of the language: 2.1, or 2 for old files.").required(),
        key("setup", Truth, "This config makes the config of another pipeline."),
        key(
            "orbs",
            Named(&Either(&[Text, Map(&ORB)])),
            "Orbs by the name that they have here: `namespace/orb@version`, or written out.",
        ),
        key(
            "commands",
            Named(&Either(&[Map(&COMMAND), Common(&ELEMENT)])),
            "Lists of steps with a name and parameters.",
        ),
        key(
            "executors",
            Named(&Either(&[Map(&EXECUTOR), Common(&ELEMENT)])),
            "What jobs run in, with a name and parameters.",
        ),
        key("parameters", Named(&Map(&PIPELINE_PARAMETER)), "Parameters of the pipeline, given when it is triggered."),
        key("jobs", Named(&Either(&[Map(&JOB), Common(&ELEMENT)])), "Steps and what they run in, by name."),
        key("job-groups", Named(&Map(&JOB_GROUP)), "Jobs that a workflow uses together, by name."),
        key("workflows", Map(&WORKFLOWS), "Graphs of jobs, by name."),
        key("description", Text, "For people."),
    ],
);

static ELEMENT: Shared =
    Shared { id: "element", about: "The name of an element of an orb, `orb/name`: this one is the same.", shape: Text };

pub(crate) static ORB: Keys = Keys::new(
    "orb",
    "An orb that is written out.",
    &[
        key("orbs", Named(&Either(&[Text, Map(&ORB)])), "Orbs that this one uses."),
        key("executors", Named(&Either(&[Map(&EXECUTOR), Common(&ELEMENT)])), "Its executors."),
        key("commands", Named(&Either(&[Map(&COMMAND), Common(&ELEMENT)])), "Its commands."),
        key("jobs", Named(&Either(&[Map(&JOB), Common(&ELEMENT)])), "Its jobs."),
        key("description", Text, "For people."),
        key("display", Any, "For the registry."),
        key("examples", Any, "For people."),
        key("version", Text, "Of the language."),
    ],
);

pub(crate) static COMMAND: Keys = Keys::new(
    "command",
    "A list of steps with a name and parameters.",
    &[
        key("description", Text, "For people."),
        key("parameters", Named(&Map(&PARAMETER)), "What it can be given."),
        key("steps", Common(&STEPS), "What it stands for.").required(),
    ],
);

pub(crate) static EXECUTOR: Keys = Keys::new(
    "executor",
    "What a job runs in.",
    &[
        key("docker", DOCKER, "Containers: the first runs the steps, the others are services."),
        key("machine", MACHINE_VALUE, "A virtual machine."),
        key("macos", Map(&MACOS), "A machine with macOS."),
        key("resource_class", Text, "Its size."),
        key("shell", Texts, "The shell of `run` steps."),
        key("working_directory", Text, "Where steps start: `~/project` if nothing is said."),
        key("environment", Common(&ENVIRONMENT), "Variables of every step."),
        key("description", Text, "For people."),
        key("parameters", Named(&Map(&EXECUTOR_PARAMETER)), "What it can be given."),
    ],
);

pub(crate) static JOB: Keys = Keys::new(
    "job",
    "Steps, and what they run in.",
    &[
        key("type", Words(&JOB_TYPES), "What happens when its turn comes: its steps are run, if nothing is said."),
        key("description", Text, "For people."),
        key("docker", DOCKER, "Containers: the first runs the steps, the others are services."),
        key("machine", MACHINE_VALUE, "A virtual machine."),
        key("macos", Map(&MACOS), "A machine with macOS."),
        key(
            "executor",
            Either(&[Text, Map(&EXECUTOR_USE)]),
            "The executor that it runs in, by name or with arguments.",
        ),
        key("steps", Common(&STEPS), "What it does."),
        key("working_directory", Text, "Where steps start: `~/project` if nothing is said."),
        key("shell", Texts, "The shell of `run` steps."),
        key("environment", Common(&ENVIRONMENT), "Variables of every step; they win over those of the executor."),
        key("parallelism", Integer { least: 1, most: None }, "On how many nodes it runs side by side."),
        key("resource_class", Text, "Its size."),
        key("parameters", Named(&Map(&PARAMETER)), "What it can be given."),
        key("branches", Any, "Of times before workflows: on which branches it runs."),
        key("circleci_ip_ranges", Truth, "Traffic leaves by known addresses."),
        key("retention", Map(&RETENTION), "How long what it stores is kept."),
        key("plan_name", Text, "Of a `release` job."),
        key("validation", Any, "Of a `release` job: how it is looked at afterwards."),
        key("key", Text, "Of a `lock` or `unlock` job."),
        key("max_auto_reruns", Any, "Has no meaning here: it belongs to a step or to a workflow."),
    ],
)
.some_of(&["steps", "type"]);

pub(crate) static RETENTION: Keys =
    Keys::new("retention", "How long things are kept.", &[key("caches", Text, "Days: `7d`.")]);

pub(crate) static EXECUTOR_USE: Keys = Keys::new(
    "executor-use",
    "An executor with arguments: all keys but `name` are its parameters.",
    &[key("name", Either(&[Text, Any]), "Which executor.").required()],
);

const DOCKER: Shape = List(&Map(&CONTAINER), 1);
const MACHINE_VALUE: Shape = Either(&[Text, Map(&MACHINE)]);

pub(crate) static CONTAINER: Keys = Keys::new(
    "container",
    "A container.",
    &[
        key("image", Text, "Its image: `name:tag`, or `name@sha256:…`.").required(),
        key("name", Text, "The host name by which the others reach it, beside `localhost`."),
        key("entrypoint", Texts, "In place of the image's ENTRYPOINT."),
        key("command", Texts, "Arguments of the entrypoint."),
        key("user", Text, "Who runs it."),
        key("environment", Common(&ENVIRONMENT), "Variables of its main process."),
        key("auth", Map(&AUTH), "Who pulls the image; `$NAME` stands for a variable."),
        key("aws_auth", Map(&AWS_AUTH), "Who pulls the image from ECR: both keys, or a role."),
        key("gcp_auth", Map(&GCP_AUTH), "Who pulls the image from the Artifact Registry."),
    ],
);

pub(crate) static AUTH: Keys = Keys::new(
    "auth",
    "Who logs in to a registry.",
    &[key("username", Text, "The name.").required(), key("password", Text, "The password: `$NAME`.").required()],
);

pub(crate) static AWS_AUTH: Keys = Keys::new(
    "aws-auth",
    "Who logs in to ECR.",
    &[
        key("aws_access_key_id", Text, "The key's id."),
        key("aws_secret_access_key", Text, "The key: `$NAME`."),
        key("oidc_role_arn", Text, "The role, in place of a key."),
    ],
);

pub(crate) static GCP_AUTH: Keys = Keys::new(
    "gcp-auth",
    "Who logs in to the Artifact Registry.",
    &[
        key("oidc_service_account", Text, "The service account."),
        key("workload_identity_pool", Text, "Its pool."),
        key("workload_identity_provider", Text, "Its provider."),
    ],
);

pub(crate) static MACHINE: Keys = Keys::new(
    "machine",
    "A virtual machine.",
    &[
        key("image", Text, "Its image: `ubuntu-2404:current`."),
        key("docker_layer_caching", Truth, "Layers of images that it builds are kept."),
        key("resource_class", Text, "Its size."),
        key("shell", Text, "The shell of `run` steps."),
        key("enabled", Truth, "Old; has no meaning."),
        key("reusable", Truth, "Old name of `docker_layer_caching`."),
        key("exclusive", Truth, "Old; has no meaning."),
    ],
);

pub(crate) static MACOS: Keys = Keys::new(
    "macos",
    "A machine with macOS.",
    &[
        key("xcode", Text, "The version of Xcode.").required(),
        key("resource_class", Text, "Its size."),
        key("shell", Text, "The shell of `run` steps."),
        key("code_signing", Any, "Signing bundles."),
    ],
);

pub(crate) static PARAMETER: Keys = Keys::new(
    "parameter",
    "What a job or command can be given.",
    &[
        key("type", Words(&PARAMETER_TYPES), "Which values it takes.").required(),
        key("default", Any, "Default value. A parameter without one is required."),
        key("description", Text, "For people."),
        key("enum", List(&Text, 1), "The values of an `enum`."),
    ],
);

pub(crate) static EXECUTOR_PARAMETER: Keys = Keys::new(
    "executor-parameter",
    "What an executor can be given.",
    &[
        key("type", Words(&PLAIN_TYPES), "Which values it takes.").required(),
        key("default", Any, "Default value. A parameter without one is required."),
        key("description", Text, "For people."),
        key("enum", List(&Text, 1), "The values of an `enum`."),
    ],
);

pub(crate) static PIPELINE_PARAMETER: Keys = Keys::new(
    "pipeline-parameter",
    "What a pipeline can be given.",
    &[
        key("type", Words(&PLAIN_TYPES), "Which values it takes.").required(),
        key("default", Any, "Its value if it is not given.").required(),
        key("description", Text, "For people."),
        key("enum", List(&Text, 1), "The values of an `enum`."),
    ],
);

pub(crate) static JOB_GROUP: Keys = Keys::new(
    "job-group",
    "Jobs that a workflow uses together.",
    &[key("jobs", List(&Common(&INVOCATION_ITEM), 1), "The jobs of the group.").required()],
);

pub(crate) static WORKFLOWS: Keys =
    Keys::new("workflows", "Graphs of jobs, by name.", &[key("version", Any, "Old; has no meaning in version 2.1.")])
        .rest(&Map(&WORKFLOW));

pub(crate) static WORKFLOW: Keys = Keys::new(
    "workflow",
    "A graph of jobs.",
    &[
        key("jobs", List(&Common(&INVOCATION_ITEM), 1), "The jobs, by name or with keys.").required(),
        key("when", Common(&CONDITION), "It runs only if this holds: a logic statement or an expression."),
        key("unless", Common(&CONDITION), "It runs only if this does not hold."),
        key("triggers", List(&Map(&TRIGGER), 0), "What starts it in place of a push."),
        key("max_auto_reruns", Integer { least: 1, most: Some(5) }, "How often it is run again when it fails."),
        key("serial-group", Any, "Has no meaning here: it belongs to a job of the workflow."),
    ],
);

pub(crate) static TRIGGER: Keys =
    Keys::new("trigger", "What starts a workflow.", &[key("schedule", Map(&SCHEDULE), "A time.")]);

pub(crate) static SCHEDULE: Keys = Keys::new(
    "schedule",
    "When a workflow starts, and on which branches.",
    &[
        key("cron", Text, "Minute, hour, day, month, weekday, in UTC.").required(),
        key("filters", Map(&FILTERS), "The branches."),
    ],
);

pub(crate) static INVOCATION_ITEM: Shared = Shared {
    id: "workflow-job",
    about: "A job by its name, or a map with its name as the first key.",
    shape: Either(&[Text, Map(&NAMED_INVOCATION)]),
};

static NAMED_INVOCATION: Keys =
    Keys::first("named-invocation", "The job's name is the first key; further ones are ignored.", &[])
        .rest(&Either(&[Map(&INVOCATION), Null]));

pub(crate) static INVOCATION: Keys = Keys::new(
    "invocation",
    "How a workflow uses a job. All other keys are the job's parameters.",
    &[
        key("requires", Common(&REQUIRES), "Jobs that must have ended before it starts, with success or as is said."),
        key("name", Text, "Its name in the workflow."),
        key("context", Texts, "Contexts whose variables it gets; later ones win."),
        key("type", Words(&["approval"]), "It waits for a person."),
        key("filters", Either(&[Text, Map(&FILTERS)]), "Branches and tags on which it runs, or an expression."),
        key("matrix", Map(&MATRIX), "One job for every combination of these values."),
        key("pre-steps", Common(&STEPS), "Steps before those of the job."),
        key("post-steps", Common(&STEPS), "Steps after those of the job."),
        key("serial-group", Text, "Jobs of one key run one after another, in whichever pipeline."),
        key("override-with", Text, "An orb's job that replaces this one, if there is one."),
    ],
);

static REQUIRES: Shared = Shared {
    id: "requires",
    about: "Names of jobs; `name: failed` for another end than success.",
    shape: Either(&[Text, Named(&Texts), List(&Common(&REQUIRES), 0)]),
};

pub(crate) static MATRIX: Keys = Keys::new(
    "matrix",
    "One job for every combination of values.",
    &[
        key("parameters", Named(&Either(&[List(&Any, 1), Template])), "Lists of values by parameter.").required(),
        key(
            "exclude",
            List(&Either(&[Named(&Any), Template]), 0),
            "Combinations that are left out, each with all parameters.",
        ),
        key("alias", Text, "Name by which others require all of them."),
    ],
);

pub(crate) static FILTERS: Keys = Keys::new(
    "filters",
    "Branches and tags on which a job runs. Without a tag filter it runs on no tags.",
    &[key("branches", Map(&FILTER), "Without it: every branch."), key("tags", Map(&FILTER), "Without it: no tag.")],
);

pub(crate) static FILTER: Keys = Keys::new(
    "filter",
    "Names, or regular expressions between slashes, which must match the whole name.",
    &[key("only", Texts, "These alone."), key("ignore", Texts, "All but these.")],
);

pub(crate) static STEPS: Shared = Shared {
    id: "steps",
    about: "Steps in their order; lists in the list are spliced in.",
    shape: Either(&[Template, List(&Either(&[Text, Map(&STEP), Common(&STEPS)]), 0)]),
};

/// Other keys are commands, with a map of arguments or nothing.
pub(crate) static STEP: Keys = Keys::first(
    "step",
    "A step: its first key is its kind; further ones are ignored. Other keys are commands with their arguments.",
    &[
        key("run", Either(&[Text, Map(&RUN)]), "Runs a command in a shell."),
        key("deploy", Either(&[Text, Map(&RUN)]), "Old name of `run`."),
        key("checkout", Map(&CHECKOUT), "Fetches the project's files."),
        key("setup_remote_docker", Map(&SETUP_REMOTE_DOCKER), "A Docker engine for the steps that follow."),
        key("save_cache", Map(&SAVE_CACHE), "Stores files under a key, for later jobs of any pipeline."),
        key("restore_cache", Map(&RESTORE_CACHE), "Brings back the newest files stored under a key."),
        key("persist_to_workspace", Map(&PERSIST_TO_WORKSPACE), "Stores files for later jobs of the workflow."),
        key("attach_workspace", Map(&ATTACH_WORKSPACE), "Brings back what earlier jobs of the workflow stored."),
        key("store_artifacts", Map(&STORE_ARTIFACTS), "Stores files for people."),
        key("store_test_results", Map(&STORE_TEST_RESULTS), "Stores the results of tests, as JUnit XML."),
        key("add_ssh_keys", Map(&ADD_SSH_KEYS), "Adds the project's SSH keys."),
        key("install_signing_bundle", Map(&INSTALL_SIGNING_BUNDLE), "Installs a signing bundle on macOS."),
        key("when", Map(&CONDITIONAL), "Steps, if a condition holds."),
        key("unless", Map(&CONDITIONAL), "Steps, if a condition does not hold."),
        key("steps", Common(&STEPS), "Steps of a parameter."),
    ],
);

pub(crate) static CONDITIONAL: Keys = Keys::new(
    "conditional",
    "Steps on a condition, which is decided before anything runs.",
    &[
        key("condition", Common(&CONDITION), "A logic statement.").required(),
        key("steps", Either(&[Common(&STEPS), Map(&STEP), Null]), "The steps; one alone may stand without a list.")
            .required(),
    ],
);

pub(crate) static CONDITION: Shared = Shared {
    id: "condition",
    about: "A value that is true or not, or a map with one operator.",
    shape: Either(&[Text, Map(&LOGIC)]),
};

pub(crate) static LOGIC: Keys = Keys::single(
    "logic",
    "One operator.",
    &[
        key("and", List(&Common(&CONDITION), 1), "All hold."),
        key("or", List(&Common(&CONDITION), 1), "One holds."),
        key("not", Common(&CONDITION), "It does not hold."),
        key("equal", List(&Any, 1), "All values are equal."),
        key("matches", Map(&MATCHES), "A regular expression matches the whole value."),
    ],
);

pub(crate) static MATCHES: Keys = Keys::new(
    "matches",
    "A pattern and a value.",
    &[key("pattern", Text, "A regular expression.").required(), key("value", Text, "What it must match.").required()],
);

static ENVIRONMENT: Shared = Shared {
    id: "environment",
    about: "Variables: a map, a list of maps, or a list of `NAME=value`.",
    shape: Either(&[Text, Named(&VARIABLE), List(&Either(&[Text, Named(&VARIABLE)]), 0)]),
};

static VARIABLE: Shape = Either(&[Text, Null]);

const NAME: Key = key("name", Text, "Shown to people.");
const WHEN: Key =
    key("when", Words(&WHENS), "Whether it runs when an earlier step failed: `on_success`, if nothing is said.");

pub(crate) static RUN: Keys = Keys::new(
    "run",
    "A command in a shell.",
    &[
        key("command", Text, "What is run.").required(),
        NAME,
        key("shell", Text, "The shell with its arguments."),
        key("environment", Common(&ENVIRONMENT), "Variables of this step."),
        key("background", Truth, "The next step starts at once."),
        key("working_directory", Text, "Where it starts."),
        key("no_output_timeout", Text, "It ends when it writes nothing for so long: `10m`, if nothing is said."),
        WHEN,
        key("max_auto_reruns", Integer { least: 1, most: Some(5) }, "How often it is run again when it fails."),
        key("auto_rerun_delay", Text, "How long before it is run again: `30s`, up to `10m`."),
    ],
);

pub(crate) static CHECKOUT: Keys = Keys::new(
    "checkout",
    "Fetches the project's files.",
    &[
        key("path", Text, "Where they go: the working directory, if nothing is said."),
        key("method", Words(&CHECKOUT_METHODS), "How much of the history is fetched."),
        key("depth", Integer { least: 1, most: None }, "How many commits a `shallow` checkout fetches."),
        NAME,
        WHEN,
    ],
);

pub(crate) static SETUP_REMOTE_DOCKER: Keys = Keys::new(
    "setup_remote_docker",
    "A Docker engine for the steps that follow.",
    &[
        key("docker_layer_caching", Truth, "Layers of images that it builds are kept."),
        key("version", Text, "Of Docker."),
        key("prefer_same_region", Truth, "Near to the job."),
        key("reusable", Truth, "Old name of `docker_layer_caching`."),
        key("exclusive", Truth, "Old; has no meaning."),
        NAME,
        WHEN,
    ],
);

pub(crate) static SAVE_CACHE: Keys = Keys::new(
    "save_cache",
    "Stores files under a key.",
    &[
        key("key", Text, "The key, with templates such as `{{ checksum \"go.sum\" }}`.").required(),
        key("paths", Texts, "Which files.").required(),
        NAME,
        WHEN,
    ],
);

pub(crate) static RESTORE_CACHE: Keys = Keys::new(
    "restore_cache",
    "Brings back the newest files stored under a key.",
    &[
        key("key", Text, "The key, or its beginning."),
        key("keys", Texts, "Keys in the order in which they are tried."),
        NAME,
        WHEN,
    ],
)
.some_of(&["key", "keys"]);

pub(crate) static PERSIST_TO_WORKSPACE: Keys = Keys::new(
    "persist_to_workspace",
    "Stores files for later jobs of the workflow.",
    &[
        key("root", Text, "The directory that paths start from.").required(),
        key("paths", Texts, "Which files below it.").required(),
        NAME,
        WHEN,
    ],
);

pub(crate) static ATTACH_WORKSPACE: Keys = Keys::new(
    "attach_workspace",
    "Brings back what earlier jobs of the workflow stored.",
    &[key("at", Text, "Where it goes.").required(), NAME, WHEN],
);

pub(crate) static STORE_ARTIFACTS: Keys = Keys::new(
    "store_artifacts",
    "Stores files for people.",
    &[
        key("path", Text, "A file or a directory.").required(),
        key("destination", Text, "Its name among the artifacts."),
        NAME,
        WHEN,
    ],
);

pub(crate) static STORE_TEST_RESULTS: Keys = Keys::new(
    "store_test_results",
    "Stores the results of tests.",
    &[key("path", Text, "A file of JUnit XML, or a directory of such files.").required(), NAME, WHEN],
);

pub(crate) static ADD_SSH_KEYS: Keys =
    Keys::new("add_ssh_keys", "Adds the project's SSH keys.", &[key("fingerprints", Texts, "Which keys."), NAME, WHEN]);

pub(crate) static INSTALL_SIGNING_BUNDLE: Keys =
    Keys::new("install_signing_bundle", "Installs a signing bundle.", &[NAME, WHEN]);
