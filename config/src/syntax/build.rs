//! Builds the tree from the parser's events.

use std::collections::{BTreeSet, HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Marked, Tag};

use super::broken;
use super::indent::{self, Shifted};
use super::invisible::{self, is_curly_quote};
use super::merge::Collector;
use super::node::{Content, Entry, Map, Node, Scalar};
use super::position::Positions;
use super::reading::stays;
use crate::diagnostic::{Diagnostic, Report, Span};
use crate::neighbour::nearest;

/// The language's own limit on a compiled config.
const LARGEST: usize = 8 << 20;
/// Far beyond any config; keeps recursive walks off the end of the stack.
const DEEPEST: usize = 250;

/// Reads the first document of `text`, whose spans shall say `file`. `None` means that an error was reported.
pub(crate) fn parse(text: &str, file: u32, report: &mut Report) -> Option<Node> {
    if text.len() > LARGEST {
        let what = if file == 0 { "the config" } else { "the orb" };
        let span = Span { file, ..Span::default() };
        report.push(Diagnostic::error("config-too-large", span, format!("{what} is larger than 8 MB")));
        return None;
    }
    let mut moved = BTreeSet::new();
    loop {
        let shifted = Shifted::new(text, &moved);
        let mut builder = Builder::new(text, file, &shifted, report);
        match builder.read() {
            Ok(root) => return root,
            Err(Problem::Told(problem)) => {
                report.push(*problem);
                return None;
            }
            Err(Problem::Broken(error)) => match indent::further(&moved, &error) {
                Some(further) => moved = further,
                None => {
                    let problem = builder.broken(&error);
                    report.push(problem);
                    return None;
                }
            },
        }
    }
}

enum Problem {
    Told(Box<Diagnostic>),
    /// The parser cannot read the text.
    Broken(ScanError),
}

type Step<T> = Result<T, Problem>;

/// A node with what it would be, aliases written out.
#[derive(Clone)]
struct Built {
    node: Node,
    size: usize,
    height: usize,
}

/// A collection whose end has not come yet.
struct Open {
    start: Marked,
    anchor: usize,
    size: usize,
    height: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Collector, key: Option<Node> },
}

