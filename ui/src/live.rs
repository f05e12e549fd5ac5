//! The view for a terminal: what is done stays above, what is going on is drawn over and over below it.
//!
//! The cursor is never hidden and nothing is left switched on between two writes: wherever the program is stopped, the
//! terminal is as it was. Jobs' output is looked at only when a line of it is drawn, so a flood costs a copy of its tail.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use navvy_job::event::{Event, Stamped, Summary};

use super::board::Board;
use super::frame::{FRAME_MS, frame};
use super::plain::Pages;
use super::sink::{Sink, ViewError};
use super::style::Palette;
use super::{Options, Size, summary, text};

/// Lines that stay are not held back for the next drawing when there are so many.
const ABOVE_LIMIT: usize = 64 * 1024;
/// While another writer has the terminal, they wait longer, but not for ever.
const WAITING_LIMIT: usize = 16 * ABOVE_LIMIT;
/// A terminal that does not tell its size.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Set once, by [`let_go`]; read before every drawing.
static LET_GO: AtomicBool = AtomicBool::new(false);

/// No live area is drawn or cleared any more, in the whole program: what stands on the screen stays, and lines follow.
/// For a panic hook: drawing over the message would lose it.
pub fn let_go() {
    LET_GO.store(true, Ordering::SeqCst);
}

/// Draws a run on a terminal.
#[derive(Debug)]
pub struct Live<W: Write> {
    sink: Sink<W>,
    options: Options,
    palette: Palette,
    board: Board,
    /// All output as prefixed lines, if asked for: then they say what the board would leave above.
    pages: Option<Pages>,
    /// Lines that stay, not yet written.
    above: Vec<u8>,
    /// The live area as it stands on the screen; empty when there is none.
    drawn: Vec<String>,
    drawn_ms: Option<u64>,
    now_ms: u64,
    area: Area,
}

/// Is there a live area?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Shown,
    /// Another writer has the terminal (a question).
    Suspended,
    /// The run has ended.
    Ended,
}

impl<W: Write> Live<W> {
    /// A view on the terminal that `writer` leads to.
    pub fn new(options: &Options, writer: W) -> Self {
        let palette = Palette { on: options.color };
        Self {
            sink: Sink::new(writer),
            options: *options,
            palette,
            board: Board::new(palette),
            pages: options.show_output.then(|| Pages::new(options)),
            above: Vec::new(),
            drawn: Vec::new(),
            drawn_ms: None,
            now_ms: 0,
            area: Area::Shown,
        }
    }

