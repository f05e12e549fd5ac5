//! Diagnostics for programs: `navvy config validate --format json` (docs/navvy-config.md).

use serde::Serialize;

use super::places::{Place, Places};
use crate::diagnostic::{Diagnostic, Severity};
use crate::input::{File, Source};

/// Changes when a reader of the document would have to.
const FORMAT: u32 = 1;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Report<'d> {
    /// Format of this document: 1.
    format: u32,
    /// The config's name.
    file: &'d str,
    /// Has it no error?
    valid: bool,
    errors: usize,
    warnings: usize,
    /// In the order of the file.
    diagnostics: Vec<Reported<'d>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Reported<'d> {
    /// `error` or `warning`.
    severity: &'static str,
    /// Stable, in kebab-case.
    code: &'static str,
    message: &'d str,
    /// Short text beside the place.
    label: Option<&'d str>,
    /// What the author could do.
    help: Option<&'d str>,
    /// Null for what has no place of its own.
    span: Option<Place>,
    /// The way to the place, innermost first.
    trail: Vec<Pointed<'d>>,
    /// Other places that have to do with it.
    related: Vec<Pointed<'d>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Pointed<'d> {
    text: &'d str,
    span: Option<Place>,
}

/// All diagnostics as one JSON document with a line break at the end.
pub(crate) fn render_json(source: &Source<'_>, files: &[File], diagnostics: &[Diagnostic]) -> String {
    let places = Places::new(source, files);
    let of = |severity| diagnostics.iter().filter(|told| told.severity == severity).count();
    let report = Report {
        format: FORMAT,
        file: source.name,
        valid: of(Severity::Error) == 0,
        errors: of(Severity::Error),
        warnings: of(Severity::Warning),
        diagnostics: diagnostics.iter().map(|diagnostic| told(&places, diagnostic)).collect(),
    };
    // No map of these types has keys that are not texts.
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

fn told<'d>(places: &Places<'_>, diagnostic: &'d Diagnostic) -> Reported<'d> {
    let pointed = |text: &'d String, span| Pointed { text, span: places.of(span) };
    Reported {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        code: diagnostic.code,
        message: &diagnostic.message,
        label: diagnostic.label.as_deref(),
        help: diagnostic.help.as_deref(),
        span: places.of(diagnostic.span),
        trail: diagnostic.trail.iter().map(|frame| pointed(&frame.text, frame.span)).collect(),
        related: diagnostic.related.iter().map(|related| pointed(&related.text, related.span)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{committed, valid};
    use crate::{Inputs, compile};

    const WRONG: &str = "version: 2.1
jobs:
  build:
    docker: [{image: ü, command: x}]
    machine: true
    steps: [{run: {command: a, nam: 1}}]
  build: {docker: [{image: x}], steps: [chekout]}
";

    fn report(text: &str) -> serde_json::Value {
        let source = Source { name: "a b.yml", text };
        serde_json::from_str(&compile(&source, &Inputs::default()).render_json(&source)).unwrap()
    }

    #[test]
    fn all_there_is_to_say_is_there() {
        insta::assert_json_snapshot!(report(WRONG));
    }

    fn schema() -> serde_json::Value {
        let settings = schemars::generate::SchemaSettings::draft2020_12();
        let mut schema = settings.into_generator().into_root_schema_for::<Report<'_>>();
        schema.insert("$id".to_owned(), "urn:navvy:diagnostics:1".into());
        schema.insert("title".to_owned(), "Output of `navvy config validate --format json`".into());
        schema.to_value()
    }

    #[test]
    fn the_schema_in_docs_is_that_of_the_types() {
        committed("docs/diagnostics.schema.json", &schema());
    }

    #[test]
    fn what_is_written_fits_the_schema() {
        for text in [WRONG, "", "a: [", "version: 2.1\njobs: {}\nworkflows: {}\n"] {
            assert_eq!(valid(&schema(), &report(text)), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_has_no_place_has_none() {
        let source = Source { name: "c", text: "" };
        assert!(Places::new(&source, &[]).of(crate::Span::default()).is_none());
        let report = report("");
        assert_eq!((&report["valid"], &report["errors"]), (&false.into(), &1.into()));
    }

    #[test]
    fn ends_are_those_of_the_text() {
        let source = Source { name: "c", text: "a: ä\n  ö\nb" };
        let span = crate::Span { file: 0, start: 3, end: 10, line: 1, column: 4 };
        let place = Places::new(&source, &[]).of(span).unwrap();
        assert_eq!((place.end_line, place.end_column), (2, 4));
    }
}
