//! Two keys, part by part. Pure.

use navvy_storage::template::What;
use serde::Serialize;

/// A part of a key's template, and what it becomes here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub what: What,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Known(String),
    /// Why not.
    Unknown(String),
}

impl Value {
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Same,
    Differs,
    /// It is known in the job only.
    Unknown,
    /// The two templates ask for different things from here on.
    OtherTemplate,
}

/// A part, as the saved key has it and as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// As the template writes it.
    pub part: String,
    pub verdict: Verdict,
    /// `None`: it has no value, or the value may be a secret.
    pub then: Option<String>,
    pub now: Option<String>,
    /// Why it is unknown.
    pub why: Option<String>,
    #[serde(skip)]
    pub what: What,
}

/// Where a value of the job's environment stands: it may be a secret.
const HIDDEN: &str = "****";

/// Variables that a run sets itself, over all others: their values are no secrets. Not so any other name that begins like
/// them: `CIRCLE_TOKEN` is one, from a context.
const PUBLIC: [&str; 18] = [
    "CI",
    "CIRCLECI",
    "CIRCLE_BUILD_NUM",
    "CIRCLE_INTERNAL_TASK_DATA",
    "CIRCLE_JOB",
    "CIRCLE_NODE_INDEX",
    "CIRCLE_NODE_TOTAL",
    "CIRCLE_ORGANIZATION_ID",
    "CIRCLE_PIPELINE_ID",
    "CIRCLE_PROJECT_ID",
    "CIRCLE_PROJECT_REPONAME",
    "CIRCLE_PROJECT_USERNAME",
    "CIRCLE_STAGE",
    "CIRCLE_WORKFLOW_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "CIRCLE_WORKFLOW_UPSTREAM_JOB_IDS",
    "CIRCLE_WORKFLOW_WORKSPACE_ID",
    "CIRCLE_WORKING_DIRECTORY",
];

pub fn may_be_secret(what: &What) -> bool {
    matches!(what, What::Environment(name) if !PUBLIC.contains(&name.as_str()))
}

/// A key for people: what may be a secret is hidden, what is unknown stands as it is written.
pub fn shown<'a>(pieces: impl IntoIterator<Item = (&'a What, Option<&'a str>)>) -> String {
    let piece = |(what, value): (&What, Option<&str>)| match value {
        Some(_) if may_be_secret(what) => HIDDEN.to_owned(),
        Some(value) => value.to_owned(),
        None => what.to_string(),
    };
    pieces.into_iter().map(piece).collect()
}

pub fn shown_now(pieces: &[Piece]) -> String {
    shown(pieces.iter().map(|piece| (&piece.what, piece.value.known())))
}

pub fn shown_then(pieces: &[(What, String)]) -> String {
    shown(pieces.iter().map(|(what, value)| (what, Some(value.as_str()))))
}

/// Texts that stand side by side as one.
pub fn merged(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (merged.last_mut(), &piece.what) {
            (Some(Piece { what: What::Text(before), value: Value::Known(value) }), What::Text(text)) => {
                before.push_str(text);
                value.push_str(text);
            }
            _ => merged.push(piece),
        }
    }
    merged
}

/// The same of a saved key.
pub fn merged_then(pieces: Vec<(What, String)>) -> Vec<(What, String)> {
    let known = |(what, value)| Piece { what, value: Value::Known(value) };
    let merged = merged(pieces.into_iter().map(known).collect()).into_iter();
    merged.map(|piece| (piece.what, piece.value.known().unwrap_or_default().to_owned())).collect()
}

/// Holds each part of a key that is looked for against the same one of a saved key, of which it may be a prefix.
pub fn compare(now: &[Piece], then: &[(What, String)]) -> Vec<Part> {
    let mut parts = Vec::new();
    for (nth, piece) in now.iter().enumerate() {
        let part = one(piece, then.get(nth), nth + 1 == now.len());
        let ends = part.verdict == Verdict::OtherTemplate;
        parts.push(part);
        if ends {
            break;
        }
    }
    parts
}

fn one(piece: &Piece, then: Option<&(What, String)>, is_last: bool) -> Part {
    let hide = |value: &str| (!may_be_secret(&piece.what)).then(|| value.to_owned());
    let part = Part {
        part: piece.what.to_string(),
        verdict: Verdict::OtherTemplate,
        then: None,
        now: piece.value.known().and_then(hide),
        why: None,
        what: piece.what.clone(),
    };
    let Some((then_what, then_value)) = then else { return part };
    if !is_same_kind(&piece.what, then_what) {
        return Part { then: Some(then_what.to_string()), ..part };
    }
    let (verdict, why) = match &piece.value {
        Value::Unknown(why) => (Verdict::Unknown, Some(why.clone())),
        Value::Known(now) if now == then_value || (is_last && then_value.starts_with(now.as_str())) => {
            (Verdict::Same, None)
        }
        Value::Known(_) => (Verdict::Differs, None),
    };
    Part { then: hide(then_value), verdict, why, ..part }
}

