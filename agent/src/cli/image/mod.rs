//! `navvy image`: the images that virtual machines start from.

mod make;

use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_ui::sanitize::clean;
use navvy_ui::text::{pad, width};
use navvy_vm_image::manifest::Init;
use navvy_vm_image::store::Listed;
use navvy_vm_image::table::{Meaning, Row};
use navvy_vm_image::{Image, ImageError, Images, Table};
use serde::Serialize;

use super::CliError;
use super::args::image::{ImageArgs, ImageCommand, ImageListArgs, ImageTableArgs};
use super::host::json_lines;
use super::out::print;
use crate::settings::Settings;
use crate::settings::file::SettingsFile;

pub fn run(settings: &Settings, arguments: ImageArgs) -> Result<u8, CliError> {
    let images = Images::of(&settings.variables, rustix::process::geteuid().is_root()).map_err(told)?;
    match arguments.command {
        ImageCommand::Ls(arguments) => list(&images, &arguments),
        ImageCommand::Build(arguments) => make::build(settings, images, &arguments),
        ImageCommand::Import(arguments) => make::import(images, *arguments),
        ImageCommand::Verify(arguments) => verify(&images, &arguments.names),
        ImageCommand::Rm(arguments) => remove(&images, &arguments.names),
        ImageCommand::Table(arguments) => table(settings, &images, &arguments),
    }
}

/// An error of images as a person gets it.
fn told(error: ImageError) -> CliError {
    let told = CliError::new(error.blame(), chain(&error));
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

fn list(images: &Images, arguments: &ImageListArgs) -> Result<u8, CliError> {
    let found = images.list().map_err(told)?;
    let text = match (arguments.json, found.is_empty()) {
        (true, _) => json_lines(found.iter().map(line))?,
        (false, true) => format!(
            "There are no images of machines in {}. `navvy image build docker` makes one.\n",
            images.directory().display()
        ),
        (false, false) => columns(&found.iter().map(row).collect::<Vec<_>>()),
    };
    print(&text)?;
    Ok(exit_code::PASSED)
}

/// One object a line (docs/vm.md).
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    /// Why it cannot be used; then nothing else is told.
    damaged: Option<String>,
    #[serde(flatten)]
    image: Option<ImageLine<'a>>,
}

#[derive(Serialize)]
struct ImageLine<'a> {
    architecture: &'a str,
    init: Init,
    docker: Option<&'a str>,
    user: &'a str,
    supervisor: &'a str,
    /// Of all its files, in bytes.
    size: u64,
    /// Bytes that the root disk has for the guest.
    root_size: u64,
    digest: &'a str,
    directory: String,
}

fn line(Listed { name, image }: &Listed) -> Line<'_> {
    let damaged = image.as_ref().err().map(|error| chain(error));
    let image = image.as_ref().ok().map(|image| ImageLine {
        architecture: &image.manifest.architecture,
        init: image.manifest.init,
        docker: image.manifest.docker.as_deref(),
        user: &image.manifest.user,
        supervisor: &image.manifest.supervisor,
        size: size(image),
        root_size: image.manifest.root_size,
        digest: &image.digest,
        directory: image.directory.display().to_string(),
    });
    Line { name, damaged, image }
}

fn size(image: &Image) -> u64 {
    image.manifest.files().iter().map(|file| file.size).sum()
}

fn row(Listed { name, image }: &Listed) -> Vec<String> {
    let image = match image {
        Ok(image) => image,
        Err(error) => return vec![name.clone(), clean(&chain(error))],
    };
    let init = match image.manifest.init {
        Init::Own => "own init",
        Init::Systemd => "systemd",
    };
    let docker =
        image.manifest.docker.as_ref().map_or("no Docker".to_owned(), |version| format!("Docker {}", clean(version)));
    let supervisor = format!("supervisor {}", clean(&image.manifest.supervisor));
    vec![
        name.clone(),
        image.manifest.architecture.clone(),
        init.to_owned(),
        docker,
        supervisor,
        figures::bytes(size(image)),
    ]
}

/// Each column as wide as its widest field; the last one of a row is not padded.
fn columns(rows: &[Vec<String>]) -> String {
    let widest = |at: usize| rows.iter().filter(|row| at + 1 < row.len()).map(|row| width(&row[at])).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let fields = row.iter().enumerate();
        let padded = fields.map(|(at, field)| if at + 1 < row.len() { pad(field, widest(at)) } else { field.clone() });
        padded.collect::<Vec<_>>().join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

fn verify(images: &Images, names: &[String]) -> Result<u8, CliError> {
    let names: Vec<String> = match names {
        [] => images.list().map_err(told)?.into_iter().map(|listed| listed.name).collect(),
        named => named.to_vec(),
    };
    if names.is_empty() {
        print(&format!("There are no images of machines in {}.\n", images.directory().display()))?;
    }
    for_each(&names, |name| {
        images.get(name)?.verify_thoroughly()?;
        Ok(format!("{name} is what its manifest says.\n"))
    })
}

fn remove(images: &Images, names: &[String]) -> Result<u8, CliError> {
    for_each(names, |name| {
        images.remove(name)?;
        Ok(format!("Removed {name}.\n"))
    })
}

/// All are taken, also if one fails; the first failure ends the command, and the others are told with it.
fn for_each(names: &[String], work: impl Fn(&str) -> Result<String, ImageError>) -> Result<u8, CliError> {
    let mut failed = Vec::new();
    for name in names {
        match work(name) {
            Ok(done) => print(&done)?,
            Err(error) => failed.push(error),
        }
    }
    let mut failed = failed.into_iter();
    let Some(first) = failed.next() else { return Ok(exit_code::PASSED) };
    let others: Vec<String> = failed.map(|error| chain(&error)).collect();
    if others.is_empty() { Err(told(first)) } else { Err(told(first).hint(format!("And: {}", others.join("; ")))) }
}

/// The operator's table, before ours.
pub fn table_of(settings: &Settings) -> Result<Table, CliError> {
    let file = SettingsFile::of_user(settings).map_err(|error| CliError::usage(chain(&error)))?;
    Table::with(&file.tables.machine_images)
        .map_err(|error| CliError::usage(format!("{}: machine-images: {error}", file.path.display())))
}

fn table(settings: &Settings, images: &Images, arguments: &ImageTableArgs) -> Result<u8, CliError> {
    let table = table_of(settings)?;
    let text = match &arguments.name {
        Some(name) => {
            let image = table.find(images, Some(name), arguments.arch.word()).map_err(told)?;
            format!("{}\n", image.manifest.name)
        }
        None => columns(&table.rows().iter().map(table_row).collect::<Vec<_>>()),
    };
    print(&text)?;
    Ok(exit_code::PASSED)
}

fn table_row(row: &Row) -> Vec<String> {
    let meaning = match &row.meaning {
        Meaning::Images(names) => names.join(", else "),
        Meaning::Refused(why) => format!("not available: {why}"),
    };
    let whose = if row.is_own { "settings" } else { "built in" };
    vec![row.pattern.clone(), whose.to_owned(), meaning]
}
