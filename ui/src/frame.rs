//! The live area: one line for each task that runs, what waits, and how far the run is. Pure: state → lines.

use navvy_job::figures;
use navvy_job::state::TaskState;

use super::board::{Approval, Board, Removal, Step, Task, Waiting};
use super::style::Palette;
use super::{Size, describe, text};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// The spinner moves, and the area is drawn, this often.
pub const FRAME_MS: u64 = 100;
/// A step's own time is shown from here on; before, the job's tells enough.
const STEP_TIME_FROM_MS: u64 = 5000;

/// Lines to draw. Each fits into a terminal's line, all of them onto its screen.
pub fn frame(board: &Board, now_ms: u64, size: Size, palette: Palette) -> Vec<String> {
    let page = Page { board, now_ms, palette, columns: size.columns.saturating_sub(1).max(1) };
    let tasks = board.tasks.iter().map(|task| page.task(task));
    let approvals = board.approvals.iter().map(|approval| page.approval(approval));
    let waiting = board.waiting.iter().map(|waiting| page.waiting(waiting));
    let removals = board.removals.iter().map(|removal| page.removal(removal));
    let mut lines: Vec<String> = tasks.chain(approvals).chain(waiting).chain(removals).collect();
    // One row for the footer, one for the cursor.
    let room = size.rows.saturating_sub(2);
    let hidden = lines.len().saturating_sub(room);
    lines.truncate(room);
    lines.push(page.footer(hidden));
    lines.iter().map(|line| text::cut(line, page.columns)).collect()
}

struct Page<'a> {
    board: &'a Board,
    now_ms: u64,
    palette: Palette,
    columns: usize,
}

impl Page<'_> {
    fn task(&self, task: &Task) -> String {
        let label = self.palette.strong(&self.label(&self.board.labels.task(&task.task)));
        self.goes_on(&label, task.started_ms, &self.doing(task))
    }

    fn removal(&self, removal: &Removal) -> String {
        let label = self.palette.faint(&self.label(&self.board.labels.task(&removal.task)));
        self.goes_on(&label, removal.since_ms, &self.palette.faint("removing its environment"))
    }

    fn goes_on(&self, label: &str, since_ms: u64, what: &str) -> String {
        let turn = usize::try_from(self.now_ms / FRAME_MS).unwrap_or(0);
        let spinner = SPINNER.get(turn % SPINNER.len()).copied().unwrap_or("·");
        let time = figures::running(self.now_ms.saturating_sub(since_ms));
        format!("{} {label}  {}  {what}", self.palette.live(spinner), text::pad_left(&time, 7))
    }

    fn doing(&self, task: &Task) -> String {
        if let Some(progress) = &task.progress {
            let far = describe::progress(progress.done, progress.total);
            let far = far.map_or_else(String::new, |far| format!(" {}", self.palette.faint(&far)));
            return format!("{}{far}", progress.what);
        }
        match task.state {
            TaskState::Claimed | TaskState::Preparing if task.steps.is_empty() => "spinning up".to_owned(),
            TaskState::Reporting | TaskState::Releasing | TaskState::Done => "ending".to_owned(),
            _ => task.current().map_or_else(|| "…".to_owned(), |step| self.step(task, step)),
        }
    }

    /// `2/5 Unit tests (12s)  last line`: the name may take half of what is left, the last line takes the rest.
    fn step(&self, task: &Task, step: &Step) -> String {
        let running = self.now_ms.saturating_sub(step.started_ms);
        let time = match running >= STEP_TIME_FROM_MS && step.started_ms > task.started_ms + STEP_TIME_FROM_MS {
            true => format!(" ({})", figures::running(running)),
            false => String::new(),
        };
        let name = text::cut(&step.name, (self.columns / 2).saturating_sub(self.board.labels.columns()).max(16));
        let what = format!(
            "{}{name}{}{time}",
            describe::number(step.number, Some(task.total)),
            describe::attempt(step.attempt)
        );
        match step.tail.last_line() {
            Some(line) => format!("{what}  {}", self.palette.faint(&line)),
            None => what,
        }
    }

    fn approval(&self, approval: &Approval) -> String {
        let label = self.label(&self.board.labels.job(&approval.job));
        let behind = match approval.holds.as_slice() {
            [] => String::new(),
            holds => format!("; behind it: {}", text::list(holds, 5)),
        };
        format!("{} {label}  {:7}  waits for approval (y){behind}", self.palette.caution("?"), "")
    }

    fn waiting(&self, waiting: &Waiting) -> String {
        let label = self.label(&self.board.labels.job(&waiting.job));
        self.palette.faint(&format!("· {label}  {:7}  waits: {}", "", waiting.why))
    }

    fn label(&self, label: &str) -> String {
        text::pad(label, self.board.labels.columns())
    }

    fn footer(&self, hidden: usize) -> String {
        let jobs = text::count(self.board.jobs, "job");
        let mut parts = vec![format!("{} of {jobs} done", self.board.ended), figures::running(self.now_ms)];
        if hidden > 0 {
            parts.insert(0, format!("… {hidden} more"));
        }
        self.palette.faint(&format!("  {}", parts.join(" · ")))
    }
}

