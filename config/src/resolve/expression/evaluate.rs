//! The value of an expression, given what its names mean.

use super::lexer::Operator;
use super::parser::Expression;
use crate::resolve::value::Value;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The caller's look-up has reported it.
    Reported,
    /// In words.
    Wrong(String),
}

/// What `name` stands for in the scope of the expression.
pub(crate) type Lookup<'l> = dyn Fn(&str) -> Result<Value, Fault> + 'l;

pub(crate) fn evaluate(expression: &Expression, lookup: &Lookup<'_>) -> Result<Value, Fault> {
    match expression {
        Expression::Literal(value) => Ok(value.clone()),
        Expression::Name(name) => lookup(name),
        Expression::Regex(pattern) => Ok(Value::Text(format!("/{pattern}/").into())),
        Expression::Not(inner) => Ok(Value::Bool(!evaluate(inner, lookup)?.is_truthy())),
        Expression::And(operands) => first(operands, false, lookup),
        Expression::Or(operands) => first(operands, true, lookup),
        Expression::Compare(operator, sides) => compare(*operator, &sides.0, &sides.1, lookup).map(Value::Bool),
    }
}

/// Calls `visit` with every name of the expression, also of parts that need no evaluation.
pub(crate) fn names(expression: &Expression, visit: &mut dyn FnMut(&str)) {
    match expression {
        Expression::Literal(_) | Expression::Regex(_) => {}
        Expression::Name(name) => visit(name),
        Expression::Not(inner) => names(inner, visit),
        Expression::And(operands) | Expression::Or(operands) => operands.iter().for_each(|each| names(each, visit)),
        Expression::Compare(_, sides) => {
            names(&sides.0, visit);
            names(&sides.1, visit);
        }
    }
}

/// The first operand that decides, else the last one.
fn first(operands: &[Expression], deciding: bool, lookup: &Lookup<'_>) -> Result<Value, Fault> {
    let mut value = Value::Null;
    for operand in operands {
        value = evaluate(operand, lookup)?;
        if value.is_truthy() == deciding {
            break;
        }
    }
    Ok(value)
}

fn compare(operator: Operator, left: &Expression, right: &Expression, lookup: &Lookup<'_>) -> Result<bool, Fault> {
    let left = evaluate(left, lookup)?;
    if operator == Operator::Matches {
        return matches(&left, right);
    }
    let right = evaluate(right, lookup)?;
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

fn matches(value: &Value, pattern: &Expression) -> Result<bool, Fault> {
    let Expression::Regex(pattern) = pattern else {
        return Err(Fault::Wrong("`matches` needs a regular expression between slashes".to_owned()));
    };
    full_match(pattern, text(value, "matches")?).map_err(Fault::Wrong)
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

/// Does the pattern match the whole text?
pub(crate) fn full_match(pattern: &str, text: &str) -> Result<bool, String> {
    let describe = |error: fancy_regex::Error| format!("the regular expression `{pattern}` does not work: {error}");
    // Alone first: its errors count the characters that the author wrote.
    fancy_regex::Regex::new(pattern).map_err(describe)?;
    let regex = fancy_regex::Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(describe)?;
    regex.is_match(text).map_err(describe)
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;
    use super::*;

    fn value(text: &str) -> Result<Value, Fault> {
        evaluate(&parse(text).unwrap(), &|name| match name {
            "branch" => Ok(Value::Text("rel-1".into())),
            "number" => Ok(Value::Int(7)),
            "yes" => Ok(Value::Bool(true)),
            _ => Ok(Value::Null),
        })
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
