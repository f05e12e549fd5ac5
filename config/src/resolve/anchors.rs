//! Does a pattern say itself that it must match the whole value? Then it means the same to those who look for a part.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Dot, Hir, HirKind, Look};

/// `^…$`, or `.*` in place of either.
pub(super) fn are_there(pattern: &str) -> bool {
    match ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern) {
        Ok(hir) => holds(&hir, End::First) && holds(&hir, End::Last),
        // What this parser does not know, look-around above all, is judged by its first and its last letter.
        Err(_) => pattern.starts_with('^') && pattern.ends_with('$'),
    }
}

/// One end of a pattern.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Does `end` of the pattern reach that of the value, in every alternative?
fn holds(hir: &Hir, end: End) -> bool {
    match (hir.kind(), end) {
        (HirKind::Look(look), End::First) => *look == Look::Start,
        (HirKind::Look(look), End::Last) => *look == Look::End,
        (HirKind::Repetition(repeated), _) => repeated.min == 0 && repeated.max.is_none() && is_any(&repeated.sub),
        (HirKind::Capture(group), _) => holds(&group.sub, end),
        (HirKind::Concat(parts), End::First) => parts.first().is_some_and(|part| holds(part, end)),
        (HirKind::Concat(parts), End::Last) => parts.last().is_some_and(|part| holds(part, end)),
        (HirKind::Alternation(parts), _) => parts.iter().all(|part| holds(part, end)),
        (HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_), _) => false,
    }
}

fn is_any(hir: &Hir) -> bool {
    [Dot::AnyByteExceptLF, Dot::AnyByte].into_iter().any(|dot| *hir == Hir::dot(dot))
}