/// Do both ask for the same thing? Texts may say what they like.
fn is_same_kind(one: &What, other: &What) -> bool {
    one == other || matches!((one, other), (What::Text(_), What::Text(_)))
}

/// Would a key of the template `writes` begin with what `wanted` looks for?
pub fn would_find(wanted: &[Piece], writes: &[Piece]) -> bool {
    let Some((last, before)) = wanted.split_last() else { return false };
    let Some((at_last, _)) = writes.get(before.len()..).and_then(<[Piece]>::split_first) else {
        return begins(wanted, writes);
    };
    let is_shaped = before.iter().zip(writes).all(|(one, other)| one.what == other.what);
    let ends = match (&last.what, &at_last.what) {
        (What::Text(text), What::Text(written)) => written.starts_with(text.as_str()),
        (one, other) => one == other,
    };
    (is_shaped && ends) || begins(wanted, writes)
}

/// The same by what is known of the values.
fn begins(wanted: &[Piece], writes: &[Piece]) -> bool {
    let whole: Option<String> = wanted.iter().map(|piece| piece.value.known()).collect();
    whole.is_some_and(|whole| known_beginning(writes).starts_with(&whole))
}

/// As much of a key as is known from its beginning.
pub fn known_beginning(pieces: &[Piece]) -> String {
    pieces.iter().map_while(|piece| piece.value.known()).collect()
}

