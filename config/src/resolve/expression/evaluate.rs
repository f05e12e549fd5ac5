//! The value of an expression, given what its names mean.

use std::ops::Range;

use super::lexer::Operator;
use super::parser::Expression;
use crate::resolve::value::Value;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The caller's look-up has reported it.
    Reported,
    /// In words.
    Wrong(String),
}

/// What an expression asks of the place where it stands.
pub(crate) trait World {
    /// What `name` stands for, whose place in the text of the expression is `at`.
    fn value(&self, name: &str, at: &Range<usize>) -> Result<Value, Fault>;
    /// Does the pattern match the whole text? If it does not work, why not.
    fn full_match(&self, pattern: &str, text: &str) -> Result<bool, String>;
}

pub(crate) fn evaluate(expression: &Expression, world: &dyn World) -> Result<Value, Fault> {
    match expression {
        Expression::Literal(value) => Ok(value.clone()),
        Expression::Name(name, at) => world.value(name, at),
        Expression::Regex(pattern) => Ok(Value::Text(format!("/{pattern}/").into())),
        Expression::Not(inner) => Ok(Value::Bool(!evaluate(inner, world)?.is_truthy())),
        Expression::And(operands) => first(operands, false, world),
        Expression::Or(operands) => first(operands, true, world),
        Expression::Compare(operator, sides) => compare(*operator, &sides.0, &sides.1, world).map(Value::Bool),
    }
}

/// Calls `visit` with every name of the expression and its place, also of parts that need no evaluation.
pub(crate) fn names(expression: &Expression, visit: &mut dyn FnMut(&str, &Range<usize>)) {
    match expression {
        Expression::Literal(_) | Expression::Regex(_) => {}
        Expression::Name(name, at) => visit(name, at),
        Expression::Not(inner) => names(inner, visit),
        Expression::And(operands) | Expression::Or(operands) => operands.iter().for_each(|each| names(each, visit)),
        Expression::Compare(_, sides) => {
            names(&sides.0, visit);
            names(&sides.1, visit);
        }
    }
}

/// The first operand that decides, else the last one.
fn first(operands: &[Expression], deciding: bool, world: &dyn World) -> Result<Value, Fault> {
    let mut value = Value::Null;
    for operand in operands {
        value = evaluate(operand, world)?;
        if value.is_truthy() == deciding {
            break;
        }
    }
    Ok(value)
}

fn compare(operator: Operator, left: &Expression, right: &Expression, world: &dyn World) -> Result<bool, Fault> {
    let left = evaluate(left, world)?;
    if operator == Operator::Matches {
        return matches(&left, right, world);
    }
    let right = evaluate(right, world)?;
    match operator {
        Operator::Equal => Ok(left.equals(&right)),
        Operator::Unequal => Ok(!left.equals(&right)),
        Operator::StartsWith => Ok(text(&left, "starts-with")?.starts_with(text(&right, "starts-with")?)),
        Operator::Less => Ok(number(&left)? < number(&right)?),
        Operator::LessOrEqual => Ok(number(&left)? <= number(&right)?),
        Operator::Greater => Ok(number(&left)? > number(&right)?),
        Operator::GreaterOrEqual => Ok(number(&left)? >= number(&right)?),
        // Handled above: its right side is a pattern, not a value.
        Operator::Matches => Ok(false),
    }
}

fn matches(value: &Value, pattern: &Expression, world: &dyn World) -> Result<bool, Fault> {
    let Expression::Regex(pattern) = pattern else {
        return Err(Fault::Wrong(
            "`matches` needs a regular expression between slashes, as in `matches /rel-.*/`".to_owned(),
        ));
    };
    world.full_match(pattern, text(value, "matches")?).map_err(Fault::Wrong)
}

/// Unset values are null, which no prefix and no pattern fits better than an empty text.
fn text<'v>(value: &'v Value, operator: &str) -> Result<&'v str, Fault> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(""),
        other => Err(Fault::Wrong(format!("`{operator}` compares strings, but this is {}", other.describe()))),
    }
}

fn number(value: &Value) -> Result<f64, Fault> {
    let wrong = || Fault::Wrong(format!("`<` and `>` compare numbers, but this is {}", value.describe()));
    value.as_number().ok_or_else(wrong)
}

/// Bytes that a pattern may become; names of branches and tags need some hundred.
const LARGEST_PATTERN: usize = 256 << 10;
/// Steps back that a pattern may take; where it needs more, it would take minutes for a longer text.
const MOST_STEPS_BACK: usize = 50_000;

/// Must the pattern be tried step by step, back and forth? All others are matched in one pass.
pub(crate) fn steps_back(pattern: &str) -> bool {
    const MARKS: [&str; 7] = ["(?=", "(?!", "(?<", "(?>", "++", "*+", "?+"];
    let refers_back =
        pattern.as_bytes().windows(2).any(|pair| pair[0] == b'\\' && matches!(pair[1], b'1'..=b'9' | b'k'));
    refers_back || MARKS.iter().any(|mark| pattern.contains(mark))
}

/// Does the pattern match the whole text?
pub(crate) fn full_match(pattern: &str, text: &str) -> Result<bool, String> {
    let describe = |error: fancy_regex::Error| format!("the regular expression `{pattern}` does not work: {error}");
    // Alone first: its errors count the characters that the author wrote.
    regex(pattern).map_err(describe)?;
    let regex = regex(&format!(r"\A(?:{pattern})\z")).map_err(describe)?;
    regex.is_match(text).map_err(describe)
}

fn regex(pattern: &str) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    let mut builder = fancy_regex::RegexBuilder::new(pattern);
    builder.delegate_size_limit(LARGEST_PATTERN).delegate_dfa_size_limit(LARGEST_PATTERN);
    builder.backtrack_limit(MOST_STEPS_BACK).build()
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;
    use super::*;

    struct Here;

    impl World for Here {
        fn value(&self, name: &str, _at: &Range<usize>) -> Result<Value, Fault> {
            Ok(match name {
                "branch" => Value::Text("rel-1".into()),
                "number" => Value::Int(7),
                "yes" => Value::Bool(true),
                _ => Value::Null,
            })
        }

        fn full_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
            full_match(pattern, text)
        }
    }

    fn value(text: &str) -> Result<Value, Fault> {
        evaluate(&parse(text).unwrap(), &Here)
    }

    fn holds(text: &str) -> bool {
        value(text).unwrap().is_truthy()
    }

    #[test]
    fn operators_follow_the_language() {
        assert!(holds("branch starts-with \"rel-\" and not (yes == false)"));
        assert!(holds("number >= 7 and number < 7.5"));
        assert!(holds("branch matches /rel-[0-9]+/"));
        assert!(!holds("branch matches /rel/"));
        assert!(!holds("number == \"7\""));
        assert!(holds("number != \"7\""));
        assert!(!holds("not branch == \"x\""), "`not` binds tighter than `==`");
    }

    #[test]
    fn and_or_return_the_deciding_operand() {
        assert!(value("unset or \"none\"").unwrap().equals(&Value::Text("none".into())));
        assert!(value("yes and 3 or 4").unwrap().equals(&Value::Int(3)));
        assert!(value("unset and 3 or 4").unwrap().equals(&Value::Int(4)));
    }

    #[test]
    fn wrong_operands_are_faults() {
        assert!(matches!(value("number starts-with \"7\""), Err(Fault::Wrong(_))));
        assert!(matches!(value("branch < 3"), Err(Fault::Wrong(_))));
        assert!(matches!(value("branch matches \"x\""), Err(Fault::Wrong(_))));
    }
}
