//! The end of a run: what became of each job, what would differ on the real service, and one word for all of it.

use std::collections::BTreeMap;

use navvy_job::event::{ContextGiven, JobEnd, JobRef, JobSummary, Summary};
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_job::outcome::{JobStatus, SkipReason};

use super::labels::Labels;
use super::sanitize::{clean, first_line};
use super::secrets;
use super::style::Palette;
use super::{describe, text};

/// As many jobs of one reason share a row.
const SHARED_FROM: usize = 4;

/// Lines of the summary. No line is wider than `width`, but for words (paths) that are so by themselves.
pub fn render(summary: &Summary, labels: &Labels, palette: Palette, width: Option<usize>) -> String {
    let page = Page { summary, labels, palette, width };
    let mut sections = vec![page.table(), page.unapproved(), page.held()];
    sections.push(page.bullets("Warnings", &counted(&summary.warnings)));
    sections.push(page.bullets("Handed to jobs from your machine", &given(summary)));
    sections.extend(summary.secrets.as_deref().map(|masked| secrets::lines(masked, palette)));
    sections.push(page.bullets("Left behind, could not be removed", &summary.leftovers));
    sections.push(page.bullets("On the real service this would differ", &summary.fidelity));
    sections.push(page.ending());
    sections.retain(|lines| !lines.is_empty());
    let sections: Vec<String> = sections.iter().map(|lines| lines.join("\n") + "\n").collect();
    sections.join("\n")
}

/// What of the user's own went to which jobs.
fn given(summary: &Summary) -> Vec<String> {
    let contexts =
        summary.contexts_given.iter().map(|ContextGiven { context, jobs }| format!("{context} → {}", jobs.join(", ")));
    let contexts: Vec<String> = contexts.collect();
    let files: Vec<String> = summary.env_files_given.iter().map(|file| file.display().to_string()).collect();
    let mut lines = Vec::new();
    if !contexts.is_empty() {
        lines.push(format!("contexts given: {}", contexts.join("; ")));
    }
    if !files.is_empty() {
        lines.push(format!("env-files given: {} → every job", files.join(", ")));
    }
    lines
}

/// `✓`, `✗`, `○`, `?`.
pub fn mark(palette: Palette, end: &JobEnd) -> String {
    match end {
        JobEnd::Ran { status: JobStatus::Success, .. } | JobEnd::Passed { .. } => palette.good("✓"),
        JobEnd::Ran { status: JobStatus::Canceled | JobStatus::NotRun, .. } => palette.caution("○"),
        JobEnd::Ran { .. } => palette.bad("✗"),
        JobEnd::NotAvailable { .. } | JobEnd::NotRun { .. } => palette.faint("○"),
        JobEnd::Unapproved { .. } | JobEnd::Held { .. } => palette.caution("?"),
    }
}

/// The end of a job in one sentence.
pub fn end_in_words(job: &JobRef, end: &JobEnd) -> String {
    let what = what(job, end);
    if what.is_empty() { verdict(end).to_owned() } else { format!("{}: {what}", verdict(end)) }
}

fn verdict(end: &JobEnd) -> &'static str {
    match end {
        JobEnd::Ran { infra: Some(_), .. } => "not carried out",
        JobEnd::Ran { status: JobStatus::Success, .. } | JobEnd::Passed { .. } => "passed",
        JobEnd::Ran { status: JobStatus::Failed, .. } => "failed",
        JobEnd::Ran { status: JobStatus::Canceled, .. } => "canceled",
        JobEnd::Ran { status: JobStatus::Unauthorized, .. } => "unauthorized",
        JobEnd::Ran { status: JobStatus::NotRun, .. } | JobEnd::NotRun { .. } => "not run",
        JobEnd::NotAvailable { .. } => "not available here",
        JobEnd::Unapproved { .. } | JobEnd::Held { .. } => "held",
    }
}

fn what(job: &JobRef, end: &JobEnd) -> String {
    match end {
        JobEnd::Ran { infra: Some(fault), .. } => clean(fault),
        JobEnd::Ran { failed_step: Some(step), .. } => first_line(step),
        JobEnd::Ran { .. } => String::new(),
        JobEnd::NotAvailable { needs } => format!("needs {}", clean(needs)),
        JobEnd::Unapproved { approval } if job.job == *approval => "nobody approved it".to_owned(),
        JobEnd::Unapproved { approval } => format!("waits for approval {}", clean(approval)),
        JobEnd::Held { before } => format!("before step {}", first_line(before)),
        JobEnd::NotRun { why } => clean(why),
        JobEnd::Passed { how } => clean(how),
    }
}

