//! Plain scalars that YAML 1.1 reads as something else than what stands there.

use navvy_config::{Inputs, Source, compile};

use super::{codes, job, pipeline, selected, shown, steps, workflow};

/// What variables come to whose values are written like this.
fn variables(written: &[&str]) -> Vec<String> {
    let lines: String = written.iter().enumerate().map(|(index, value)| format!("      V{index}: {value}\n")).collect();
    let text = format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n    environment:\n{lines}    steps: [checkout]\n"
    );
    job(&text, "build").environment.into_iter().map(|(_, value)| value).collect()
}

/// Is a workflow with this condition part of the pipeline's run?
fn runs(condition: &str) -> bool {
    let head = "version: 2.1\nparameters: {up: {type: boolean, default: true}, s: {type: string, default: 'on'}}";
    let jobs = "jobs: {j: {type: no-op}}";
    let pipeline = pipeline(&format!("{head}\n{jobs}\nworkflows: {{w: {{when: {condition}, jobs: [j]}}}}"));
    pipeline.workflows[0].selected.is_selected()
}

/// The command of a run step that shows a parameter of this type and with this default.
fn parameter(declared: &str) -> Result<String, String> {
    let text = format!(
        "version: 2.1\ncommands: {{c: {{parameters: {{p: {{{declared}}}}}, steps: [{{run: 'is << parameters.p >>'}}]}}}}\n\
         jobs: {{build: {{docker: [{{image: i}}], steps: [c]}}}}"
    );
    let source = Source { name: "config.yml", text: &text };
    let outcome = compile(&source, &Inputs::default());
    match &outcome.pipeline {
        Some(_) => Ok(shown(&job(&text, "build").steps)[0].to_owned()),
        None => Err(outcome.diagnostics[0].message.clone()),
    }
}

#[test]
fn variables_are_what_yaml_reads() {
    let words = ["on", "Yes", "TRUE", "no", "Off", "FALSE", "y", "N", "\"on\"", "'no'"];
    assert_eq!(
        variables(&words),
        ["true", "true", "true", "false", "false", "false", "y", "N", "on", "no"],
        "{words:?}"
    );
    let numbers =
        ["010", "1_000", "0b1", "1:30", "0x1F", "+5", "08", "0o17", "3.10", "1_000.5", "5432:5432", "\"010\""];
    let read = ["8", "1000", "1", "90", "31", "5", "08", "0o17", "3.1", "1000.5", "5432:5432", "010"];
    assert_eq!(variables(&numbers), read, "{numbers:?}");
}

#[test]
fn a_number_beyond_64_bits_stays_as_written() {
    let numbers = ["0x21DF875603Ba765a15F9ae20e633D2DAe42952d9", "12345678901234567890123"];
    assert_eq!(variables(&numbers), numbers);
}

#[test]
fn conditions_are_what_yaml_reads() {
    for (condition, holds) in [
        ("no", false),
        ("Off", false),
        ("yes", true),
        ("'no'", true),
        ("0x0", false),
        ("00", false),
        ("{equal: [yes, << pipeline.parameters.up >>]}", true),
        ("{equal: [no, << pipeline.parameters.up >>]}", false),
        ("{equal: [on, << pipeline.parameters.s >>]}", false),
        ("{equal: ['on', << pipeline.parameters.s >>]}", true),
        ("{equal: [010, 8]}", true),
        ("{equal: [1:30, 90]}", true),
        ("{and: [yes, {not: no}]}", true),
        ("{equal: [[on, 010], [true, 8]]}", true),
    ] {
        // A quoted text alone is an expression.
        let condition = if condition == "'no'" { "{and: ['no']}" } else { condition };
        assert_eq!(runs(condition), holds, "{condition}");
    }
    let top = "";
    assert!(shown(&steps(top, "- when: {condition: no, steps: [{run: left}]}\n- run: kept")) == ["kept"]);
    assert!(shown(&steps(top, "- unless: {condition: off, steps: [{run: in}]}")) == ["in"]);
}