    /// Notes the event, and draws unless that was done a moment ago.
    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        self.now_ms = self.now_ms.max(stamped.at_ms);
        let lines = self.board.apply(stamped);
        match &mut self.pages {
            Some(pages) => {
                pages.handle(stamped);
                self.above.append(&mut pages.out);
            }
            None => lines.iter().for_each(|line| self.stays(line)),
        }
        if let Event::RunEnded(ended) = &stamped.event {
            self.run_ended(ended);
        }
        self.draw_if_due()
    }

    /// Draws what has changed by `now_ms`.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), ViewError> {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some(pages) = &mut self.pages {
            pages.tick(now_ms);
            self.above.append(&mut pages.out);
        }
        self.draw_if_due()
    }

    /// Takes the live area away, so that another writer can use the terminal.
    pub fn suspend(&mut self) -> Result<(), ViewError> {
        if self.area == Area::Shown {
            self.area = Area::Suspended;
        }
        self.draw()
    }

    /// Brings it back.
    pub fn resume(&mut self) -> Result<(), ViewError> {
        if self.area == Area::Suspended {
            self.area = Area::Shown;
        }
        self.draw()
    }

    /// Takes the live area away for good and writes all that is left.
    pub fn finish(&mut self) -> Result<(), ViewError> {
        if let Some(pages) = &mut self.pages {
            pages.finish();
            self.above.append(&mut pages.out);
        }
        self.area = Area::Ended;
        self.draw()
    }

    fn run_ended(&mut self, ended: &Summary) {
        self.area = Area::Ended;
        if self.pages.is_some() {
            return;
        }
        let columns = self.options.columns();
        let text = summary::render(ended, &self.board.labels, self.palette, columns);
        self.stays("");
        self.above.extend_from_slice(text.as_bytes());
    }

    fn stays(&mut self, line: &str) {
        self.above.extend_from_slice(line.as_bytes());
        self.above.push(b'\n');
    }

    fn draw_if_due(&mut self) -> Result<(), ViewError> {
        let due = self.drawn_ms.is_none_or(|drawn_ms| self.now_ms >= drawn_ms + FRAME_MS);
        if due || self.area == Area::Ended || self.above.len() > ABOVE_LIMIT { self.draw() } else { Ok(()) }
    }

    fn draw(&mut self) -> Result<(), ViewError> {
        if LET_GO.load(Ordering::SeqCst) || std::thread::panicking() {
            self.drawn.clear();
            return self.sink.write(&mut self.above);
        }
        let size = (self.options.size)().unwrap_or(USUAL);
        let lines = match self.area {
            Area::Shown => frame(&self.board, self.now_ms, size, self.palette),
            // A question stands where the area was.
            Area::Suspended if self.drawn.is_empty() && self.above.len() < WAITING_LIMIT => return Ok(()),
            Area::Suspended | Area::Ended => Vec::new(),
        };
        self.drawn_ms = Some(self.now_ms);
        if self.above.is_empty() && lines == self.drawn {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.above.len() + 4096);
        bytes.extend_from_slice(back_to_top(&self.drawn, size).as_bytes());
        bytes.append(&mut self.above);
        for line in &lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\x1b[K\n");
        }
        self.drawn = lines;
        self.sink.write(&mut bytes)
    }
}

impl<W: Write> Drop for Live<W> {
    /// A panic or an early return leaves no half-drawn area behind.
    fn drop(&mut self) {
        // A view that is dropped like this has nowhere to report to.
        let _ = self.finish();
    }
}

/// From below the area to its first row, and all from there on cleared. A terminal made narrower since has broken the
/// lines of the area into several rows.
///
/// The first row is cleared by itself: to clear everything from the screen's own first position on is to clear the screen, and
/// tmux and others then move what stood there, this area, into the scrollback.
fn back_to_top(drawn: &[String], size: Size) -> String {
    let rows: usize = drawn.iter().map(|line| text::width(line).div_ceil(size.columns.max(1)).max(1)).sum();
    match rows {
        0 => String::new(),
        rows => format!("\r\x1b[{rows}A\x1b[K\x1b[1B\x1b[J\x1b[1A"),
    }
}

#[cfg(test)]
mod tests {
    use navvy_job::exit_code;
    use navvy_job::outcome::{StepOutcome, Verdict};

    use super::super::scene::{PLAIN, Scene, Screen, failed, failed_at, job, passed, task};
    use super::*;

    const TERMINAL: Options = Options { size: || Some(Size { columns: 70, rows: 24 }), ..PLAIN };

    /// A step that fails, after some output.
    fn failing() -> Scene {
        let mut scene = Scene::new(&["lint", "unit", "deploy"]);
        let (lint, unit) = (task("lint"), task("unit"));
        scene.start(&lint, &["Lint"]).start(&unit, &["Checkout code", "Unit tests"]);
        scene.add(Event::JobWaiting { job: job("deploy"), why: "requires unit".to_owned() });
        scene.after(200).step(&unit, 2, "Unit tests");
        scene.task_ends(&lint, Verdict::Passed).job_ends("lint", passed());
        let text: String = (1..=30).map(|n| format!("test {n} ok\n")).collect();
        scene.after(3000).writes(&unit, 2, text).writes(&unit, 2, "test 31 \x1b[31mFAILED\x1b[0m\x1b]0;x\x07");
        scene
    }

    fn end(scene: &mut Scene) {
        let unit = task("unit");
        scene.after(200).ends(&unit, 2, "Unit tests", StepOutcome::ExitCode { code: 1 });
        scene.task_ends(&unit, failed_at(2, "Unit tests")).job_ends("unit", failed("Unit tests"));
        scene.job_ends("deploy", navvy_job::event::JobEnd::NotRun { why: "requires unit, which failed".to_owned() });
    }