struct Page<'a> {
    summary: &'a Summary,
    labels: &'a Labels,
    palette: Palette,
    width: Option<usize>,
}

impl Page<'_> {
    fn table(&self) -> Vec<String> {
        let groups = self.groups();
        let rows: Vec<[String; 4]> = groups.iter().map(|group| self.row(group)).collect();
        let columns: Vec<usize> =
            (0..3).map(|at| rows.iter().map(|row| text::width(&row[at])).max().unwrap_or(0)).collect();
        let rows = groups.iter().zip(&rows);
        rows.flat_map(|(group, row)| self.table_lines(group[0], row, &columns)).collect()
    }

    /// Jobs that share a row, in the order of their first ones. Of a matrix whose jobs did not run for one reason, one row
    /// tells it all.
    fn groups(&self) -> Vec<Vec<&JobSummary>> {
        let mut groups: Vec<Vec<&JobSummary>> = Vec::new();
        for job in &self.summary.jobs {
            let alike = groups.iter_mut().find(|group| is_told_alike(group[0], job));
            match alike {
                Some(group) => group.push(job),
                None => groups.push(vec![job]),
            }
        }
        let (shared, few): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.len() >= SHARED_FROM);
        let mut rows: Vec<Vec<&JobSummary>> = few.into_iter().flatten().map(|job| vec![job]).collect();
        rows.extend(shared);
        rows.sort_by_key(|row| self.summary.jobs.iter().position(|job| std::ptr::eq(job, row[0])));
        rows
    }

    /// The row of these jobs, which ended alike.
    fn row(&self, jobs: &[&JobSummary]) -> [String; 4] {
        let job = jobs[0];
        let labels: Vec<String> = jobs.iter().map(|job| self.labels.job(&job.job)).collect();
        let time = match &job.end {
            JobEnd::Ran { duration_ms, .. } => figures::duration(*duration_ms),
            _ => String::new(),
        };
        let mut notes = vec![what(&job.job, &job.end)];
        if job.skipped_steps > 0 {
            notes.push(format!("{} skipped", text::count(job.skipped_steps, "step")));
        }
        if job.warnings > 0 {
            notes.push(text::count(job.warnings, "warning"));
        }
        notes.retain(|note| !note.is_empty());
        [text::list(&labels, 1), verdict(&job.end).to_owned(), time, notes.join(", ")]
    }

    /// A row, and below it the failed step's log. What does not fit beside the first columns goes below them.
    fn table_lines(&self, job: &JobSummary, row: &[String; 4], columns: &[usize]) -> Vec<String> {
        let [label, verdict, time, notes] = row;
        let widths = [columns.first(), columns.get(1), columns.get(2)].map(|w| w.copied().unwrap_or(0));
        let label = self.palette.strong(&text::pad(label, widths[0]));
        let verdict = text::pad(verdict, widths[1]);
        let time = text::pad_left(time, widths[2]);
        let start = format!("{} {label}  {verdict}  {time}  ", mark(self.palette, &job.end));
        let fits = self.width.is_none_or(|width| text::width(&start) + text::width(notes) <= width);
        let cut = |line: &str| self.width.map_or_else(|| line.to_owned(), |width| text::cut(line, width));
        let mut lines = match fits {
            true => vec![format!("{start}{notes}").trim_end().to_owned()],
            false => {
                let mut lines = vec![cut(start.trim_end())];
                lines.extend(text::wrap(notes, "    ", self.width));
                lines
            }
        };
        for log in job.log.iter().chain(&job.other_logs) {
            lines.push(self.palette.faint(&format!("    {}", clean(&log.display().to_string()))));
        }
        lines
    }

    /// Approvals that were not given, and what waits behind each.
    fn unapproved(&self) -> Vec<String> {
        let mut approvals: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for job in &self.summary.jobs {
            if let JobEnd::Unapproved { approval } = &job.end {
                let behind = approvals.entry(approval).or_default();
                if job.job.job != *approval {
                    behind.push(self.labels.job(&job.job));
                }
            }
        }
        let lines = approvals.iter().map(|(approval, behind)| {
            let approval = clean(approval);
            let behind = if behind.is_empty() { "nothing".to_owned() } else { text::list(behind, 8) };
            format!("{approval} was not approved (--approve {approval}); behind it: {behind}")
        });
        self.bullets("Held", &lines.collect::<Vec<String>>())
    }

    /// Environments that stay, and what can be done with them.
    fn held(&self) -> Vec<String> {
        let lines = self.summary.jobs.iter().flat_map(|job| {
            job.held.iter().map(|held| {
                let (task, step, until) = (&held.task, held.at.step, clean(&held.until));
                let label = self.labels.node(&job.job, held.node_index, held.node_total);
                format!(
                    "{label} at step {step}, until {until}: navvy shell {task}, navvy retry {task}, navvy rm {task}"
                )
            })
        });
        self.bullets("Environments that stay", &lines.collect::<Vec<String>>())
    }

    fn bullets(&self, title: &str, items: &[String]) -> Vec<String> {
        if items.is_empty() {
            return Vec::new();
        }
        let title = self.palette.strong(&format!("{title}:"));
        let lines = items.iter().flat_map(|item| text::wrap(&clean(item), "  - ", self.width));
        std::iter::once(title).chain(lines).collect()
    }

    fn ending(&self) -> Vec<String> {
        let mut skipped: BTreeMap<SkipReason, usize> = BTreeMap::new();
        for (why, count) in self.summary.jobs.iter().flat_map(|job| &job.skipped) {
            *skipped.entry(*why).or_default() += count;
        }
        let line = |(why, count): (SkipReason, usize)| {
            let line = format!("{} skipped: {}", text::count(count, "step"), describe::why_skipped(why));
            text::wrap(&line, "", self.width)
        };
        let mut lines: Vec<String> = skipped.into_iter().flat_map(line).collect();
        lines.push(format!("Logs: {}", clean(&self.summary.logs.display().to_string())));
        let (paint, words): (fn(Palette, &str) -> String, String) = self.last_words();
        lines.extend(text::wrap(&words, "", self.width).iter().map(|line| paint(self.palette, line)));
        lines
    }

    fn last_words(&self) -> (fn(Palette, &str) -> String, String) {
        let time = figures::duration(self.summary.duration_ms);
        match self.summary.exit_code {
            exit_code::PASSED => (Palette::good, format!("✓ {} · {time}", self.everything())),
            exit_code::JOB_FAILED => (Palette::bad, format!("✗ {} · {time}", self.failures())),
            exit_code::INCOMPLETE => (Palette::caution, format!("○ {} · {time}", self.incomplete())),
            exit_code::CANCELED => (Palette::caution, format!("○ Canceled · {time}")),
            exit_code::INFRA => {
                (Palette::bad, format!("✗ Navvy or this machine failed, not the jobs' own steps · {time}"))
            }
            exit_code::BAD_CONFIG => {
                (Palette::bad, format!("✗ The pipeline could not go on: what it continues with cannot be run · {time}"))
            }
            code => (Palette::bad, format!("✗ Ended with exit code {code} · {time}")),
        }
    }

    fn everything(&self) -> String {
        match self.summary.jobs.len() {
            0 => "There was nothing to run".to_owned(),
            1 => "The job passed".to_owned(),
            2 => "Both jobs passed".to_owned(),
            all => format!("All {all} jobs passed"),
        }
    }

    fn failures(&self) -> String {
        let failed = self.jobs_where(|end| matches!(verdict(end), "failed" | "not carried out" | "unauthorized"));
        let rest = match self.jobs_where(was_left_out).len() {
            0 => String::new(),
            left => format!("; {left} did not run"),
        };
        format!("{} of {} failed: {}{rest}", failed.len(), self.jobs(), text::list(&failed, 5))
    }

    fn incomplete(&self) -> String {
        let left = self.jobs_where(was_left_out);
        format!("Nothing failed, but {} of {} did not run: {}", left.len(), self.jobs(), text::list(&left, 5))
    }

    fn jobs(&self) -> String {
        text::count(self.summary.jobs.len(), "job")
    }

    fn jobs_where(&self, is: impl Fn(&JobEnd) -> bool) -> Vec<String> {
        self.summary.jobs.iter().filter(|job| is(&job.end)).map(|job| self.labels.job(&job.job)).collect()
    }
}

