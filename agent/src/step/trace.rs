//! The trace that a step's own programs go on with.

use navvy_job::compiled::Variables;
use navvy_protocol::processor::trace::{TraceParent, VARIABLE};

/// A step that has its task's `TRACEPARENT` gets its own, below it. What the config sets itself stays.
pub fn of_step(env: &mut [(String, String)], builtin: &Variables, step: u64, attempt: u64) {
    let of_task = builtin.iter().rev().find(|(name, _)| name == VARIABLE).map(|(_, value)| value);
    let given = env.iter_mut().find(|(name, _)| name == VARIABLE);
    if let (Some(of_task), Some((_, value))) = (of_task, given)
        && value == of_task
        && let Some(parent) = TraceParent::read(of_task)
    {
        *value = parent.step(step, attempt).to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_step_goes_on_below_its_task_unless_the_config_says_another_trace() {
        let builtin: Variables = vec![(VARIABLE.to_owned(), TASK.to_owned())];
        let of = |mut env: Vec<(String, String)>, builtin: &Variables| {
            of_step(&mut env, builtin, 3, 1);
            env
        };
        let given = of(builtin.clone(), &builtin);
        let parent = TraceParent::read(TASK).unwrap();
        assert_eq!(given[0].1, parent.step(3, 1).to_string());
        let own = vec![(VARIABLE.to_owned(), TASK.replace("4bf9", "aaaa"))];
        assert_eq!(of(own.clone(), &builtin), own);
        assert_eq!(of(own.clone(), &Variables::new()), own);
        assert_eq!(of(Vec::new(), &builtin), []);
    }
}
