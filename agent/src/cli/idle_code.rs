//! A program that waits needs little of its code: what it has used at its start is the page cache's again.

use std::fs;
use std::io;
use std::ops::Range;

/// Lets go of the pages of this program's code. They stay in the page cache as long as the kernel has room for them, and come
/// back page by page as they are needed.
pub fn let_go() {
    match code_of_this_program() {
        Ok(code) => code.into_iter().for_each(let_go_of),
        Err(error) => tracing::debug!(%error, "The program's code stays resident."),
    }
}

#[expect(unsafe_code, reason = "the standard library knows no advice on memory")]
fn let_go_of(code: Range<usize>) {
    // SAFETY: the range is a mapping of the program's file that nobody can write to, so its pages hold the file's bytes and
    // nothing else. The mapping stays; a page that is needed, this very function's included, is taken from the file again.
    let answer = unsafe { libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED) };
    if answer != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "The program's code stays resident.");
    }
}

/// Where the program's file is mapped to be executed, and not to be written to: what is relocated lies elsewhere.
fn code_of_this_program() -> io::Result<Vec<Range<usize>>> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().filter_map(|line| code_in(line, program.to_str()?)).collect())
}

/// `55d7…-55d8… r-xp 00846000 fe:00 9994564   /usr/bin/navvy`
fn code_in(line: &str, program: &str) -> Option<Range<usize>> {
    let (addresses, rest) = line.split_once(' ')?;
    if !rest.starts_with("r-xp ") || rest.splitn(5, ' ').nth(4)?.trim_start() != program {
        return None;
    }
    let (start, end) = addresses.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_executed_of_the_program_alone() {
        let line =
            |rights: &str, path: &str| format!("7f0000001000-7f0000003000 {rights} 00846000 fe:00 9994564    {path}");
        assert_eq!(code_in(&line("r-xp", "/a b/navvy"), "/a b/navvy"), Some(0x7f00_0000_1000..0x7f00_0000_3000));
        for other in
            [line("r--p", "/a b/navvy"), line("rwxp", "/a b/navvy"), line("r-xp", "/lib/libc.so.6"), line("r-xp", "")]
        {
            assert_eq!(code_in(&other, "/a b/navvy"), None, "{other}");
        }
    }

    /// In KiB, of the mappings of this program that are code.
    fn resident(code: &[Range<usize>]) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let mut sum = 0;
        for range in code {
            let begin = format!("{:x}-{:x} ", range.start, range.end);
            assert!(lines.by_ref().any(|line| line.starts_with(&begin)), "{begin}");
            let rss = lines.by_ref().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            sum += rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
        sum
    }

    #[test]
    fn code_that_is_let_go_is_resident_no_more_and_runs_on() {
        let code = code_of_this_program().unwrap();
        let before = resident(&code);
        let_go();
        let after = resident(&code);
        assert!(!code.is_empty() && after < before, "{before} KiB, then {after}");
    }
}
