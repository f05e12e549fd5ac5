//! Packing and unpacking two trees, against tar and zstd in the same run.
//!
//! `cargo bench -p navvy-archive [-- DIRECTORY [ROUNDS]]`. In DIRECTORY (without one: `target/tmp`) it makes two trees
//! of what is on this machine: `small`, 20,000 files of 230 MB in all, cut from sources and documents (`~/.cargo/registry/src`,
//! `/usr/share`), and `large`, 89 files of 540 MB, cut from libraries and programs (`/usr/lib`, `/usr/bin`). Everything is
//! warm: each command ran once before it is timed. Rounds alternate, the best of each counts, and processor time is told
//! beside it, for machines that have other work.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use navvy_archive::beneath::Root;
use navvy_archive::pack::{Options, Source, pack};
use navvy_archive::unpack::{self, Limits, Placement, unpack};

type Failure = Box<dyn std::error::Error>;

struct Tree {
    name: &'static str,
    files: usize,
    bytes: usize,
    from: &'static [&'static str],
    /// The largest file, in mean sizes.
    spread: usize,
}

const SMALL: Tree = Tree {
    name: "small",
    files: 20_000,
    bytes: 230_000_000,
    from: &["/root/.cargo/registry/src", "/usr/share/doc", "/usr/share/perl", "/usr/lib/python3", "/usr/share"],
    spread: 4,
};
const LARGE: Tree = Tree { name: "large", files: 89, bytes: 540_000_000, from: &["/usr/bin", "/usr/lib"], spread: 3 };

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let home = words.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds = words.next().map_or(Ok(5), |word| word.parse())?;
    let threads = std::thread::available_parallelism()?.get();
    for tree in [SMALL, LARGE] {
        let home = home.join(tree.name);
        tree.build(&home.join("tree"))?;
        measure(&home, tree.name, threads, rounds)?;
    }
    Ok(())
}

impl Tree {
    /// Once; the next run finds it there.
    fn build(&self, root: &Path) -> Result<(), Failure> {
        if root.join("done").exists() {
            return Ok(());
        }
        let mean = self.bytes / self.files;
        let mut pool = Pool { paths: Vec::new(), bytes: Vec::new() };
        for from in self.from {
            pool.find(Path::new(from));
        }
        pool.paths.reverse();
        let (mut state, mut left) = (88_172_645_463_325_252_u64, self.bytes);
        for number in 0..self.files {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let last = number + 1 == self.files;
            // Many short ones, few long ones: a mean of the mean.
            let part = (state % 1000) as f64 / 1000.0;
            let length = (part.powi(self.spread as i32 - 1) * (mean * self.spread) as f64) as usize;
            let length = if last { left } else { length.min(left) };
            left -= length;
            let path = root.join(format!("{}/{}/{number}", number % 37, number / 37 % 29));
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            fs::write(path, pool.take(length)?)?;
        }
        Ok(fs::write(root.join("done"), "")?)
    }
}

/// Files of this machine, one behind the other.
struct Pool {
    paths: Vec<PathBuf>,
    bytes: Vec<u8>,
}

impl Pool {
    fn find(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => self.find(&path),
                Ok(meta) if meta.is_file() => self.paths.push(path),
                _ => {}
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.bytes.len() < length {
            let path = self.paths.pop().ok_or("this machine has too few files")?;
            let _ = File::open(path).and_then(|mut file| file.read_to_end(&mut self.bytes));
        }
        Ok(self.bytes.drain(..length).collect())
    }
}

/// Best wall time, and the processor time of that round.
#[derive(Clone, Copy)]
struct Best {
    wall: Duration,
    cpu: Duration,
}

impl Best {
    const NONE: Self = Self { wall: Duration::MAX, cpu: Duration::MAX };

    fn add(&mut self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let (start, cpu) = (Instant::now(), cpu_time());
        work()?;
        self.wall = self.wall.min(start.elapsed());
        self.cpu = self.cpu.min(cpu_time() - cpu);
        Ok(())
    }
}

