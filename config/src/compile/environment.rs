//! `environment` in the five shapes that people write.
//!
//! A map; a list of maps; a list of `NAME=value`; one `NAME=value`; nothing. Values are text, numbers, booleans, null.

use navvy_job::compiled::Variables;

use super::fields::At;
use crate::diagnostic::{Diagnostic, Span};
use crate::resolve::is_variable_name;
use crate::syntax::{Content, Entry, Literal, Node, rewritten, stays};

/// So few names are found faster by looking at each.
const FEW: usize = 16;
/// From this many digits on the original writes unquoted integers with an exponent.
const WARTY_DIGITS: usize = 7;

/// The variables of a job or step in the order of the config; a name that a shell cannot read is reported.
pub(super) fn variables(place: At<'_>, node: &Node) -> Variables {
    check_names(place, node);
    container_variables(place, node)
}

fn check_names(place: At<'_>, node: &Node) {
    match &node.content {
        Content::Map(map) => map.entries.iter().for_each(|entry| check_name(place, &entry.key, entry.key_span)),
        Content::List(items) => items.iter().for_each(|item| check_names(place, item)),
        Content::Scalar(scalar) => {
            if let Some((name, _)) = scalar.text.split_once('=') {
                check_name(place, name.trim(), node.span);
            }
        }
        Content::Broken => {}
    }
}

fn check_name(place: At<'_>, name: &str, span: Span) {
    if !is_variable_name(name) && !place.context.is_weary() {
        let message = format!("`{name}` is not a name that a shell can read as a variable");
        place.report(Diagnostic::warning("variable-name", span, message));
    }
}

/// The same for a container, whose entrypoint may well want `discovery.type`.
pub(super) fn container_variables(place: At<'_>, node: &Node) -> Variables {
    let mut written = Variables::new();
    read(place, node, &mut written);
    let mut variables = Variables::new();
    extend(&mut variables, written);
    variables
}

/// Adds variables; of two equal names the later stays.
pub(super) fn extend(variables: &mut Variables, more: Variables) {
    if variables.len() + more.len() <= FEW {
        return more.into_iter().for_each(|(name, value)| match variables.iter_mut().find(|known| known.0 == name) {
            Some(known) => known.1 = value,
            None => variables.push((name, value)),
        });
    }
    // Maps of a few thousand names are not rare in generated configs: no quadratic search.
    let mut places: std::collections::HashMap<String, usize> =
        variables.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
    for (name, value) in more {
        match places.get(&name) {
            Some(&index) => variables[index].1 = value,
            None => {
                places.insert(name.clone(), variables.len());
                variables.push((name, value));
            }
        }
    }
}

/// All pairs as written, equal names included.
fn read(place: At<'_>, node: &Node, out: &mut Variables) {
    match &node.content {
        Content::Map(map) => out.extend(map.entries.iter().filter_map(|entry| pair(place, entry))),
        Content::List(items) => items.iter().for_each(|item| read(place, item, out)),
        Content::Scalar(_) if node.is_null() => {}
        Content::Scalar(scalar) => assignment(place, &scalar.text, node, out),
        Content::Broken => {}
    }
}

fn assignment(place: At<'_>, text: &str, node: &Node, out: &mut Variables) {
    match text.split_once('=') {
        Some((name, value)) => {
            out.push((name.trim().to_owned(), value.to_owned()));
        }
        None => {
            let message = format!("`{text}` does not set a variable");
            let diagnostic = Diagnostic::error("wrong-shape", node.span, message);
            place.report(diagnostic.help("write `NAME: value`, or `NAME=value` in a list"));
        }
    }
}

fn pair(place: At<'_>, entry: &Entry) -> Option<(String, String)> {
    if !place.context.made(&entry.key, entry.key_span) {
        return None;
    }
    Some((String::from(&*entry.key), value(place, entry)?))
}

fn value(place: At<'_>, entry: &Entry) -> Option<String> {
    let Some(scalar) = entry.value.as_scalar() else {
        place.wrong_shape(&entry.value, &entry.key, "a single value");
        return None;
    };
    if !place.context.made(&scalar.text, entry.value.span) {
        return None;
    }
    let what = format_args!("`{}`", entry.key);
    let text = match scalar.literal() {
        Literal::Null => return Some(String::new()),
        Literal::Text(text) => {
            stays(what, &entry.value).into_iter().for_each(|told| place.report(told));
            return Some(text.to_owned());
        }
        Literal::Bool(value) => value.to_string(),
        // A number is a number: `3.10` is 3.1.
        Literal::Float(value) if value.is_finite() => value.to_string(),
        Literal::Int(value) => value.to_string(),
        Literal::Float(_) | Literal::Large(_) => scalar.text.to_string(),
    };
    if *text != *scalar.text {
        place.report(rewritten(what, scalar, &text, entry.value.span));
    }
    if let Literal::Int(_) | Literal::Large(_) = scalar.literal() {
        warn_of_exponent(place, entry, &text);
    }
    Some(text)
}

fn warn_of_exponent(place: At<'_>, entry: &Entry, written: &str) {
    if written.bytes().filter(u8::is_ascii_digit).count() >= WARTY_DIGITS {
        let message = format!("CircleCI would write `{}` with an exponent; here it stays `{written}`", entry.key);
        let diagnostic = Diagnostic::warning("long-integer", entry.value.span, message);
        place.report(diagnostic.help(format!("quote it to have the same everywhere: `\"{written}\"`")));
    }
}