#[test]
fn parameters_are_what_yaml_reads() {
    for word in ["yes", "No", "on", "OFF", "010", "1_000", "0b1", "1:30", "0x1F"] {
        let told = parameter(&format!("type: string, default: {word}")).unwrap_err();
        assert!(told.starts_with(&format!("parameter `p` must be a string, but YAML reads `{word}` as a")), "{told}");
        assert_eq!(parameter(&format!("type: string, default: '{word}'")).unwrap(), format!("is {word}"));
    }
    assert!(parameter("type: env_var_name, default: ON").unwrap_err().contains("but YAML reads `ON` as a boolean"));
    assert!(parameter("type: boolean, default: y").is_err());
    for (declared, shown) in [
        ("type: string, default: y", "is y"),
        ("type: string, default: 08", "is 08"),
        ("type: boolean, default: on", "is true"),
        ("type: integer, default: 010", "is 8"),
        ("type: integer, default: 1_000", "is 1000"),
        ("type: enum, enum: [on, off], default: on", "is true"),
        ("type: enum, enum: ['on', 'off'], default: 'on'", "is on"),
        ("type: enum, enum: [3.9, 3.10], default: 3.10", "is 3.1"),
        ("type: enum, enum: ['3.9'], default: 3.9", "is 3.9"),
    ] {
        assert_eq!(parameter(declared).unwrap(), shown, "{declared}");
    }
    let told = parameter("type: enum, enum: ['on', 'off'], default: on").unwrap_err();
    assert_eq!(told, "YAML reads `on` as a boolean, which is not a value of enum `p`: `on`, `off`");
}

#[test]
fn an_enum_of_booleans_equals_booleans() {
    let top = "commands: {c: {parameters: {p: {type: enum, enum: [on, off], default: off}}, steps: [\
               {when: {condition: {equal: [on, << parameters.p >>]}, steps: [{run: up}]}}]}}";
    assert_eq!(shown(&steps(top, "- c: {p: on}\n- c")), ["up"]);
}

#[test]
fn a_value_given_from_outside_is_as_written() {
    let text = "version: 2.1\nparameters: {n: {type: integer, default: 1}, e: {type: enum, enum: [on, off], default: off}, s: {type: string, default: ''}}\n\
                jobs: {build: {docker: [{image: i}], steps: [{run: '<< pipeline.parameters.n >> << pipeline.parameters.e >> << pipeline.parameters.s >>'}]}}";
    let given = [("n", "010"), ("e", "on"), ("s", "yes")];
    let parameters = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let pipeline = super::pipeline_of(text, &Inputs { parameters, ..Inputs::default() });
    let build = super::job_of(&pipeline.workflows[0], "build");
    assert_eq!(shown(&build.steps), ["10 true yes"]);
}

#[test]
fn names_of_matrix_jobs_hold_values() {
    let text = "version: 2.1\njobs: {j: {parameters: {up: {type: boolean}, n: {type: integer}}, docker: [{image: i}], steps: [checkout]}}\n\
                workflows: {w: {jobs: [{j: {matrix: {parameters: {up: [yes, no], n: [010]}}}}]}}";
    assert_eq!(selected(&workflow(text)), ["j-8-true", "j-8-false"]);
}

#[test]
fn a_word_is_told_unless_a_boolean_is_wanted() {
    let with = |job: &str| format!("version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n    {job}\n");
    let silent = [
        "steps: [{run: {command: x, background: yes}}]",
        "steps: [{setup_remote_docker: {docker_layer_caching: off}}, {run: {command: x, name: \"on\"}}]",
        "environment: {A: \"on\", B: y, C: true, D: 12, E: '2024-01-31'}\n    steps: [checkout]",
    ];
    silent.iter().for_each(|job| assert_eq!(codes(&with(job)), [""; 0], "{job}"));
    for (job, code) in [
        ("environment: {A: on}\n    steps: [checkout]", "word-rewritten"),
        ("environment: {A: 010}\n    steps: [checkout]", "number-rewritten"),
        ("environment: {A: 2024-01-31}\n    steps: [checkout]", "date-unquoted"),
        ("environment: {ON: 1}\n    steps: [checkout]", "word-rewritten"),
        ("steps: [{run: {command: x, name: no}}]", "word-rewritten"),
        ("steps: [{save_cache: {key: 1_0, paths: [a]}}]", "number-rewritten"),
        ("parallelism: 0b11\n    steps: [checkout]", "number-rewritten"),
        ("steps: [{when: {condition: no, steps: [checkout]}}, checkout]", "word-rewritten"),
    ] {
        assert_eq!(codes(&with(job)), [code], "{job}");
    }
    for (only, told) in [("1.10", true), ("[main, 010]", true), ("'1.10'", false), ("1.1", false)] {
        let filter = format!("workflows: {{w: {{jobs: [{{build: {{filters: {{branches: {{only: {only}}}}}}}}}]}}}}");
        let codes = codes(&format!("{}{filter}\n", with("steps: [checkout]")));
        assert_eq!(codes.contains(&"number-rewritten"), told, "{only}: {codes:?}");
    }
}
