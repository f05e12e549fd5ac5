//! The grammar of `<< … >>` in a text. Knows nothing of what names mean.
//!
//! ```text
//! text     = (literal | "\<<" | tag | section)*
//! tag      = "<<" content ">>"
//! section  = "<<#" name ">>" text "<</" name ">>"      shown if the name is truthy
//!          | "<<^" name ">>" text "<</" name ">>"      shown if it is not
//! ```

/// Sections inside each other: far beyond any text, far from the end of the stack.
const DEEPEST: usize = 64;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment<'t> {
    Literal(&'t str),
    /// `raw` is the tag as written, for pointing at it.
    Tag {
        content: &'t str,
        raw: &'t str,
    },
    Section {
        name: &'t str,
        raw: &'t str,
        inverted: bool,
        inner: Vec<Segment<'t>>,
    },
}

/// What is wrong with a text's tags; each holds the text to point at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem<'t> {
    Unclosed { rest: &'t str },
    SectionUnclosed { name: &'t str, raw: &'t str },
    SectionUnopened { name: &'t str, raw: &'t str },
    TooDeep { raw: &'t str },
}

/// A section whose end has not come yet, and the segments before it.
struct Open<'t> {
    name: &'t str,
    raw: &'t str,
    inverted: bool,
    before: Vec<Segment<'t>>,
}

/// Can the text hold anything but itself?
pub(crate) fn is_literal(text: &str) -> bool {
    // Texts are short: preparing a search would take longer than the search.
    text.as_bytes().windows(2).all(|pair| pair != b"<<")
}

/// What stands in the tag that `text` consists of; `None` if it is anything else than one tag.
pub(crate) fn whole(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("<<")?;
    let end = rest.as_bytes().windows(2).position(|pair| pair == b">>")?;
    let content = rest[..end].trim();
    (end + 2 == rest.len() && !content.starts_with(['#', '^', '/'])).then_some(content)
}

/// Names and expressions that the tags of a text hold, in order.
pub(crate) fn references(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    collect(&parse(text).unwrap_or_default(), &mut found);
    found
}

fn collect<'t>(segments: &[Segment<'t>], out: &mut Vec<&'t str>) {
    for segment in segments {
        match segment {
            Segment::Literal(_) => {}
            Segment::Tag { content, .. } => out.push(content),
            Segment::Section { name, inner, .. } => {
                out.push(name);
                collect(inner, out);
            }
        }
    }
}

pub(crate) fn parse(text: &str) -> Result<Vec<Segment<'_>>, Problem<'_>> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("<<") {
        if let Some(before) = rest[..at].strip_suffix('\\') {
            literal(&mut segments, before);
            literal(&mut segments, &rest[at..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        literal(&mut segments, &rest[..at]);
        let Some(length) = rest[at + 2..].find(">>") else { return Err(Problem::Unclosed { rest: &rest[at..] }) };
        let raw = &rest[at..at + 2 + length + 2];
        tag(raw, rest[at + 2..at + 2 + length].trim(), &mut segments, &mut open)?;
        rest = &rest[at + raw.len()..];
    }
    literal(&mut segments, rest);
    match open.pop() {
        Some(Open { name, raw, .. }) => Err(Problem::SectionUnclosed { name, raw }),
        None => Ok(segments),
    }
}

fn literal<'t>(segments: &mut Vec<Segment<'t>>, text: &'t str) {
    if !text.is_empty() {
        segments.push(Segment::Literal(text));
    }
}

fn tag<'t>(
    raw: &'t str,
    content: &'t str,
    segments: &mut Vec<Segment<'t>>,
    open: &mut Vec<Open<'t>>,
) -> Result<(), Problem<'t>> {
    if let Some(name) = content.strip_prefix(['#', '^']) {
        if open.len() >= DEEPEST {
            return Err(Problem::TooDeep { raw });
        }
        let before = std::mem::take(segments);
        open.push(Open { name: name.trim(), raw, inverted: content.starts_with('^'), before });
        return Ok(());
    }
    let Some(name) = content.strip_prefix('/').map(str::trim) else {
        segments.push(Segment::Tag { content, raw });
        return Ok(());
    };
    match open.pop() {
        Some(Open { name: opened, raw, inverted, before }) if opened == name => {
            let inner = std::mem::replace(segments, before);
            segments.push(Segment::Section { name, raw, inverted, inner });
            Ok(())
        }
        Some(Open { name, raw, .. }) => Err(Problem::SectionUnclosed { name, raw }),
        None => Err(Problem::SectionUnopened { name, raw }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_tag(content: &'static str, raw: &'static str) -> Segment<'static> {
        Segment::Tag { content, raw }
    }

    #[test]
    fn tags_and_literals_alternate() {
        let parsed = parse("a << b.c >>d").unwrap();
        assert_eq!(parsed, [Segment::Literal("a "), one_tag("b.c", "<< b.c >>"), Segment::Literal("d")]);
    }

    #[test]
    fn an_escape_is_a_literal_and_a_here_string_may_follow() {
        let parsed = parse(r"x \<<<$(y) >> z").unwrap();
        assert_eq!(parsed, [Segment::Literal("x "), Segment::Literal("<<"), Segment::Literal("<$(y) >> z")]);
    }

    #[test]
    fn sections_nest() {
        let parsed = parse("<<# a >>x<<^ b >>y<</ b >><</ a >>").unwrap();
        let inner = Segment::Section { name: "b", raw: "<<^ b >>", inverted: true, inner: vec![Segment::Literal("y")] };
        let inner = vec![Segment::Literal("x"), inner];
        assert_eq!(parsed, [Segment::Section { name: "a", raw: "<<# a >>", inverted: false, inner }]);
    }

    #[test]
    fn sections_must_match() {
        assert!(matches!(parse("<<# a >>x"), Err(Problem::SectionUnclosed { name: "a", .. })));
        assert!(matches!(parse("<<# a >>x<</ b >>"), Err(Problem::SectionUnclosed { name: "a", .. })));
        assert!(matches!(parse("x<</ b >>"), Err(Problem::SectionUnopened { name: "b", .. })));
    }

    fn literals(text: &str) -> Option<String> {
        let segments = parse(text).ok()?;
        segments.iter().map(|s| if let Segment::Literal(text) = s { Some(*text) } else { None }).collect()
    }

    proptest! {
        #[test]
        fn escaping_round_trips(text in "[a-z<>\\\\ \n#^/.]{0,40}") {
            prop_assume!(!text.contains("\\<<"));
            // `<<<` becomes `\<<<`: the escape covers two characters, what follows is plain text.
            prop_assert_eq!(literals(&text.replace("<<", "\\<<")), Some(text));
        }

        #[test]
        fn a_whole_tag_is_one_segment(text in "(<<)?[a-z<> #^/]{0,6}(>>)?") {
            let content = match parse(&text).as_deref() {
                Ok([Segment::Tag { content, raw }]) if *raw == text => Some(*content),
                _ => None,
            };
            prop_assert_eq!(whole(&text), content);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn unclosed_tags_are_always_told(before in "[a-z ]{0,10}", after in "[a-z> ]{0,20}") {
            prop_assume!(!after.contains(">>"));
            let text = format!("{before}<<{after}");
            let told = matches!(parse(&text), Err(Problem::Unclosed { .. }));
            prop_assert!(told);
        }
    }
}
