//! The source tree of an orb to one source: `navvy orb pack`.
//!
//! ```text
//! parts ─▶ syntax ─▶ the top's map, its sections filled with the elements ─▶ includes put in place ─▶ written out
//! ```
//!
//! Comments, anchors and merge keys are gone afterwards. The crate reads no file: the caller hands in the parts, and
//! answers for what they include.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Report, Span};
use crate::input::{File, Source};
use crate::process::{Yaml, YamlEntry, document};
use crate::syntax::{self, Content, Entry, Node};

/// A source is refused beyond this; so much is never put together.
const LARGEST: usize = 8 << 20;

/// One file of the tree.
#[derive(Debug, Clone)]
pub struct OrbPart {
    /// What the file holds, by its path.
    pub place: OrbPlace,
    /// The file, with a name for diagnostics.
    pub file: File,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrbPlace {
    /// Keys of the orb itself: `@orb.yml`.
    Top,
    /// Several elements of a section, by their names: `commands/@more.yml`.
    Elements(OrbSection),
    /// One element of this name: `commands/greet.yml`.
    Element(OrbSection, String),
}

/// A key of an orb whose entries may have files of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrbSection {
    /// `commands`
    Commands,
    /// `executors`
    Executors,
    /// `jobs`
    Jobs,
    /// `examples`
    Examples,
}

/// The result of packing a tree.
#[derive(Debug, Clone)]
pub struct Packed {
    /// `None` exactly if one of the diagnostics is an error.
    pub text: Option<String>,
    /// All that is wrong with the tree; empty if nothing is.
    pub diagnostics: Vec<Diagnostic>,
    /// `file` N of a span is number N here.
    files: Vec<File>,
}

impl OrbSection {
    /// All sections, in the order in which an orb is written.
    pub const ALL: [Self; 4] = [Self::Commands, Self::Executors, Self::Jobs, Self::Examples];

    /// The key, and the directory of its files.
    pub fn key(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Executors => "executors",
            Self::Jobs => "jobs",
            Self::Examples => "examples",
        }
    }

    fn element(self) -> &'static str {
        self.key().trim_end_matches('s')
    }
}

impl Packed {
    /// All diagnostics as text, each with an excerpt of its file.
    pub fn render(&self) -> String {
        let Some((first, others)) = self.files.split_first() else { return String::new() };
        let source = Source { name: &first.name, text: &first.text };
        crate::render::render_in(&source, others, &self.diagnostics)
    }
}

/// Reads the file of an include: its text, or why it cannot be had.
pub type Include<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Puts the parts of an orb's source tree together. Later parts may add to earlier ones, and replace nothing of them.
pub fn pack_orb(parts: &[OrbPart], include: Include<'_>) -> Packed {
    let mut packer = Packer { report: Report::default(), include, included: 0 };
    let mut top = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        packer.add(&mut top, part, u32::try_from(number).unwrap_or(u32::MAX));
    }
    for entry in &mut top {
        // Examples show what others write, and so do they tell of includes.
        if matches!(&*entry.key, "commands" | "executors" | "jobs") {
            entry.value = packer.resolved(&entry.value);
        }
    }
    let text = (packer.report.errors() == 0).then(|| written(&top));
    let files = parts.iter().map(|part| part.file.clone()).collect();
    Packed { text, diagnostics: packer.report.into_sorted(), files }
}

fn written(top: &[Entry]) -> String {
    let entry = |entry: &Entry| YamlEntry::new(&*entry.key, Yaml::of(&entry.value, &|_| Vec::new()));
    document(&top.iter().map(entry).collect::<Vec<_>>(), false)
}

struct Packer<'a> {
    report: Report,
    include: Include<'a>,
    /// Bytes.
    included: usize,
}

