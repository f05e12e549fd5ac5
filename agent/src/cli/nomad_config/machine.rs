//! What Nomad finds on this machine: it counts the CPUs that are online, whatever this process may use of them.

use std::fs;

use navvy_job::resource::Size;

const ONLINE: &str = "/sys/devices/system/cpu/online";
const MEMORY: &str = "/proc/meminfo";

/// Its CPUs and memory.
pub fn this_machine() -> Result<Size, String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"));
    let odd = |path: &str| format!("{path} does not say what this machine has");
    let cpus = count(read(ONLINE)?.trim()).ok_or_else(|| odd(ONLINE))?;
    let memory = total(&read(MEMORY)?).ok_or_else(|| odd(MEMORY))?;
    Ok(Size { millicpus: cpus.saturating_mul(1000), memory })
}

/// How many `0-3,5` are.
fn count(list: &str) -> Option<u64> {
    list.split(',').try_fold(0_u64, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

fn total(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read_and_what_it_does_not_say_is_no_machine() {
        assert_eq!([count("0"), count("0-3"), count("0-3,6,8-9")], [Some(1), Some(4), Some(7)]);
        assert_eq!([count(""), count("3-1"), count("0-"), count("all")], [None; 4]);
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24684096 kB\n"), Some(24_684_096 << 10));
        assert_eq!([total(""), total("MemTotal: much kB"), total("MemTotal: 1 MB")], [None; 3]);
    }
}
