//! Where things came from, in words. Nothing is said unless it is wanted.

use crate::diagnostic::{Frame, Span};
use crate::resolve::{Context, Record, Trail, Whence, references};
use crate::syntax::Node;

pub(crate) struct Comments<'c> {
    pub context: &'c Context<'c>,
    /// The name of the config.
    pub source: &'c str,
    pub wanted: bool,
    pub record: Record,
}

impl Comments<'_> {
    /// `config.yml:12`.
    pub fn place(&self, span: Span) -> String {
        let file = self.context.file_name(span.file);
        format!("{}:{}", file.as_deref().unwrap_or(self.source), span.line)
    }

    pub fn say(&self, text: impl FnOnce() -> String) -> Vec<String> {
        if self.wanted { vec![text()] } else { Vec::new() }
    }

    /// A step: its place, and the commands that led there.
    pub fn step(&self, span: Span, trail: &Trail) -> Vec<String> {
        self.say(|| {
            let way: Vec<String> = trail.frames().iter().enumerate().map(|(at, frame)| self.frame(at, frame)).collect();
            format!("{}, {}", self.place(span), way.join(", "))
        })
    }

    /// "from command `x`", then "called from command `y` (config.yml:7)".
    fn frame(&self, at: usize, frame: &Frame) -> String {
        match at {
            0 => frame.text.replacen("in ", "from ", 1),
            _ => format!("{} ({})", frame.text, self.place(frame.span)),
        }
    }

    /// What the templates of a scalar named. Its trail leads into what declares the parameters.
    pub fn value(&self, node: &Node, trail: &Trail) -> Vec<String> {
        if !self.wanted || node.as_scalar().is_none() {
            return Vec::new();
        }
        let told: Vec<String> = self.named(node.span).iter().map(|name| self.reference(name, trail)).collect();
        if told.is_empty() { Vec::new() } else { vec![told.join("; ")] }
    }

    /// The names in the templates that stand at a place.
    pub fn named(&self, span: Span) -> Vec<String> {
        let written = self.context.written(span);
        if !self.context.templates || !written.contains("<<") {
            return Vec::new();
        }
        references(&written).into_iter().map(str::to_owned).collect()
    }

    /// `parameter `tag` of executor `toolbox` (default, config.yml:11)`.
    pub fn reference(&self, name: &str, trail: &Trail) -> String {
        let Some(parameter) = name.strip_prefix("parameters.") else {
            return match name.strip_prefix("pipeline.parameters.") {
                Some(parameter) => format!("pipeline parameter `{parameter}`{}", self.pipeline_whence(parameter)),
                None => format!("`{name}`"),
            };
        };
        let owner = trail.innermost().map(|(kind, name, ..)| format!(" of {kind} `{name}`")).unwrap_or_default();
        let given = self.record.given(trail).iter().find(|given| &*given.name == parameter);
        let whence = given.map(|given| format!(" ({})", self.whence(given.whence))).unwrap_or_default();
        format!("parameter `{parameter}`{owner}{whence}")
    }

    fn pipeline_whence(&self, parameter: &str) -> String {
        match self.record.pipeline.get(parameter) {
            Some(Some(span)) => format!(" (default, {})", self.place(*span)),
            Some(None) => " (given from outside)".to_owned(),
            None => String::new(),
        }
    }

    pub fn whence(&self, whence: Whence) -> String {
        match whence {
            Whence::Argument(span) => format!("given at {}", self.place(span)),
            Whence::Default(span) => format!("default, {}", self.place(span)),
            Whence::Matrix(span) => format!("matrix, {}", self.place(span)),
        }
    }
}