/// A key as it stands in a log, cut at the parts of a saved one.
pub fn cut_like(key: &str, then: &[(What, String)]) -> Vec<Piece> {
    let (mut rest, mut pieces) = (key, Vec::new());
    for (nth, (what, value)) in then.iter().enumerate() {
        if rest.is_empty() {
            break;
        }
        let length = match then.get(nth + 1) {
            _ if rest.starts_with(value.as_str()) => value.len(),
            _ if matches!(what, What::Checksum(_)) && rest.is_char_boundary(value.len()) => value.len().min(rest.len()),
            Some((What::Text(next), _)) => rest.find(next.as_str()).unwrap_or(rest.len()),
            _ => rest.len(),
        };
        let (piece, behind) = rest.split_at(length);
        let what = if let What::Text(_) = what { What::Text(piece.to_owned()) } else { what.clone() };
        pieces.push(Piece { what, value: Value::Known(piece.to_owned()) });
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece { what: What::Text(rest.to_owned()), value: Value::Known(rest.to_owned()) });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use navvy_storage::template::Template;

    /// Each part of a template with its value; `?` is unknown.
    fn pieces(template: &str, values: &[&str]) -> Vec<Piece> {
        let mut values = values.iter();
        let piece = |what: &What| {
            let value = match what {
                What::Text(text) => Value::Known(text.clone()),
                _ => match *values.next().unwrap() {
                    "?" => Value::Unknown("unknown".to_owned()),
                    value => Value::Known(value.to_owned()),
                },
            };
            Piece { what: what.clone(), value }
        };
        merged(Template::parse(template).unwrap().asked().map(piece).collect())
    }

    fn then(template: &str, values: &[&str]) -> Vec<(What, String)> {
        pieces(template, values).into_iter().map(|it| (it.what, it.value.known().unwrap().to_owned())).collect()
    }

    fn told(now: &[Piece], then: &[(What, String)]) -> Vec<String> {
        let text = |part: Part| {
            let [then, now] = [part.then, part.now].map(|value| value.unwrap_or_else(|| "-".to_owned()));
            format!("{:?} {}: {then} > {now}", part.verdict, part.part)
        };
        compare(now, then).into_iter().map(text).collect()
    }

    const TEMPLATE: &str = "v1-{{ .Branch }}-{{ checksum \"lock\" }}";

    #[test]
    fn each_part_is_the_same_or_differs() {
        let saved = then(TEMPLATE, &["main", "AAA="]);
        assert_eq!(
            told(&pieces(TEMPLATE, &["main", "BBB="]), &saved),
            [
                "Same v1-: v1- > v1-",
                "Same {{ .Branch }}: main > main",
                "Same -: - > -",
                "Differs {{ checksum \"lock\" }}: AAA= > BBB="
            ]
        );
        // Another beginning, and what only the job knows.
        assert_eq!(
            told(&pieces("v2-{{ .Branch }}-{{ checksum \"lock\" }}", &["main", "?"]), &saved),
            [
                "Differs v2-: v1- > v2-",
                "Same {{ .Branch }}: main > main",
                "Same -: - > -",
                "Unknown {{ checksum \"lock\" }}: AAA= > -"
            ]
        );
        // A prefix of it, which may end within a part.
        let saved = then("v1-{{ .Branch }}-{{ checksum \"lock\" }}", &["main", "AAA="]);
        assert_eq!(told(&pieces("v1-{{ .Branch }}", &["mai"]), &saved)[1], "Same {{ .Branch }}: main > mai");
        assert_eq!(told(&pieces("v1-{{ .Branch }}-", &["mai"]), &saved)[1], "Differs {{ .Branch }}: main > mai");
    }

    #[test]
    fn where_templates_part_the_comparison_ends() {
        let saved = then("v1-{{ checksum \"a\" }}-{{ arch }}", &["AAA=", "linux"]);
        assert_eq!(
            told(&pieces("v1-{{ checksum \"b\" }}-{{ arch }}", &["BBB=", "linux"]), &saved),
            ["Same v1-: v1- > v1-", "OtherTemplate {{ checksum \"b\" }}: {{ checksum \"a\" }} > BBB="]
        );
        assert_eq!(told(&pieces("v1-{{ arch }}", &["x"]), &then("v1-", &[]))[1], "OtherTemplate {{ arch }}: - > x");
    }

    #[test]
    fn what_may_be_a_secret_is_compared_and_not_told() {
        let template = "{{ .Environment.CIRCLE_TOKEN }}-{{ .Environment.CIRCLE_JOB }}";
        let (now, saved) = (pieces(template, &["hunter2", "build"]), then(template, &["hunter1", "build"]));
        assert_eq!(
            told(&now, &saved),
            [
                "Differs {{ .Environment.CIRCLE_TOKEN }}: - > -",
                "Same -: - > -",
                "Same {{ .Environment.CIRCLE_JOB }}: build > build"
            ]
        );
        assert_eq!([shown_now(&now), shown_then(&saved)], ["****-build", "****-build"]);
        assert_eq!(shown_now(&pieces("a-{{ arch }}", &["?"])), "a-{{ arch }}");
    }

    #[test]
    fn who_would_write_what_is_looked_for() {
        let finds = |wanted: &str, writes: &str| would_find(&pieces(wanted, &["?"; 3]), &pieces(writes, &["?"; 3]));
        assert!(finds(TEMPLATE, TEMPLATE) && finds("v1-{{ .Branch }}-", TEMPLATE) && finds("v", TEMPLATE));
        assert!(!finds("v2-", TEMPLATE) && !finds("v1-{{ arch }}", TEMPLATE));
        assert!(!finds(TEMPLATE, "v1-{{ .Branch }}") && !finds("v1-{{ .Branch }}-{{ checksum \"other\" }}", TEMPLATE));
        // Written otherwise, and yet the same.
        assert!(would_find(&pieces("v1-main-", &[]), &pieces(TEMPLATE, &["main", "?"])));
        assert!(!would_find(&pieces("v1-other-", &[]), &pieces(TEMPLATE, &["main", "?"])));
    }

    #[test]
    fn a_key_out_of_a_log_is_cut_where_a_saved_one_is() {
        let saved = then("v1-{{ .Branch }}-{{ checksum \"lock\" }}", &["main", "AAA="]);
        assert_eq!(cut_like("v1-main-AAA=", &saved), pieces(TEMPLATE, &["main", "AAA="]));
        assert_eq!(cut_like("v1-feature/x-BBB=", &saved), pieces(TEMPLATE, &["feature/x", "BBB="]));
        assert_eq!(cut_like("v1-ma", &saved).len(), 2);
        assert_eq!(
            cut_like("other", &saved)[0],
            Piece { what: What::Text("other".into()), value: Value::Known("other".into()) }
        );
    }

    proptest::proptest! {
        #[test]
        fn cutting_loses_nothing(key in "[-a-zü]{0,20}", a in "[-aü]{0,3}", b in "[-aü]{0,3}") {
            let saved = then(TEMPLATE, &[&a, &b]);
            let whole: String = cut_like(&key, &saved).iter().filter_map(|piece| piece.value.known()).collect();
            proptest::prop_assert_eq!(whole, key);
        }
    }
}