/// Did both not run, for the same reason and with nothing more to say of either?
fn is_told_alike(one: &JobSummary, other: &JobSummary) -> bool {
    let is_bare = |job: &JobSummary| {
        was_left_out(&job.end) && job.log.is_none() && job.held.is_empty() && job.warnings + job.skipped_steps == 0
    };
    one.job.workflow == other.job.workflow && one.end == other.end && is_bare(one) && is_bare(other)
}

fn was_left_out(end: &JobEnd) -> bool {
    matches!(end, JobEnd::NotAvailable { .. } | JobEnd::Unapproved { .. } | JobEnd::Held { .. } | JobEnd::NotRun { .. })
}

/// Equal texts once, with how often they came.
fn counted(texts: &[String]) -> Vec<String> {
    let mut seen: Vec<(&String, usize)> = Vec::new();
    for text in texts {
        match seen.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times += 1,
            None => seen.push((text, 1)),
        }
    }
    seen.iter()
        .map(|(text, times)| if *times > 1 { format!("{text} ({times} times)") } else { (*text).clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Scene, failed, passed, ran};
    use super::*;

    fn long() -> Summary {
        let mut scene = Scene::new(&[]);
        scene.job_ends("lint", passed()).job_ends("unit-eur", failed("Unit tests in eur"));
        scene.job_ends("naïve-日本", passed()).job_ends("hold", JobEnd::Unapproved { approval: "hold".to_owned() });
        scene.job_ends("deploy", JobEnd::Unapproved { approval: "hold".to_owned() });
        scene.job_ends("mac", JobEnd::NotAvailable { needs: "a macOS host with Xcode 15".to_owned() });
        scene.job_ends("notify", JobEnd::NotRun { why: "requires unit-eur, which failed".to_owned() });
        scene.job_ends("skip", JobEnd::Passed { how: "assumed (--assume)".to_owned() });
        let infra = Some("the image navvy/none could not be pulled: not found".to_owned());
        let end = JobEnd::Ran { status: JobStatus::Failed, duration_ms: 90, failed_step: None, infra };
        scene.job_ends("broken", end);
        let mut summary = scene.summary(exit_code::JOB_FAILED);
        summary.jobs[0].skipped_steps = 4;
        summary.jobs[0].skipped = BTreeMap::from([(SkipReason::NotAvailable, 1), (SkipReason::OrbMissing, 3)]);
        summary.jobs[2].warnings = 1;
        summary.warnings = ["context aws is not here", "no tests", "no tests"].map(str::to_owned).to_vec();
        summary.leftovers = vec!["container navvy-0123456789abcdef-primary".to_owned()];
        let jobs = vec!["lint".to_owned(), "unit-eur".to_owned()];
        summary.contexts_given = vec![
            ContextGiven { context: "npm".to_owned(), jobs },
            ContextGiven { context: "prod".to_owned(), jobs: vec!["deploy".to_owned()] },
        ];
        summary.env_files_given = vec!["/home/ann/my.env".into()];
        summary.fidelity = vec![
            "Class large of job unit-eur has 4 CPUs and 8 GiB there; here it got 2 CPUs and 4 GiB.".to_owned(),
            "2 steps were skipped.".to_owned(),
        ];
        summary
    }

    fn render_at(width: Option<usize>) -> String {
        render(&long(), &Labels::default(), Palette::default(), width)
    }

    #[test]
    fn everything_there_is_to_say() {
        insta::assert_snapshot!(render_at(None), @r"
        ✓ lint        passed              2.5s  4 steps skipped
        ✗ unit-eur    failed              2.5s  Unit tests in eur
            /logs/1/unit-eur/2.log
        ✓ naïve-日本  passed              2.5s  1 warning
        ? hold        held                      nobody approved it
        ? deploy      held                      waits for approval hold
        ○ mac         not available here        needs a macOS host with Xcode 15
        ○ notify      not run                   requires unit-eur, which failed
        ✓ skip        passed                    assumed (--assume)
        ✗ broken      not carried out     90ms  the image navvy/none could not be pulled: not found

        Held:
          - hold was not approved (--approve hold); behind it: deploy

        Warnings:
          - context aws is not here
          - no tests (2 times)

        Handed to jobs from your machine:
          - contexts given: npm → lint, unit-eur; prod → deploy
          - env-files given: /home/ann/my.env → every job

        Left behind, could not be removed:
          - container navvy-0123456789abcdef-primary

        On the real service this would differ:
          - Class large of job unit-eur has 4 CPUs and 8 GiB there; here it got 2 CPUs and 4 GiB.
          - 2 steps were skipped.

        1 step skipped: not available in this version
        3 steps skipped: their orbs are not here (--allow-missing-orbs)
        Logs: /logs/1
        ✗ 2 of 9 jobs failed: unit-eur, broken; 4 did not run · 3.6s
        ");
    }

    #[test]
    fn on_a_narrow_terminal() {
        insta::assert_snapshot!(render_at(Some(46)), @r"
        ✓ lint        passed              2.5s
            4 steps skipped
        ✗ unit-eur    failed              2.5s
            Unit tests in eur
            /logs/1/unit-eur/2.log
        ✓ naïve-日本  passed              2.5s
            1 warning
        ? hold        held
            nobody approved it
        ? deploy      held
            waits for approval hold
        ○ mac         not available here
            needs a macOS host with Xcode 15
        ○ notify      not run
            requires unit-eur, which failed
        ✓ skip        passed
            assumed (--assume)
        ✗ broken      not carried out     90ms
            the image navvy/none could not be pulled:
            not found

        Held:
          - hold was not approved (--approve hold);
            behind it: deploy

        Warnings:
          - context aws is not here
          - no tests (2 times)

        Handed to jobs from your machine:
          - contexts given: npm → lint, unit-eur; prod
            → deploy
          - env-files given: /home/ann/my.env → every
            job

        Left behind, could not be removed:
          - container navvy-0123456789abcdef-primary

        On the real service this would differ:
          - Class large of job unit-eur has 4 CPUs and
            8 GiB there; here it got 2 CPUs and 4 GiB.
          - 2 steps were skipped.

        1 step skipped: not available in this version
        3 steps skipped: their orbs are not here
        (--allow-missing-orbs)
        Logs: /logs/1
        ✗ 2 of 9 jobs failed: unit-eur, broken; 4 did
        not run · 3.6s
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 46..120 {
            for line in render_at(Some(width)).lines() {
                assert!(text::width(line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn many_jobs_that_did_not_run_for_one_reason_share_a_row() {
        let not_run = |why: &str| JobEnd::NotRun { why: why.to_owned() };
        let mut scene = Scene::new(&[]);
        scene.job_ends("build", failed("Make"));
        for version in 1..=12 {
            scene.job_ends(&format!("test-{version}"), not_run("build ended failed"));
            scene.job_ends(&format!("mac-{version}"), JobEnd::NotAvailable { needs: "macOS".to_owned() });
        }
        for number in 1..=3 {
            scene.job_ends(&format!("few-{number}"), not_run("test-1 ended not_run"));
        }
        scene.job_ends("last", passed());
        let text = render(&scene.summary(exit_code::JOB_FAILED), &Labels::default(), Palette::default(), None);
        insta::assert_snapshot!(text, @r"
        ✗ build               failed              2.5s  Make
            /logs/1/build/2.log
        ○ test-1 and 11 more  not run                   build ended failed
        ○ mac-1 and 11 more   not available here        needs macOS
        ○ few-1               not run                   test-1 ended not_run
        ○ few-2               not run                   test-1 ended not_run
        ○ few-3               not run                   test-1 ended not_run
        ✓ last                passed              2.5s

        Logs: /logs/1
        ✗ 1 of 29 jobs failed: build; 27 did not run · 3.6s
        ");
    }

    #[test]
    fn the_last_line_is_the_verdict_in_words() {
        let last = |exit_code: u8, ends: &[JobEnd]| {
            let mut scene = Scene::new(&[]);
            for (name, end) in ["a", "b", "c"].iter().zip(ends) {
                scene.job_ends(name, end.clone());
            }
            let text = render(&scene.summary(exit_code), &Labels::default(), Palette::default(), None);
            text.lines().last().unwrap_or_default().to_owned()
        };
        let held = JobEnd::Unapproved { approval: "b".to_owned() };
        let lines = [
            last(exit_code::PASSED, &[passed(), passed(), passed()]),
            last(exit_code::PASSED, &[passed()]),
            last(exit_code::JOB_FAILED, &[passed(), failed("x"), held.clone()]),
            last(exit_code::INCOMPLETE, &[passed(), held.clone(), held]),
            last(exit_code::CANCELED, &[ran(JobStatus::Canceled, None)]),
            last(exit_code::INFRA, &[ran(JobStatus::Failed, None)]),
            last(exit_code::BAD_CONFIG, &[passed()]),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        ✓ All 3 jobs passed · 3.6s
        ✓ The job passed · 3.6s
        ✗ 1 of 3 jobs failed: b; 1 did not run · 3.6s
        ○ Nothing failed, but 2 of 3 jobs did not run: b, c · 3.6s
        ○ Canceled · 3.6s
        ✗ Navvy or this machine failed, not the jobs' own steps · 3.6s
        ✗ The pipeline could not go on: what it continues with cannot be run · 3.6s
        ");
    }
}
