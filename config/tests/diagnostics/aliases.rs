//! Aliases of orbs' elements that stand for nothing.

use insta::assert_snapshot;

use crate::told;

#[test]
fn an_alias_names_an_element_that_is_there() {
    let text = r##"
version: 2.1
orbs:
  o:
    executors: {default: {docker: [{image: i}]}}
    commands: {greet: {steps: [run: hi]}}
executors: {mine: o/defualt}
commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
jobs:
  build:
    executor: mine
    steps: [hi, there, alone]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-executor]: there is no executor named `o/defualt`
     --> config.yml:6:19
      |
    6 | executors: {mine: o/defualt}
      |                   ^^^^^^^^^
      = help: did you mean `o/default`?

    error[unknown-step]: cannot find a definition for a command or step named `o/greeet`
     --> config.yml:7:16
      |
    7 | commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
      |                ^^^^^^^^
      = help: did you mean `o/greet`?

    error[unknown-orb]: there is no orb named `p`
     --> config.yml:7:33
      |
    7 | commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
      |                                 ^^^^^^^

    error[wrong-shape]: command `alone` must be a map, but this is a string
     --> config.yml:7:42
      |
    7 | commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
      |                                          ^^^^^
      = help: the name of a command of an orb can stand here: `orb/command`

    error[wrong-shape]: command `five` must be a map, but this is an integer
     --> config.yml:7:56
      |
    7 | commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
      |                                                        ^^^^
      = help: the name of a command of an orb can stand here: `orb/command`

    error[wrong-shape]: command `none` must be a map, but this is nothing
     --> config.yml:7:65
      |
    7 | commands: {hi: o/greeet, there: p/greet, alone: greet, five: 5, none: }
      |                                                                 ^^^^
    refused
    "##);
}