impl Packer<'_> {
    fn add(&mut self, top: &mut Vec<Entry>, part: &OrbPart, file: u32) {
        let errors = self.report.errors();
        let root = syntax::parse(&part.file.text, file, &mut self.report);
        if self.report.errors() > errors {
            return;
        }
        let start = Span { start: 0, end: 0, line: 1, column: 1, file };
        let Some(root) = root.filter(|root| !root.is_null()) else {
            return self.report.push(Diagnostic::error("empty-orb-file", start, "there is nothing in it"));
        };
        let Some(map) = root.as_map() else {
            let message = format!("a file of an orb is a map, and this is {}", root.describe());
            return self.report.push(Diagnostic::error("orb-file-shape", start, message));
        };
        match &part.place {
            OrbPlace::Top => map.entries.iter().for_each(|entry| self.add_key(top, entry)),
            OrbPlace::Elements(section) => self.add_elements(top, *section, root.span, &map.entries),
            OrbPlace::Element(section, name) => {
                let entry = Entry { key: name.as_str().into(), key_span: start, value: root.clone() };
                self.add_elements(top, *section, root.span, &[entry]);
            }
        }
    }

    /// A key of the orb itself. Sections may be filled from several files.
    fn add_key(&mut self, top: &mut Vec<Entry>, entry: &Entry) {
        let section = OrbSection::ALL.into_iter().find(|section| section.key() == &*entry.key);
        match (section, &entry.value.content) {
            (Some(section), Content::Map(map)) => self.add_elements(top, section, entry.value.span, &map.entries),
            (Some(_), _) if entry.value.is_null() => {}
            (Some(section), Content::List(_) | Content::Scalar(_)) => {
                let message = format!("`{}` is {}, not a map of elements", section.key(), entry.value.describe());
                self.report.push(Diagnostic::error("orb-file-shape", entry.value.span, message));
            }
            _ => match top.iter().find(|known| known.key == entry.key) {
                Some(known) => self.twice(&format!("key `{}`", entry.key), entry.key_span, known.key_span),
                None => top.push(entry.clone()),
            },
        }
    }

    fn add_elements(&mut self, top: &mut Vec<Entry>, section: OrbSection, span: Span, elements: &[Entry]) {
        let found = top.iter().position(|entry| &*entry.key == section.key());
        let known = found.and_then(|index| top[index].value.as_map());
        let mut entries: Vec<Entry> = known.map(|map| map.entries.to_vec()).unwrap_or_default();
        for element in elements {
            match entries.iter().find(|known| known.key == element.key) {
                Some(known) => {
                    let what = format!("{} `{}`", section.element(), element.key);
                    self.twice(&what, element.key_span, known.key_span);
                }
                None => entries.push(element.clone()),
            }
        }
        let value = Node::map(span, entries);
        match found {
            Some(index) => top[index].value = value,
            None => top.push(Entry { key: section.key().into(), key_span: span, value }),
        }
    }

    fn twice(&mut self, what: &str, here: Span, first: Span) {
        let told = Diagnostic::error("orb-element-twice", here, format!("{what} is there twice"));
        self.report.push(told.related(first, "the first one stands here"));
    }

    /// The node with what it includes.
    fn resolved(&mut self, node: &Node) -> Node {
        match &node.content {
            Content::Scalar(scalar) => match self.included(&scalar.text, node.span) {
                Some(text) => Node::text(node.span, text),
                None => node.clone(),
            },
            Content::List(items) => Node::list(node.span, items.iter().map(|item| self.resolved(item)).collect()),
            Content::Map(map) => {
                let entry = |entry: &Entry| Entry { value: self.resolved(&entry.value), ..entry.clone() };
                Node::map(node.span, map.entries.iter().map(entry).collect())
            }
            Content::Broken => node.clone(),
        }
    }

    /// What stands in place of an include; `None` for any other text, and where an error was reported.
    fn included(&mut self, text: &str, span: Span) -> Option<Arc<str>> {
        let found = match find(text) {
            Found::Nothing => return None,
            Found::Include(path) => (self.include)(path),
            Found::Unclear => Err("an include is the whole value, and names one file: <<include(FILE)>>".to_owned()),
        };
        match found {
            Ok(text) => {
                self.included += text.len();
                if self.included > LARGEST {
                    let message = "what this orb includes is more than 8 MB";
                    self.report.push(Diagnostic::error("orb-too-large", span, message));
                    return None;
                }
                // What others read as a tag is text here.
                Some(text.replace("<<", "\\<<").into())
            }
            Err(why) => {
                self.report.push(Diagnostic::error("bad-include", span, why));
                None
            }
        }
    }
}

enum Found<'a> {
    Nothing,
    Include(&'a str),
    /// Something is to be included, but not like this.
    Unclear,
}

fn find(text: &str) -> Found<'_> {
    if let Some(path) = whole(text.trim()) {
        return Found::Include(path);
    }
    let begins = |(at, _): (usize, &str)| {
        !text[..at].ends_with('\\') && text[at + 2..].trim_start().strip_prefix("include").is_some_and(is_call)
    };
    if text.match_indices("<<").any(begins) { Found::Unclear } else { Found::Nothing }
}

fn is_call(rest: &str) -> bool {
    rest.trim_start().starts_with('(')
}

