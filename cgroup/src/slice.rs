//! A task's cgroup where systemd makes all of them: a slice, which the engine has its containers put into.
//!
//! ```text
//! UNITS/navvy-task_ID.slice    our file, with the limits ─┐ systemd reads it when the first container asks for the slice,
//!                                                         ▼ and ends the slice behind the last one
//! ROOT/navvy.slice/navvy-task_ID.slice/docker-….scope
//! ```
//!
//! Files of limits are systemd's own there: whoever writes into them is overruled when systemd reads its units anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use navvy_job::id::TaskId;
use navvy_job::resource::Size;

use crate::Limits;

/// Units that a reboot takes away.
pub const UNITS: &str = "/run/systemd/system";
/// What systemd puts the slice below, by its rule of dashes.
const ABOVE: &str = "navvy.slice";

/// A task's slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice(TaskId);

impl Slice {
    /// That of a task.
    pub fn of(task: &TaskId) -> Self {
        Self(task.clone())
    }

    /// The unit's name, as an engine wants it. A dash would lead a level down; an id has no underscore of its own.
    pub fn unit(&self) -> String {
        format!("navvy-task_{}.slice", self.0.as_str().replace('-', "_"))
    }

    /// Whose slice has this name?
    pub fn task(unit: &str) -> Option<TaskId> {
        let id = unit.strip_prefix("navvy-task_")?.strip_suffix(".slice")?;
        id.replace('_', "-").parse().ok().filter(|task| Self::of(task).unit() == unit)
    }

    /// Its cgroup below a hierarchy's root.
    pub fn below(&self) -> PathBuf {
        Path::new(ABOVE).join(self.unit())
    }

    /// Writes the unit. Whoever reads it sees all of it, or none.
    ///
    /// # Errors
    /// It could not be written; then it is not there.
    pub fn write(&self, units: &Path, limits: &Limits) -> io::Result<()> {
        let path = units.join(self.unit());
        // Nobody else's name begins with a dot and ours behind it; systemd reads no such file.
        let new = units.join(format!(".{}.new", self.unit()));
        let written = fs::write(&new, text(limits)).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _told_by_the_error = fs::remove_file(&new);
        }
        written
    }

    /// Removes the unit; missing is fine.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, units: &Path) -> Result<(), (PathBuf, io::Error)> {
        let path = units.join(self.unit());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err((path, error)),
            _ => Ok(()),
        }
    }
}

fn text(limits: &Limits) -> String {
    let Size { millicpus, memory } = limits.size;
    // A percent of systemd's is ten thousandths of a processor.
    let quota = format!("{}.{}", millicpus / 10, millicpus % 10);
    let pids = limits.pids.map_or_else(|| "infinity".to_owned(), |pids| pids.to_string());
    format!(
        "# A task of Navvy's, with the limits of all its containers together.\n\
         [Unit]\nDescription=Containers of a task of Navvy's\nStopWhenUnneeded=yes\n\
         [Slice]\nMemoryMax={memory}\nMemorySwapMax=0\nCPUQuota={quota}%\nTasksMax={pids}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_by_its_slice_and_no_other_name_is_one() {
        for id in ["0123456789abcdef", "with-a-dash"] {
            let task: TaskId = id.parse().unwrap();
            let unit = Slice::of(&task).unit();
            assert_eq!(unit.matches('-').count(), 1, "a dash is a level: {unit}");
            assert_eq!(Slice::task(&unit), Some(task));
        }
        let of = |id: &str| Slice::of(&id.parse().unwrap()).below();
        assert_eq!(of("0123456789abcdef"), Path::new("navvy.slice/navvy-task_0123456789abcdef.slice"));
        for wrong in
            ["navvy-task_0123456789abcdef", "navvy-task_.slice", "navvy-task_with-a-dash.slice", "system.slice"]
        {
            assert_eq!(Slice::task(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_unit_has_the_limits_and_goes_as_a_whole() {
        let units = tempfile::tempdir().unwrap();
        let slice = Slice::of(&"0123456789abcdef".parse().unwrap());
        let limits = Limits { size: Size { millicpus: 1505, memory: 2 << 30 }, pids: Some(100) };
        slice.write(units.path(), &limits).unwrap();
        let text = fs::read_to_string(units.path().join(slice.unit())).unwrap();
        for line in
            ["MemoryMax=2147483648", "MemorySwapMax=0", "CPUQuota=150.5%", "TasksMax=100", "StopWhenUnneeded=yes"]
        {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(self::text(&Limits { pids: None, ..limits }).contains("TasksMax=infinity\n"));
        slice.remove(units.path()).unwrap();
        slice.remove(units.path()).unwrap();
        assert_eq!(fs::read_dir(units.path()).unwrap().count(), 0);
        let (path, _) = slice.remove(Path::new("/proc/self/status")).unwrap_err();
        assert!(path.ends_with(slice.unit()));
        assert!(slice.write(&units.path().join("missing"), &limits).is_err());
    }
}