    /// Draws the events, and then one more time.
    fn draw(live: &mut Live<impl Write>, scene: &Scene) {
        for stamped in &scene.events {
            live.handle(stamped).unwrap();
        }
        live.tick(scene.now_ms + FRAME_MS).unwrap();
    }

    /// The screen as it stands while the run goes on.
    fn screen(options: &Options, scene: &Scene) -> String {
        let mut live = Live::new(options, Vec::new());
        draw(&mut live, scene);
        Screen::new(70).write(live.sink.written()).text()
    }

    #[test]
    fn while_it_runs() {
        insta::assert_snapshot!(screen(&TERMINAL, &failing()), @r"
        ✓ lint       2.5s  passed
        ⠸ unit         3s  2/2 Unit tests  test 31 FAILED
        · deploy           waits: requires unit
          1 of 3 jobs done · 3s
        ");
    }

    #[test]
    fn a_failure_stays_above() {
        let mut scene = failing();
        end(&mut scene);
        insta::assert_snapshot!(screen(&TERMINAL, &scene), @r"
        ✓ lint       2.5s  passed
        ✗ unit, 2/2 Unit tests: exit code 1 after 1.2s
          ┆ (the log has what came before)
          │ test 12 ok
          │ test 13 ok
          │ test 14 ok
          │ test 15 ok
          │ test 16 ok
          │ test 17 ok
          │ test 18 ok
          │ test 19 ok
          │ test 20 ok
          │ test 21 ok
          │ test 22 ok
          │ test 23 ok
          │ test 24 ok
          │ test 25 ok
          │ test 26 ok
          │ test 27 ok
          │ test 28 ok
          │ test 29 ok
          │ test 30 ok
          │ test 31 FAILED
          ╰ config.yml:12, log: /logs/1/unit/2.log
        ✗ unit       2.5s  failed: Unit tests
        ○ deploy           not run: requires unit, which failed
          3 of 3 jobs done · 3s
        ");
    }

    #[test]
    fn environments_are_seen_being_removed_after_their_jobs_have_ended() {
        let mut scene = Scene::new(&["lint", "unit"]);
        let (lint, unit) = (task("lint"), task("unit"));
        scene.start(&lint, &["Lint"]).start(&unit, &["Unit tests"]).after(500);
        for (task, name) in [(&lint, "lint"), (&unit, "unit")] {
            scene.task_ends(task, Verdict::Passed).job_ends(name, passed());
            scene.add(Event::TaskState { task: task.clone(), state: navvy_job::state::TaskState::Releasing });
        }
        scene.add(Event::TaskRemoved { task: lint.clone(), duration_ms: 24, leftovers: vec!["volume x".to_owned()] });
        scene.add(Event::RemovalAwaited { tasks: vec![unit] }).after(12_000);
        insta::assert_snapshot!(screen(&TERMINAL, &scene), @r"
        ✓ lint     2.5s  passed
        ✓ unit     2.5s  passed
        ! lint: left behind: volume x
        ⠦ unit       12s  removing its environment
          2 of 2 jobs done · 12s
        ");
    }

    #[test]
    fn at_the_end_only_words_are_left() {
        let mut scene = Scene::new(&["lint"]);
        let lint = task("lint");
        scene.start(&lint, &["Lint"]).after(500).task_ends(&lint, Verdict::Passed).job_ends("lint", passed());
        scene.run_ends(exit_code::PASSED);
        insta::assert_snapshot!(screen(&TERMINAL, &scene), @r"
        ✓ lint     2.5s  passed

        ✓ lint  passed  2.5s

        Logs: /logs/1
        ✓ The job passed · 3.6s
        ");
    }

    #[test]
    fn all_output_above_if_asked_for() {
        let mut scene = Scene::new(&["lint"]);
        let lint = task("lint");
        scene.start(&lint, &["Lint"]).step(&lint, 1, "Lint").writes(&lint, 1, "one\ntwo\n").after(300);
        insta::assert_snapshot!(screen(&Options { show_output: true, ..TERMINAL }, &scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        lint  ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        lint  ├ ▸ 1/1 Lint
        lint  │ #!/bin/bash -eo pipefail
        lint  │ make test
        lint  │ one
        lint  │ two
        ⠼ lint        0s  1/1 Lint  two
          0 of 1 job done · 0s
        ");
    }

    #[test]
    fn a_step_that_is_tried_again_and_a_background_step_that_fails() {
        let mut scene = Scene::new(&["it"]);
        let it = task("it");
        scene.start(&it, &["server", "Flaky"]).background(&it, 1, "server").step(&it, 2, "Flaky");
        scene.writes(&it, 1, "cannot bind").ends(&it, 1, "server", StepOutcome::ExitCode { code: 98 });
        scene.ends(&it, 2, "Flaky", StepOutcome::ExitCode { code: 1 });
        if let Some(Event::StepEnded { will_rerun, .. }) = scene.events.last_mut().map(|last| &mut last.event) {
            *will_rerun = true;
        }
        insta::assert_snapshot!(screen(&TERMINAL, &scene), @r"
        ! it, 1/2 server: exit code 98 after 1.2s, in the background
          │ cannot bind
          ╰ config.yml:12, log: /logs/1/it/1.log
        ↻ it, 2/2 Flaky: exit code 1 after 1.2s, another attempt follows
        ⠙ it          0s  spinning up
          0 of 1 job done · 0s
        ");
    }

    #[test]
    fn a_question_has_the_terminal_to_itself() {
        let scene = failing();
        let mut live = Live::new(&TERMINAL, Vec::new());
        draw(&mut live, &scene);
        live.suspend().unwrap();
        let before = live.sink.written().len();
        live.tick(10_000).unwrap();
        assert_eq!(live.sink.written().len(), before);
        assert_eq!(Screen::new(70).write(live.sink.written()).text().lines().count(), 1);
        live.resume().unwrap();
        assert!(Screen::new(70).write(live.sink.written()).text().contains("1 of 3 jobs done"));
    }

    #[test]
    fn whatever_happens_the_area_is_taken_away() {
        let mut out = Vec::new();
        draw(&mut Live::new(&TERMINAL, &mut out), &failing());
        let text = Screen::new(70).write(&out).text();
        assert!(!text.contains("jobs done"), "{text}");
        assert!(!String::from_utf8(out).unwrap().contains("\u{1b}[?"));
    }

    /// The test's screen begins at its first row: clearing from there is clearing the screen.
    #[test]
    fn no_frame_is_moved_into_the_scrollback() {
        let mut scene = Scene::new(&["lint"]);
        let lint = task("lint");
        scene.start(&lint, &["Lint"]).step(&lint, 1, "Lint");
        let mut live = Live::new(&TERMINAL, Vec::new());
        draw(&mut live, &scene);
        for beat in 1..20 {
            live.tick(scene.now_ms + beat * 2 * FRAME_MS).unwrap();
        }
        live.finish().unwrap();
        assert_eq!(Screen::new(70).write(live.sink.written()).cleared_whole(), 0);
    }

    #[test]
    fn a_flood_is_drawn_ten_times_a_second() {
        let mut scene = Scene::new(&["flood"]);
        let flood = task("flood");
        scene.start(&flood, &["Flood"]).step(&flood, 1, "Flood");
        for n in 0..10_000 {
            scene.writes(&flood, 1, format!("line {n}\n"));
            scene.now_ms = n / 10;
        }
        let mut live = Live::new(&TERMINAL, Vec::new());
        draw(&mut live, &scene);
        let drawn = String::from_utf8_lossy(live.sink.written()).matches("Flood").count();
        assert!((9..=12).contains(&drawn), "{drawn}");
    }

    #[test]
    fn a_terminal_made_narrower_is_cleared_whole() {
        let drawn = ["x".repeat(69), "y".repeat(20)];
        let back = "\r\u{1b}[4A\u{1b}[K\u{1b}[1B\u{1b}[J\u{1b}[1A";
        assert_eq!(back_to_top(&drawn, Size { columns: 30, rows: 24 }), back);
        assert_eq!(back_to_top(&[], USUAL), "");
    }
}
