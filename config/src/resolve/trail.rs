//! The way from a job through its commands to a place, for diagnostics and for a step's origin.

use std::sync::Arc;

use crate::diagnostic::{Frame, Span};

/// Elements that lie inside each other, outermost first. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    /// "job", "command", "executor", "workflow".
    kind: &'static str,
    name: Arc<str>,
    /// Where it is defined.
    defined: Span,
    /// Where the element around it uses it.
    used: Span,
    outer: Trail,
}

impl Trail {
    /// The way on into an element that is defined at one place and used at another.
    pub fn enter(&self, kind: &'static str, name: &str, defined: Span, used: Span) -> Self {
        Self(Some(Arc::new(Link { kind, name: name.into(), defined, used, outer: self.clone() })))
    }

    /// For a diagnostic: innermost first.
    pub fn frames(&self) -> Vec<Frame> {
        let Some(innermost) = &self.0 else { return Vec::new() };
        let mut frames = vec![frame("in", innermost, innermost.defined)];
        let mut inner = innermost;
        while let Some(outer) = &inner.outer.0 {
            frames.push(frame("called from", outer, inner.used));
            inner = outer;
        }
        frames
    }

    /// For an origin: outermost first.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.links().map(|link| [link.kind, " ", &link.name].concat()).collect();
        names.reverse();
        names
    }

    /// The innermost element: its kind and name, where it is defined, and where it is used.
    pub fn innermost(&self) -> Option<(&'static str, &str, Span, Span)> {
        self.0.as_deref().map(|link| (link.kind, &*link.name, link.defined, link.used))
    }

    /// Tells this way from every other that is still known.
    pub fn id(&self) -> usize {
        self.0.as_ref().map_or(0, |link| Arc::as_ptr(link).addr())
    }

    /// Does the way lead through this element already?
    pub fn passes(&self, kind: &str, defined: Span) -> bool {
        self.links().any(|link| link.kind == kind && link.defined == defined)
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.0.as_deref(), |link| link.outer.0.as_deref())
    }
}

fn frame(how: &str, link: &Link, span: Span) -> Frame {
    Frame { text: format!("{how} {} `{}`", link.kind, link.name), span }
}
