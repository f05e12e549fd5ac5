//! `navvy host nomad-config`: the configuration of a Nomad client, for this machine or for another one.
//!
//! ```text
//! machine (or --cpus, --memory) ─▶ reservation ─▶ room ─▶ client.hcl on standard output
//!                                      └─▶ nothing left for tasks: an error, and nothing is printed
//!
//! Nomad:  cpu_total_compute = CPUs · 1000, so that a MHz of Nomad is a thousandth of a CPU
//!         cpu_total_compute − reserved.cpu    = room.cpus            memory − reserved.memory = room.memory
//! driver: machine − reserve                   = the same room
//! ```

mod machine;
mod text;

use navvy_job::reservation::Reservation;
use navvy_job::resource::Size;

use super::args::nomad_config::NomadConfigArgs;
use super::{CliError, fleet, out};
use crate::fleet::connection::Address;
use crate::settings::Settings;

const MIB: u64 = 1 << 20;
/// What a hint proposes to reserve at most: enough for Nomad, the engine and an agent on a machine to try things on.
const LITTLE: Size = Size { millicpus: 500, memory: 512 * MIB };

pub fn run(settings: &Settings, arguments: &NomadConfigArgs) -> Result<u8, CliError> {
    let whole = whole(arguments)?;
    let reserved = reserved(arguments);
    let room = Reservation(reserved).room(whole).map_err(|error| {
        let (cpus, mib) = little(whole);
        CliError::usage(error.to_string())
            .hint(format!("Lower the reservation: --reserve-cpus {cpus} --reserve-memory {mib}M. Nothing was printed."))
    })?;
    let variable = settings.get(fleet::PROCESSOR).filter(|url| !url.is_empty());
    let processor = arguments.processor.as_deref().or(variable);
    if let Some(url) = processor {
        leads_to_a_processor(url)?;
    }
    let client = text::Client { whole, reserved, room, processor, arguments };
    out::print(&client.to_string())?;
    Ok(navvy_job::exit_code::PASSED)
}

fn whole(arguments: &NomadConfigArgs) -> Result<Size, CliError> {
    match (arguments.cpus, arguments.memory) {
        (Some(cpus), Some(memory)) => Ok(Size { millicpus: u64::from(cpus) * 1000, memory }),
        _ => machine::this_machine().map_err(|why| {
            CliError::infra_text(why).hint("Say what the machine has: --cpus 8 --memory 32G. Nothing was printed.")
        }),
    }
}

/// Whole MiB, since Nomad counts in them; a part of one counts as one.
fn reserved(arguments: &NomadConfigArgs) -> Size {
    let memory = arguments.reserve_memory.div_ceil(MIB).saturating_mul(MIB);
    Size { millicpus: (arguments.reserve_cpus * 1000.0).round() as u64, memory }
}

/// CPUs and MiB that a small machine could reserve and have something left.
fn little(whole: Size) -> (String, u64) {
    let half = Size { millicpus: whole.millicpus / 2, memory: whole.memory / 2 };
    let little = LITTLE.clamp_to(half);
    (navvy_job::figures::cpus(little.millicpus), little.memory / MIB)
}