fn whole(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("<<")?.strip_suffix(">>")?.trim();
    let path = inside.strip_prefix("include")?.trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
    let is_path = !path.is_empty() && !path.contains(['(', ')', '<', '>', '\n']);
    is_path.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(place: OrbPlace, name: &str, text: &str) -> OrbPart {
        OrbPart { place, file: File { name: name.to_owned(), text: text.into() } }
    }

    fn pack(parts: &[OrbPart]) -> Packed {
        pack_orb(parts, &|path| match path {
            "a.sh" => Ok("cat <<END\n\\n \"x\"\nEND\n".to_owned()),
            "large" => Ok("x".repeat(LARGEST / 2)),
            other => Err(format!("no {other}")),
        })
    }

    fn command(text: &str) -> Vec<OrbPart> {
        let top = part(OrbPlace::Top, "@orb.yml", "version: 2.1\n");
        vec![top, part(OrbPlace::Element(OrbSection::Commands, "c".into()), "commands/c.yml", text)]
    }

    #[test]
    fn an_include_is_a_whole_value() {
        let packed = pack(&command("steps: [{run: << include( a.sh ) >>}, {run: '<<include(a.sh)>>'}]"));
        insta::assert_snapshot!(packed.text.unwrap(), @r##"
        version: 2.1
        commands:
          c:
            steps:
              - run: |
                  cat \<<END
                  \n "x"
                  END
              - run: |
                  cat \<<END
                  \n "x"
                  END
        "##);
        for unclear in ["x <<include(a.sh)>>", "<<include(a.sh)>> <<include(a.sh)>>", "<<include()>>", "<<include(a.sh"]
        {
            let packed = pack(&command(&format!("steps: [{{run: '{unclear}'}}]")));
            assert!(packed.text.is_none() && packed.render().contains("the whole value"), "{unclear}");
        }
        for text in ["\\<<include(a.sh)>>", "<<parameters.include>>", "<< includes >>"] {
            let packed = pack(&command(&format!("steps: [{{run: '{text}'}}]"))).text.unwrap();
            assert!(packed.contains(text), "{packed}");
        }
    }

    #[test]
    fn words_and_numbers_stay_what_they_were() {
        let text =
            "parameters: {a: {type: string, default: 'yes'}, b: {type: boolean, default: yes}, c: {default: '1.0'}}";
        insta::assert_snapshot!(pack(&command(text)).text.unwrap(), @r##"
        version: 2.1
        commands:
          c:
            parameters:
              a:
                type: string
                default: "yes"
              b:
                type: boolean
                default: yes
              c:
                default: "1.0"
        "##);
    }

    #[test]
    fn one_file_may_hold_several_elements_and_a_section_several_files() {
        let parts = [
            part(OrbPlace::Top, "@orb.yml", "version: 2.1\njobs: {a: {steps: [b]}}\ncommands:\n"),
            part(OrbPlace::Elements(OrbSection::Jobs), "jobs/@more.yml", "b: {steps: [c]}\nc: {steps: [d]}"),
            part(OrbPlace::Top, "orbs.yml", "orbs: {node: a/n@1}"),
        ];
        let text = pack(&parts).text.unwrap();
        let keys: Vec<&str> = text.lines().filter(|line| !line.starts_with("    ")).collect();
        assert_eq!(keys, ["version: 2.1", "jobs:", "  a:", "  b:", "  c:", "orbs:", "  node: a/n@1"]);
    }

    #[test]
    fn what_is_there_twice_is_told_with_both_places() {
        let mut parts = command("steps: [x]");
        parts.push(part(OrbPlace::Element(OrbSection::Commands, "c".into()), "commands/c.yaml", "steps: [y]"));
        parts.push(part(OrbPlace::Top, "more.yml", "version: 2.1"));
        let told = pack(&parts).render();
        for words in
            ["command `c` is there twice", "commands/c.yaml:1:1", "commands/c.yml", "key `version`", "more.yml:1:1"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn a_file_without_anything_in_it_is_told() {
        for text in ["", "\n", "# words\n", "---\n", "null"] {
            let packed = pack(&command(text));
            assert!(packed.text.is_none() && packed.render().contains("there is nothing in it"), "{text:?}");
        }
    }

    #[test]
    fn what_is_included_has_a_bound() {
        let packed =
            pack(&command("steps: [{run: <<include(large)>>}, {run: <<include(large)>>}, {run: <<include(a.sh)>>}]"));
        assert!(packed.text.is_none() && packed.render().contains("more than 8 MB"), "{}", packed.render());
    }
}