/// Of this process and its ended children.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields.get(12..16).unwrap_or(&[]).iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn shell(command: &str) -> Result<(), Failure> {
    let status = Command::new("bash").args(["-o", "pipefail", "-c", command]).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command}: {status}").into()) }
}

fn measure(home: &Path, name: &str, threads: usize, rounds: usize) -> Result<(), Failure> {
    let shown = home.display();
    let (tree, ours, theirs, out) = (home.join("tree"), home.join("ours"), home.join("theirs"), home.join("out"));
    let their_pack = format!("tar c -C {shown}/tree . | zstd -q -T0 -3 -f -o {shown}/theirs");
    let their_unpack = format!("zstd -dcq {shown}/theirs | tar x -C {shown}/out");
    let our_pack = || {
        let sink = File::create(&ours)?;
        pack(&[Source::named(&tree, "")], &Options::new(threads), sink, &mut |_| {})?;
        Ok(())
    };
    let our_unpack = || {
        let options = unpack::Options { threads, limits: Limits { bytes: u64::MAX, entries: u64::MAX } };
        let mut place = |path: &[u8]| Some(Placement { root: 0, path: path.to_vec() });
        unpack(File::open(&ours)?, &[Root::open(&out)?], &options, &mut place)?;
        Ok(())
    };
    let (mut best, mut warm) = ([Best::NONE; 4], [Best::NONE; 4]);
    for round in 0..=rounds {
        let best = if round == 0 { &mut warm } else { &mut best };
        best[0].add(|| shell(&their_pack))?;
        best[1].add(our_pack)?;
        renew(&out)?;
        best[2].add(|| shell(&their_unpack))?;
        renew(&out)?;
        best[3].add(our_unpack)?;
    }
    let (our_size, their_size) = (fs::metadata(&ours)?.len() as f64, fs::metadata(&theirs)?.len() as f64);
    let in_memory = in_memory(home, threads)?;
    let plain = fs::metadata(home.join("plain"))?.len() as f64;
    let speed = plain / best[1].wall.as_secs_f64() / 1e6;
    println!("{name}: {threads} threads, best of {rounds}");
    line("save", best[1], "tar | zstd -T0 -3", best[0]);
    line("restore", best[3], "zstd -dc | tar x", best[2]);
    println!(
        "  save {speed:.0} MB/s = {:.2} x in-memory zstd -b3 -T{threads} ({in_memory:.0} MB/s)",
        speed / in_memory
    );
    println!("  size {:.1} MB = {:.3} x ({:.1} MB)", our_size / 1e6, our_size / their_size, their_size / 1e6);
    std::io::stdout().flush()?;
    renew(&out)
}

fn line(what: &str, ours: Best, peer: &str, theirs: Best) {
    let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    println!(
        "  {what} {:.3} s, {:.2} s cpu; {peer} {:.3} s, {:.2} s cpu; {:.2} x faster, {:.2} x less cpu",
        ours.wall.as_secs_f64(),
        ours.cpu.as_secs_f64(),
        theirs.wall.as_secs_f64(),
        theirs.cpu.as_secs_f64(),
        ratio(theirs.wall, ours.wall),
        ratio(theirs.cpu, ours.cpu)
    );
}

fn renew(directory: &Path) -> Result<(), Failure> {
    let _ = fs::remove_dir_all(directory);
    Ok(fs::create_dir_all(directory)?)
}

/// MB/s of zstd's own benchmark over the tar, best of three.
fn in_memory(home: &Path, threads: usize) -> Result<f64, Failure> {
    let shown = home.display();
    shell(&format!("tar c -C {shown}/tree . > {shown}/plain"))?;
    let mut best = 0_f64;
    for _ in 0..3 {
        let told =
            Command::new("zstd").args(["-b3", "-i1", &format!("-T{threads}")]).arg(home.join("plain")).output()?;
        let told = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).replace(['\r', ','], " ");
        let speeds = told.split("MB/s").filter_map(|part| part.split_whitespace().last()?.parse::<f64>().ok());
        // The first of a line is compression; lines come again while it measures.
        best = best.max(speeds.step_by(2).fold(0.0, f64::max));
    }
    Ok(best)
}
