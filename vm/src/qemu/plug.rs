//! A disk that a machine gets while it runs: it goes into a port that its board has for it from its start.
//!
//! ```text
//! file opened here ─▶ lent (add-fd) ─▶ blockdev-add … ─▶ device_add ─▶ the guest finds it by its serial, as one that was there before
//! ```
//!
//! The process has no right to the file by then, and needs none: it gets what this one has opened.

use std::fs::File;
use std::path::Path;

use navvy_vm_image::Image;
use serde_json::json;

use super::instance::Instance;
use super::line::{Board, Extra, LATER};
use super::qmp::Qmp;
use crate::error::Fault;

const DOING: &str = "attach a disk";

/// Can a running machine of this image be given a disk? On the other board it was never tried.
pub(crate) fn takes_disks(image: &Image) -> bool {
    Board::of(&image.manifest.architecture) == Board::Q35
}

impl Instance {
    /// The disks of its task, while it waits for its seed.
    pub(super) async fn plug_disks(&mut self) -> Result<(), Fault> {
        let disks: Vec<Extra> = self.order.extras.disks.iter().map(Extra::from).collect();
        if disks.len() > 1 {
            return Err(Fault::Unsupported(format!(
                "a running machine takes one disk, and {} are wanted",
                disks.len()
            )));
        }
        let qmp = &mut self.running()?.qmp;
        for (at, disk) in disks.into_iter().enumerate() {
            plug(qmp, at, disk).await?;
        }
        Ok(())
    }
}

async fn plug(qmp: &mut Qmp, at: usize, disk: Extra) -> Result<(), Fault> {
    let path = qmp.lend(DOING, &opened(&disk.path, true)?).await?;
    let backing = match &disk.backing {
        Some(backing) => Some(qmp.lend(DOING, &opened(backing, false)?).await?),
        None => None,
    };
    let lent = Extra { path, backing, ..disk };
    for node in lent.nodes(at) {
        qmp.ask(DOING, "blockdev-add", node).await?;
    }
    let device = json!({
        "driver": "virtio-blk-pci", "id": format!("later{at}"), "bus": LATER, "drive": Extra::node(at), "serial": lent.serial,
    });
    qmp.ask(DOING, "device_add", device).await.map(drop)
}

fn opened(path: &Path, is_written: bool) -> Result<File, Fault> {
    let file = File::options().read(true).write(is_written).open(path);
    file.map_err(Fault::host(format!("open {}", path.display())))
}