struct Builder<'a> {
    positions: Positions<'a>,
    shifted: &'a Shifted<'a>,
    report: &'a mut Report,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, file: u32, shifted: &'a Shifted<'a>, report: &'a mut Report) -> Self {
        let positions = Positions::new(text, file);
        Self { positions, shifted, report, open: Vec::new(), anchors: HashMap::new(), root: None }
    }

    fn read(&mut self) -> Step<Option<Node>> {
        let mut parser = Parser::new_from_str(&self.shifted.text);
        let mut documents = 0;
        while let Some(next) = parser.next_event() {
            let (event, at) = next.map_err(Problem::Broken)?;
            let at = Marked::new(self.shifted.back(at.start), self.shifted.back(at.end));
            if matches!(event, Event::DocumentStart(_)) {
                documents += 1;
            }
            if documents > 1 {
                self.report.push(further_document(self.positions.span(at)));
                break;
            }
            self.event(event, at)?;
        }
        Ok(self.root.take())
    }

    fn event(&mut self, event: Event<'_>, at: Marked) -> Step<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                let plain = style == ScalarStyle::Plain && !is_string_tag(tag.as_deref());
                let size = 1 + text.len();
                let span = self.positions.span(at);
                self.look_for_strays(span, plain);
                let content = Content::Scalar(Scalar { text: text.into(), plain });
                self.close(Built { node: Node { span, content }, size, height: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                self.start(at, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), at);
                self.start(at, anchor, OpenKind::Map { entries: Collector::default(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    /// `!something` asks for a type that does not exist. A `!` alone means a text.
    fn check_tag(&mut self, tag: Option<&Tag>, at: Marked) {
        let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema() && !tag.suffix.trim_matches('!').is_empty()) else {
            return;
        };
        let message = format!("`{tag}` is a tag, and there is no such type");
        let help = "quote a text that begins with `!`; in an expression `not` negates";
        self.report.push(Diagnostic::error("unknown-tag", self.positions.point(&at.start), message).help(help));
    }

    /// Reports invisible characters in the config. Those in orbs are for the orbs' authors.
    fn look_for_strays(&mut self, span: Span, plain: bool) {
        let Some(text) = self.positions.text.get(span.start..span.end).filter(|text| !text.is_ascii()) else { return };
        if span.file != 0 {
            return;
        }
        if let Some((part, name)) = invisible::stray(text) {
            let message = format!("{name} stands here, which is part of the text to YAML and to shells");
            let place = self.positions.part(span, &part);
            let diagnostic = Diagnostic::warning("invisible-character", place, message);
            self.report.push(diagnostic.help("remove it, or write a blank"));
        }
        if let Some(quote) = text.chars().next().filter(|first| plain && is_curly_quote(*first)) {
            let message = format!("this begins with `{quote}`, which is part of the text to YAML");
            let place = self.positions.part(span, &(0..quote.len_utf8()));
            self.report.push(Diagnostic::warning("curly-quote", place, message).help("write straight quotes: `\"`"));
        }
    }

    fn start(&mut self, start: Marked, anchor: usize, kind: OpenKind) -> Step<()> {
        if self.open.len() >= DEEPEST {
            return Err(told(too_deep(self.positions.span(start))));
        }
        self.open.push(Open { start, anchor, size: 1, height: 0, kind });
        Ok(())
    }

    fn end(&mut self, end: Marked) -> Step<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let span = self.positions.span(Marked::new(open.start.start, end.end));
        let content = match open.kind {
            OpenKind::List(items) => Content::List(items.into()),
            OpenKind::Map { entries, .. } => Content::Map(Map { entries: entries.finish() }.into()),
        };
        self.close(Built { node: Node { span, content }, size: open.size, height: open.height + 1 }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, at: Marked) -> Step<()> {
        let Some(built) = self.anchors.get(&anchor).cloned() else {
            let message = "this alias stands inside of what it refers to";
            return Err(told(Diagnostic::error("recursive-alias", self.positions.span(at), message)));
        };
        if self.open.len() + built.height > DEEPEST {
            return Err(told(too_deep(self.positions.span(at))));
        }
        self.close(built, 0)
    }

    /// A node is complete: it becomes an anchor's, and goes where it belongs.
    fn close(&mut self, built: Built, anchor: usize) -> Step<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        open.size = open.size.saturating_add(built.size);
        open.height = open.height.max(built.height);
        if open.size > LARGEST {
            let message = "with its aliases written out the config is larger than 8 MB";
            return Err(told(Diagnostic::error("config-too-large", built.node.span, message)));
        }
        match &mut open.kind {
            OpenKind::List(items) => {
                items.push(built.node);
                Ok(())
            }
            OpenKind::Map { entries, key } => put(entries, key, built.node, self.report),
        }
    }

    fn broken(&self, error: &ScanError) -> Diagnostic {
        let span = self.positions.point(&self.shifted.back(*error.marker()));
        let span = self.positions.counted(span);
        if error.info().ends_with("unknown anchor") {
            return self.unknown_anchor(span);
        }
        if error.info().starts_with("recursion limit") {
            return too_deep(span);
        }
        broken::diagnostic(self.positions.text, error.info(), span, self.open_bracket())
    }

    /// The innermost collection that is open and was written with brackets.
    fn open_bracket(&self) -> Option<Span> {
        let start = |open: &Open| self.positions.point(&open.start.start);
        let brackets = |span: &Span| matches!(self.positions.text.as_bytes().get(span.start), Some(b'[' | b'{'));
        self.open.last().map(start).filter(brackets)
    }

    fn unknown_anchor(&self, span: Span) -> Diagnostic {
        let text = self.positions.text;
        let name = anchor_name(text.get(span.start + 1..).unwrap_or(""));
        let above = text.get(..span.start).unwrap_or("").match_indices('&');
        let known: BTreeSet<&str> = above.map(|(at, _)| anchor_name(&text[at + 1..])).collect();
        let span = Span { end: span.start + 1 + name.len(), ..span };
        let message = format!("there is no anchor named `{name}` above this place");
        Diagnostic::error("unknown-anchor", span, message).meant(nearest(name, known.iter().copied()))
    }
}

/// Nodes of a map come in turns: key, value, key, value.
fn put(entries: &mut Collector, key: &mut Option<Node>, node: Node, report: &mut Report) -> Step<()> {
    let Some(key) = &key.take() else {
        *key = Some(node);
        return Ok(());
    };
    let Some(name) = key.as_scalar() else {
        let message = format!("a key must be a single value, but this is {}", key.describe());
        let help = "did you mean to quote it, as in `\"{{ … }}\"`?";
        return Err(told(Diagnostic::error("complex-key", key.span, message).help(help)));
    };
    if &*name.text == "<<" && name.plain {
        entries.merge(node, report);
    } else if &*name.text == "\\<<" {
        let message = "`\\<<` merges nothing: the merge key is not a template, and has no escape";
        report.push(Diagnostic::error("escaped-merge-key", key.span, message).help("write `<<:`"));
    } else {
        stays("this key", key).into_iter().for_each(|told| report.push(told));
        entries.explicit(Entry { key: name.text.clone(), key_span: key.span, value: node }, report);
    }
    Ok(())
}

fn anchor_name(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}')).next().unwrap_or("")
}

fn told(diagnostic: Diagnostic) -> Problem {
    Problem::Told(Box::new(diagnostic))
}

fn is_string_tag(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str")
}

fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error("nested-too-deep", span, format!("more than {DEEPEST} levels inside each other"))
}