#[cfg(test)]
mod tests {
    use navvy_job::event::{Event, TaskRef};
    use navvy_job::outcome::{StepOutcome, Verdict};

    use super::super::scene::{Scene, job, node, passed, task};
    use super::*;

    fn frame_at(scene: &Scene, columns: usize, rows: usize) -> Vec<String> {
        let mut board = Board::new(Palette::default());
        for stamped in &scene.events {
            board.apply(stamped);
        }
        frame(&board, scene.now_ms, Size { columns, rows }, Palette::default())
    }

    fn shown(scene: &Scene) -> String {
        frame_at(scene, 80, 24).join("\n")
    }

    fn state(scene: &mut Scene, task: &TaskRef, state: TaskState) {
        scene.add(Event::TaskState { task: task.clone(), state });
    }

    /// Jobs in every phase there is.
    fn busy() -> Scene {
        let mut scene = Scene::new(&["lint", "unit-eur", "integration", "pull", "hold", "deploy", "last"]);
        let (lint, unit) = (task("lint"), task("unit-eur"));
        let (one, two, pull, last) = (node("integration", 0, 2), node("integration", 1, 2), task("pull"), task("last"));
        scene.start(&lint, &["Lint"]).start(&unit, &["Checkout code", "Unit tests in eur"]);
        scene.step(&unit, 1, "Checkout code").ends(&unit, 1, "Checkout code", StepOutcome::Success);
        scene.task_ends(&lint, Verdict::Passed).job_ends("lint", passed()).after(61_000);
        scene.start(&one, &["server", "Wait"]).start(&two, &["server", "Wait"]).start(&pull, &["x"]);
        state(&mut scene, &one, TaskState::Running);
        scene.background(&one, 1, "server").step(&one, 2, "Wait").writes(&one, 1, "GET /\n");
        state(&mut scene, &two, TaskState::Preparing);
        state(&mut scene, &unit, TaskState::Running);
        scene.step(&unit, 2, "Unit tests in eur").writes(&unit, 2, "test_a ok\n\x1b[31mtest_b\tfails\x1b[2J\n\n");
        let what = "pulling cimg/node:20".to_owned();
        scene.add(Event::Progress { task: pull, what, done: 12_897_485, total: Some(80 << 20) });
        scene.start(&last, &["x"]);
        state(&mut scene, &last, TaskState::Releasing);
        scene.add(Event::ApprovalAsked { job: job("hold"), holds: vec!["deploy".to_owned(), "notify".to_owned()] });
        scene.add(Event::JobWaiting { job: job("deploy"), why: "requires hold".to_owned() });
        scene.after(12_300);
        scene
    }

    #[test]
    fn one_line_for_all_that_goes_on() {
        insta::assert_snapshot!(shown(&busy()), @r"
        ⠸ unit-eur           1m 13s  2/2 Unit tests in eur (12s)  test_b fails
        ⠸ integration[1/2]      12s  2/2 Wait
        ⠸ integration[2/2]      12s  spinning up
        ⠸ pull                  12s  pulling cimg/node:20 12.3 MiB of 80 MiB
        ? hold                       waits for approval (y); behind it: deploy, notify
        · deploy                     waits: requires hold
        ⠸ last                  12s  removing its environment
          1 of 7 jobs done · 1m 13s
        ");
    }

    #[test]
    fn what_has_no_size_has_no_figure() {
        let mut scene = Scene::new(&["wait", "pull"]);
        let (wait, pull) = (task("wait"), task("pull"));
        scene.start(&wait, &["x"]).start(&pull, &["x"]);
        let what = "ready, waits for room on this machine".to_owned();
        scene.add(Event::Progress { task: wait, what, done: 0, total: None });
        scene.add(Event::Progress { task: pull, what: "pulling cimg/node:20".to_owned(), done: 0, total: Some(9) });
        insta::assert_snapshot!(shown(&scene), @r"
        ⠋ wait        0s  ready, waits for room on this machine
        ⠋ pull        0s  pulling cimg/node:20
          0 of 2 jobs done · 0s
        ");
    }

    #[test]
    fn a_small_terminal_shows_what_it_can() {
        insta::assert_snapshot!(frame_at(&busy(), 44, 5).join("\n"), @r"
        ⠸ unit-eur           1m 13s  2/2 Unit test…
        ⠸ integration[1/2]      12s  2/2 Wait
        ⠸ integration[2/2]      12s  spinning up
          … 4 more · 1 of 7 jobs done · 1m 13s
        ");
    }

    #[test]
    fn lines_fit_into_every_terminal() {
        let mut scene = busy();
        let wide = task("wide");
        scene.start(&wide, &["日本"]).step(&wide, 1, &"日本".repeat(100)).writes(&wide, 1, "語".repeat(300));
        state(&mut scene, &wide, TaskState::Running);
        for columns in 1..130 {
            for rows in 1..12 {
                let lines = frame_at(&scene, columns, rows);
                assert!(lines.len() < rows.max(2), "{rows}: {lines:?}");
                assert!(lines.iter().all(|line| text::width(line) < columns.max(2)), "{columns}: {lines:?}");
            }
        }
    }
}