/// The agent refuses what is none, but only once the first task is there.
fn leads_to_a_processor(url: &str) -> Result<(), CliError> {
    let address = Address { url: url.to_owned(), plaintext: true, ..Address::default() };
    super::host::block_on(async { fleet::processor(&address).map(drop) })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;

    use super::super::args::host::HostCommand;
    use super::super::args::{Cli, Command};
    use super::*;

    pub(super) fn arguments(words: &[&str]) -> NomadConfigArgs {
        let line = ["navvy", "host", "nomad-config"].iter().chain(words);
        let Command::Host(host) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
        let HostCommand::NomadConfig(arguments) = host.command else { unreachable!() };
        *arguments
    }

    /// The number behind `key =`, the first one behind `after`.
    fn number(text: &str, after: &str, key: &str) -> u64 {
        let text = text.split_once(after).unwrap().1;
        let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{key} "))).unwrap();
        line.split_once('=').unwrap().1.trim().parse().unwrap()
    }

    proptest! {
        /// Machines from one CPU to 64 CPUs and 128 GiB: what is reserved and what Nomad gives to tasks is the machine, and Nomad's
        /// room, the driver's and the runner's are one.
        #[test]
        fn what_is_reserved_and_what_nomad_gives_is_the_machine(
            cpus in 1_u16..=64, mib in 256_u64..=(128 << 10), rest in 0..MIB,
            reserved_millicpus in 0_u32..8000, reserved_bytes in 0_u64..(16 << 30),
        ) {
            let (cpus_word, memory) = (cpus.to_string(), (mib * MIB + rest).to_string());
            let reserved_cpus = format!("{}.{:03}", reserved_millicpus / 1000, reserved_millicpus % 1000);
            let reserved_memory = reserved_bytes.to_string();
            let arguments = arguments(&[
                "--cpus", &cpus_word, "--memory", &memory, "--reserve-cpus", &reserved_cpus, "--reserve-memory", &reserved_memory,
            ]);
            let (whole, reserved) = (whole(&arguments).unwrap(), reserved(&arguments));
            prop_assert_eq!(reserved.millicpus, u64::from(reserved_millicpus));
            prop_assert!(reserved.memory >= reserved_bytes && reserved.memory - reserved_bytes < MIB);
            let Ok(room) = Reservation(reserved).room(whole) else {
                return Ok(());
            };
            let client = text::Client { whole, reserved, room, processor: None, arguments: &arguments };
            let text = client.to_string();
            // As Nomad counts: nomad/structs, Comparable().
            let given_cpus = number(&text, "client {", "cpu_total_compute") - number(&text, "reserved {", "cpu");
            let given_mib = whole.memory / MIB - number(&text, "reserved {", "memory");
            prop_assert_eq!(given_cpus, room.millicpus);
            prop_assert_eq!(given_mib, room.memory / MIB);
            prop_assert_eq!(given_cpus + reserved.millicpus, u64::from(cpus) * 1000);
            // As the driver reads it.
            let reserve = text.split_once("reserve {").unwrap().1;
            let told = |key: &str| {
                let line = reserve.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
                line.split_once('=').unwrap().1.trim().trim_matches('"').to_owned()
            };
            prop_assert_eq!((told("cpus").parse::<f64>().unwrap() * 1000.0).round() as u64, reserved.millicpus);
            prop_assert_eq!(navvy_job::figures::read_size(&told("memory")).unwrap(), reserved.memory);
            prop_assert!(!text.contains("untried"), "{}", text);
        }
    }

    #[test]
    fn a_machine_that_is_too_small_gets_nothing_and_a_hint_that_helps() {
        for (cpus, memory) in [("1", "32G"), ("2", "16G"), ("8", "4G"), ("1", "300M")] {
            let small = ["--cpus", cpus, "--memory", memory];
            let whole = whole(&arguments(&small)).unwrap();
            let told = run(&Settings::for_tests(&[]), &arguments(&small)).unwrap_err().render();
            assert!(told.contains("too small") && told.contains("Nothing was printed"), "{told}");
            let (cpus, mib) = little(whole);
            let words = format!("--reserve-cpus {cpus} --reserve-memory {mib}M");
            assert!(told.contains(&words), "{told}");
            let lowered: Vec<&str> = small.into_iter().chain(words.split(' ')).collect();
            assert!(Reservation(reserved(&arguments(&lowered))).room(whole).is_ok(), "{words}");
        }
    }

    #[test]
    fn a_machine_larger_than_what_is_tested_is_told_to_be_so() {
        let text = |cpus, memory| {
            let arguments = arguments(&["--cpus", cpus, "--memory", memory]);
            let (whole, reserved) = (whole(&arguments).unwrap(), reserved(&arguments));
            let room = Reservation(reserved).room(whole).unwrap();
            text::Client { whole, reserved, room, processor: None, arguments: &arguments }.to_string()
        };
        assert!(!text("64", "128G").contains("untried"));
        assert!(text("65", "128G").contains("untried") && text("64", "129G").contains("untried"));
    }

    #[test]
    fn what_is_no_processor_is_refused_before_it_is_printed() {
        for url in ["processor.example.com:8585", "ftp://x", "https://a:b@host:8585", "https://host/path"] {
            assert!(leads_to_a_processor(url).is_err(), "{url}");
        }
        assert!(leads_to_a_processor("https://processor.example.com:8585").is_ok());
    }
}
