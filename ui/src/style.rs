//! Colours of Navvy's own words.

/// Colours, or none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Palette {
    /// Without it every text stays as it is.
    pub on: bool,
}

impl Palette {
    /// What went well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What needs a look, and did not fail.
    pub fn caution(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What is going on now.
    pub fn live(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// What matters less.
    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What a reader looks for first.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// One of a few colours that tell jobs apart, the same for every line of one.
    pub fn nth(self, index: usize, text: &str) -> String {
        const COLORS: [&str; 6] = ["36", "35", "34", "33", "96", "95"];
        self.paint(COLORS.get(index % COLORS.len()).copied().unwrap_or("36"), text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
