//! Dialects, and what is no report.

use proptest::prelude::*;

use super::*;

fn read(document: impl AsRef<[u8]>) -> (Vec<Case>, Result<(), Broken>) {
    let mut cases = Vec::new();
    let done = parse(document.as_ref(), Limits::default(), &mut cases);
    (cases, done)
}

fn cases(document: impl AsRef<[u8]>) -> Vec<Case> {
    let (cases, done) = read(document);
    assert_eq!(done, Ok(()));
    cases
}

fn one(document: &str) -> Case {
    let mut cases = cases(document);
    assert_eq!(cases.len(), 1);
    cases.remove(0)
}

fn broken(document: impl AsRef<[u8]>) -> String {
    read(document).1.unwrap_err().to_string()
}

const RSPEC: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="rspec" tests="3" skipped="1" failures="1" errors="0" time="1.5" timestamp="2026-11-21T10:00:00+00:00">
<properties><property name="seed" value="1"/></properties>
<testcase classname="spec.cart_spec" name="Cart adds &lt;tax&gt; &amp; more" file="./spec/cart_spec.rb" time="0.5">
  <failure message="expected: 12&#10;     got: 11" type="RSpec::Expectations::ExpectationNotMetError">Failure/Error: expect(total).to eq 12

expected: 12
# ./spec/cart_spec.rb:14:in `block'</failure>
</testcase>
<testcase classname="spec.cart_spec" name="Cart is slow" file="./spec/cart_spec.rb" time="1,234.25"><skipped/></testcase>
<testcase classname="spec.shop_spec" name="Shop opens" file="./spec/shop_spec.rb" time="1.0"></testcase>
</testsuite>
"#;

#[test]
fn a_suite_alone_is_a_report() {
    let cases = cases(RSPEC);
    let outcomes: Vec<Outcome> = cases.iter().map(|case| case.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Skipped, Outcome::Passed]);
    assert_eq!(cases[0].name, "Cart adds <tax> & more");
    assert_eq!(cases[0].place.as_deref(), Some("./spec/cart_spec.rb:14"));
    let message = cases[0].message.as_deref().unwrap();
    assert!(message.starts_with("expected: 12\n     got: 11\nFailure/Error: expect(total).to eq 12\n"), "{message}");
    assert_eq!(cases[1].micros, Some(1_234_250_000));
    assert_eq!(cases[2].message, None);
}

#[test]
fn suites_lie_in_each_other_and_hand_their_file_down() {
    let cases = cases(
        r#"<testsuites><testsuite name="a" file="a.js"><testcase name="1" time="1"/>
           <testsuite name="b"><testcase name="2"/></testsuite>
           <testsuite name="c" file="c.js"><testcase name="3" file="own.js"/><testcase name="4"/></testsuite></testsuite>
           <testsuite name="d"><testcase name="5" classname="D"/></testsuite></testsuites>"#,
    );
    let files: Vec<Option<&str>> = cases.iter().map(|case| case.file.as_deref()).collect();
    assert_eq!(files, [Some("a.js"), Some("a.js"), Some("own.js"), Some("c.js"), None]);
    assert_eq!(cases[4].class.as_deref(), Some("D"));
    assert_eq!((cases[0].micros, cases[1].micros), (Some(1_000_000), None));
}