fn further_document(span: Span) -> Diagnostic {
    Diagnostic::warning("several-documents", span, "only the first YAML document of the file counts")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<&'static str>) {
        let mut report = Report::default();
        let root = parse(text, 0, &mut report);
        (root, report.into_sorted().into_iter().map(|diagnostic| diagnostic.code).collect())
    }

    /// The tree as JSON-like text, without spans.
    fn show(node: &Node) -> String {
        match &node.content {
            Content::Scalar(scalar) => scalar.text.to_string(),
            Content::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
            Content::Map(map) => {
                let entries = map.entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            Content::Broken => String::new(),
        }
    }

    fn shown(text: &str) -> String {
        show(&read(text).0.unwrap())
    }

    #[test]
    fn explicit_keys_win_and_earlier_merges_win() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\n";
        assert_eq!(shown(text), "{a:{x:1,y:1},b:{y:2,z:2},c:{x:1,y:1,z:3}}");
    }

    #[test]
    fn the_merge_key_may_stand_twice() {
        let (root, codes) = read("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc:\n  <<: *a\n  <<: *b\n");
        assert_eq!(show(&root.unwrap()), "{a:{x:1},b:{x:2,y:2},c:{x:1,y:2}}");
        assert!(codes.is_empty(), "{codes:?}");
    }

    #[test]
    fn the_later_anchor_of_one_name_counts_from_there_on() {
        assert_eq!(shown("- &a 1\n- *a\n- &a 2\n- *a\n"), "[1,1,2,2]");
    }

    #[test]
    fn spans_count_bytes_and_columns_count_characters() {
        let (root, _) = read("a: \"ä\"\nb: {ü: x}\n");
        let root = root.unwrap();
        let inner = root.as_map().unwrap().get("b").unwrap().as_map().unwrap().get("ü").unwrap().span;
        assert_eq!((inner.line, inner.column, inner.start, inner.end), (2, 8, 16, 17));
    }

    #[test]
    fn brackets_may_stand_as_far_out_as_their_key() {
        let (root, codes) = read("a:\n  ü: [\n    x,\n  ]\n  b: {\n   c: d\n  }\n  e: f\n");
        let root = root.unwrap();
        assert_eq!(show(&root), "{a:{ü:[x],b:{c:d},e:f}}");
        let last = root.as_map().unwrap().get("a").unwrap().as_map().unwrap().get("e").unwrap().span;
        assert_eq!((last.line, last.column, last.end - last.start), (8, 6, 1));
        assert!(codes.is_empty(), "{codes:?}");
    }

    #[test]
    fn a_small_text_cannot_stand_for_a_huge_one() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", "));
        }
        assert_eq!(read(&text).1, ["config-too-large"]);
    }

    #[test]
    fn depth_is_bounded_also_through_aliases() {
        assert_eq!(read(&("[".repeat(300) + &"]".repeat(300))).1, ["nested-too-deep"]);
        let mut text = String::from("- &a0 x\n");
        for level in 1..300 {
            text += &format!("- &a{level} [*a{}]\n", level - 1);
        }
        assert_eq!(read(&text).1, ["nested-too-deep"]);
    }

    #[test]
    fn an_alias_inside_of_its_own_anchor_is_refused() {
        assert_eq!(read("a: &a [*a]\n").1, ["recursive-alias"]);
    }

    #[test]
    fn an_empty_text_has_no_tree() {
        assert!(read("").0.is_none());
        assert!(read("# nothing\n").0.is_none_or(|node| node.is_null()));
    }
}
