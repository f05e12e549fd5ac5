//! What of a run would differ on the real service: each sentence once, with the jobs that it holds for. Pure.

use navvy_ui::text;

/// Jobs named before the sentence that they share; the others are counted.
const NAMED: usize = 3;

/// Sentences in the order in which they came first.
#[derive(Debug, Clone, Default)]
pub struct Notes(Vec<Note>);

#[derive(Debug, Clone)]
struct Note {
    text: String,
    /// None: it is about the run.
    jobs: Vec<String>,
}

impl Notes {
    /// About the run.
    pub fn add(&mut self, text: String) {
        self.note(text);
    }

    /// About a job.
    pub fn add_of(&mut self, job: &str, text: String) {
        let note = self.note(text);
        if !note.jobs.iter().any(|known| known == job) {
            note.jobs.push(job.to_owned());
        }
    }

    fn note(&mut self, text: String) -> &mut Note {
        let known = self.0.iter().position(|note| note.text == text).unwrap_or_else(|| {
            self.0.push(Note { text, jobs: Vec::new() });
            self.0.len() - 1
        });
        &mut self.0[known]
    }

    /// `a, b, c and 9 more: class large has …`
    pub fn lines(&self) -> Vec<String> {
        let line = |note: &Note| match note.jobs.as_slice() {
            [] => note.text.clone(),
            jobs => format!("{}: {}", text::list(jobs, NAMED), note.text),
        };
        self.0.iter().map(line).collect()
    }
}

impl Extend<String> for Notes {
    fn extend<I: IntoIterator<Item = String>>(&mut self, texts: I) {
        texts.into_iter().for_each(|text| self.add(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_share_the_sentence_that_holds_for_all_of_them() {
        let mut notes = Notes::default();
        for version in 1..=12 {
            notes.add_of(&format!("test-{version}"), "class large was clamped".to_owned());
            notes.add_of(&format!("test-{version}"), "class large was clamped".to_owned());
        }
        notes.add_of("lint", "image a was replaced by b".to_owned());
        notes.extend(["architecture: arm64".to_owned(), "architecture: arm64".to_owned()]);
        assert_eq!(
            notes.lines(),
            [
                "test-1, test-2, test-3 and 9 more: class large was clamped",
                "lint: image a was replaced by b",
                "architecture: arm64",
            ]
        );
    }
}