#[test]
fn errors_and_failures_have_their_words_from_wherever_they_stand() {
    let of = |inside: &str| one(&format!(r#"<testsuite><testcase name="x">{inside}</testcase></testsuite>"#));
    let error = of("<error><![CDATA[panic: <nil> & more]]></error>");
    assert_eq!((error.outcome, error.message.as_deref()), (Outcome::Errored, Some("panic: <nil> & more")));
    let typed = of(r#"<failure type="AssertionError"/>"#);
    assert_eq!((typed.outcome, typed.message.as_deref()), (Outcome::Failed, Some("AssertionError")));
    let silent = of("<failure/>");
    assert_eq!((silent.outcome, silent.message), (Outcome::Failed, None));
    let twice = of(r#"<failure message="same">same, and more</failure><system-out>noise</system-out>"#);
    assert_eq!(twice.message.as_deref(), Some("same, and more"));
    let both = of(r#"<skipped message="no"/><failure message="first"/><failure message="second">text</failure>"#);
    assert_eq!((both.outcome, both.message.as_deref()), (Outcome::Failed, Some("first")));
    let worse = of(r#"<failure message="first">its text</failure><error message="worse"/>"#);
    assert_eq!((worse.outcome, worse.message.as_deref()), (Outcome::Errored, Some("worse")));
    let flaky = of(r#"<flakyFailure message="once">text</flakyFailure>"#);
    assert_eq!(flaky.outcome, Outcome::Flaky);
    let raw = of("<failure>a &unknown; b & c &#x41;&quot;</failure>");
    assert_eq!(raw.message.as_deref(), Some("a &unknown; b & c A\""));
}

#[test]
fn skips_are_told_by_attributes_too() {
    let of = |attributes: &str| one(&format!("<testsuite><testcase name='x' {attributes}/></testsuite>")).outcome;
    assert_eq!(of("status='notrun'"), Outcome::Skipped);
    assert_eq!(of("status='run' result='skipped'"), Outcome::Skipped);
    assert_eq!(of("status='run' result='completed'"), Outcome::Passed);
}

#[test]
fn times_are_read_as_people_write_them() {
    for (text, expected) in [
        ("1.5", Some(1_500_000)),
        ("1,234.56", Some(1_234_560_000)),
        ("1,234,567.8", Some(1_234_567_800_000)),
        ("1,234", Some(1_234_000_000)),
        ("0,123", Some(123_000)),
        ("12,5", Some(12_500_000)),
        (" 3s ", Some(3_000_000)),
        ("1e-3", Some(1_000)),
        ("0", Some(0)),
        ("", None),
        ("-1", None),
        ("NaN", None),
        ("inf", None),
        ("1e300", None),
        ("soon", None),
    ] {
        assert_eq!(micros(text), expected, "{text:?}");
    }
}

#[test]
fn any_encoding_is_read_whatever_is_declared() {
    let document = |declared: &str| {
        format!("<?xml version='1.0' encoding='{declared}'?><testsuite><testcase name='Prüfung' time='1'/></testsuite>")
    };
    let utf8 = document("ISO-8859-1").into_bytes();
    let latin: Vec<u8> = document("UTF-8").chars().map(|c| c as u8).collect();
    let wide: Vec<u8> = document("UTF-16").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [b"\xef\xbb\xbf", utf8.as_slice()].concat();
    for bytes in [utf8, latin, wide, marked, document("UTF-16").into_bytes(), document("klingon").into_bytes()] {
        assert_eq!(cases(&bytes)[0].name, "Prüfung", "{bytes:?}");
    }
}

#[test]
fn other_programs_elements_are_passed_over() {
    let case = one(r#"<!DOCTYPE testsuites SYSTEM "junit.dtd"><!-- c --><x:testsuites xmlns:x="urn:x"><x:testsuite>
        <x:properties><x:testcase name="no"/></x:properties><x:testcase name="yes"><x:failure message="m"><b>inside</b></x:failure>
        <x:testcase name="nor this"/></x:testcase></x:testsuite></x:testsuites>"#);
    assert_eq!((case.name.as_str(), case.outcome, case.message.as_deref()), ("yes", Outcome::Failed, Some("m")));
}

#[test]
fn what_is_broken_is_told_with_its_line_and_what_came_before_counts() {
    let (cases, done) = read("<testsuite>\n<testcase name='a'/>\n<testcase name='b'>\n<failure>\n");
    assert_eq!(cases.len(), 1);
    let words = done.unwrap_err().to_string();
    assert_eq!(words, "line 4: <failure> begins here and does not end: the file is cut off");
    assert!(
        broken("<testsuite>\n\n</testsuites>").starts_with("line 3: "),
        "{}",
        broken("<testsuite>\n\n</testsuites>")
    );
    assert!(broken("<testsuite>\n<testcase name='a'").contains("tag not closed"));
    assert!(broken("").contains("no element at all"));
    assert!(broken("{\"tests\": []}").contains("no element at all"));
    assert!(broken("<html><body/></html>").contains("its root is <html>, expected <testsuites> or <testsuite>"));
}

/// A pipe gives few bytes at once, a file many: neither what counts nor what is told depends on it.
#[test]
fn what_stands_before_a_fault_counts_however_the_bytes_arrive() {
    struct Few<'a>(&'a [u8], usize);
    impl Read for Few<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }
    let suite = "<testsuite>\n<testcase name='a'/>\n";
    let table = [
        (format!("{suite}<!DOCTYPE x [<!ENTITY a 'b'>]>"), "line 3: it brings a DTD of its own"),
        (format!("{suite}{}", "<testcase name='b'/>\n".repeat(100)), "line 25: the file is longer"),
        ("<!OCTYPE x [<!ENTITY a 'b'>]>".to_owned(), "line 1: syntax error: unknown or missed symbol in markup"),
    ];
    for (document, wanted) in table {
        let limits = Limits { file: 500, ..Limits::default() };
        let read = |step| {
            let mut cases = Vec::new();
            let error = parse(Few(document.as_bytes(), step), limits, &mut cases).unwrap_err();
            (cases, error)
        };
        let (cases, error) = read(usize::MAX);
        assert!(error.to_string().starts_with(wanted), "{error}");
        assert_eq!(!cases.is_empty(), document.starts_with(suite), "the tests before it count: {error}");
        for step in [1, 7, 100] {
            assert_eq!(read(step), (cases.clone(), error.clone()), "{step} bytes at a time");
        }
    }
}

#[test]
fn a_line_behind_a_text_that_was_cut_is_counted_right() {
    let text = "\n".repeat(70_000);
    let document =
        format!("<testsuite><testcase name='a'><system-out>{text}</system-out></testcase>\n<testcase name='b'>");
    assert_eq!(read(&document).1.unwrap_err().line, 70_002);
}

// ---- hostile files ----

#[test]
fn entities_are_not_expanded() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>"#;
    assert!(broken(bomb).contains("a DTD of its own"));
    let outside = r#"<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuite><testcase name="&xxe;"/></testsuite>"#;
    assert_eq!(one(outside).name, "&xxe;");
}

#[test]
fn depth_length_and_number_are_bounded() {
    let deep = "<testsuite>".repeat(100_000);
    assert!(broken(deep).contains("deeper than 128"));
    assert!(
        broken(format!("<testsuite><testcase name='{}'/></testsuite>", "x".repeat(2 << 20)))
            .contains("a tag is longer")
    );
    let noisy =
        format!("<testsuite><testcase name='{0}'><failure>{0}</failure></testcase></testsuite>", "é".repeat(100_000));
    let case = one(&noisy);
    assert!(case.name.len() <= NAME_CAP && case.message.unwrap().len() <= MESSAGE_CAP);
    let mut kept = Vec::new();
    let many = format!("<testsuite>{}", "<testcase name='abc'/>".repeat(10_000));
    let limits = Limits { kept: 100_000, ..Limits::default() };
    let error = parse(many.as_bytes(), limits, &mut kept).unwrap_err();
    assert!(error.why.contains("more tests than can be kept"), "{error}");
    assert!(kept.len() < 1000 && !kept.is_empty());
    assert!(parse(RSPEC.as_bytes(), limits, &mut kept).is_err(), "the limit is for all files together");
    let error = parse(many.as_bytes(), Limits { file: 1000, ..Limits::default() }, &mut Vec::new()).unwrap_err();
    assert!(error.why.contains("the file is longer"), "{error}");
}

/// Endless output within a case: only its beginning is ever in memory.
#[test]
fn long_output_costs_nothing() {
    let source = (&b"<testsuite>\n<testcase name='a'><system-out><![CDATA["[..])
        .chain(std::io::repeat(b'\n').take(20 << 20))
        .chain(&b"]]></system-out></testcase>\n<testcase/>\n<oops"[..]);
    let mut kept = Vec::new();
    let error = parse(source, Limits::default(), &mut kept).unwrap_err();
    assert_eq!(kept.len(), 2);
    assert_eq!(error.line, 4 + (20 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the bytes: an answer, and nothing kept that is longer than it may be.
    #[test]
    fn any_bytes_have_an_answer(
        pieces in prop::collection::vec(prop_oneof![
            Just("<testsuite file='f'>".to_owned()), Just("</testsuite>".to_owned()), Just("<testcase name='n' time='1'>".to_owned()),
            Just("</testcase>".to_owned()), Just("<failure message='m'>".to_owned()), Just("</failure>".to_owned()),
            Just("<![CDATA[".to_owned()), Just("]]>".to_owned()), Just("<!--".to_owned()), Just("<error/>".to_owned()),
            Just("&amp;".to_owned()), Just("<?x".to_owned()), "[<>&;'\"!?/a=\\-\\]\\[ ]{0,6}",
        ], 0..40),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let document = [pieces.concat().into_bytes(), tail].concat();
        let (cases, _) = read(document);
        prop_assert!(cases.iter().all(|case| case.name.len() <= NAME_CAP));
    }
}

#[test]
fn a_report_that_may_still_be_written_is_told_from_one_that_is_wrong() {
    let is_cut_off = |document: &str| read(document).1.unwrap_err().is_cut_off;
    let whole =
        "<!DOCTYPE x><testsuite><testcase name='a'><failure>no<!-- . --><![CDATA[o]]></failure></testcase></testsuite>";
    assert_eq!(read(whole).1, Ok(()));
    for length in 0..whole.len() {
        assert!(is_cut_off(&whole[..length]), "{}", &whole[..length]);
    }
    for wrong in
        ["<html></html>", "<testsuite></testcase>", "<testsuite><!what></testsuite>", "<testsuite><!>", "a text"]
    {
        assert_eq!(read(wrong).1.is_err_and(|broken| broken.is_cut_off), wrong == "a text", "{wrong}");
    }
}
