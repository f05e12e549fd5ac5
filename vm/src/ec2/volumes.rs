//! Disks that outlive a machine: Docker's layers, a volume per project and slot.

use super::answers::{DescribeVolumes, Done, TAG_MANAGED, TAG_OWNER};
use super::{CLOUD, Ec2, Form};
use crate::cloud::call::patiently;
use crate::cloud::{Fault, MANAGED_BY};
use crate::machine_id::MachineId;

/// Tag with the name of the layers that a volume holds.
const TAG_LAYERS: &str = "navvy:layers";

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The cloud's own name of it.
    pub name: String,
    /// It is attached to no machine.
    pub is_free: bool,
}

impl Ec2 {
    /// An empty, encrypted volume of so many GiB; asking twice by one id gives one.
    ///
    /// # Errors
    /// There is none.
    pub async fn create_volume(
        &self,
        id: &MachineId,
        (owner, layers): (&str, &str),
        zone: &str,
        gib: u32,
    ) -> Result<Volume, Fault> {
        let gib = gib.to_string();
        let mut form = pairs(&[
            ("AvailabilityZone", zone),
            ("Size", &gib),
            ("VolumeType", "gp3"),
            ("Encrypted", "true"),
            ("ClientToken", id.as_str()),
            ("TagSpecification.1.ResourceType", "volume"),
        ]);
        for (nth, (key, value)) in (1..).zip([(TAG_MANAGED, MANAGED_BY), (TAG_OWNER, owner), (TAG_LAYERS, layers)]) {
            form.push((format!("TagSpecification.1.Tag.{nth}.Key"), key.to_owned()));
            form.push((format!("TagSpecification.1.Tag.{nth}.Value"), value.to_owned()));
        }
        let made: super::answers::Volume =
            patiently(self.pace, || self.ask("CreateVolume", "CreateVolumeResponse", &form)).await?;
        volume(made)
    }

    /// All volumes of an owner with these layers.
    ///
    /// # Errors
    /// Not all pages came.
    pub async fn volumes(&self, owner: &str, layers: &str) -> Result<Vec<Volume>, Fault> {
        let mut form = pairs(&[("MaxResults", "500")]);
        for (nth, (key, value)) in (1..).zip([(TAG_MANAGED, MANAGED_BY), (TAG_OWNER, owner), (TAG_LAYERS, layers)]) {
            form.push((format!("Filter.{nth}.Name"), format!("tag:{key}")));
            form.push((format!("Filter.{nth}.Value.1"), value.to_owned()));
        }
        let (mut all, mut next) = (Vec::new(), None);
        for _ in 0..super::PAGES {
            let mut page = form.clone();
            page.extend(next.map(|token| ("NextToken".to_owned(), token)));
            let answer: DescribeVolumes =
                patiently(self.pace, || self.ask("DescribeVolumes", "DescribeVolumesResponse", &page)).await?;
            for item in answer.volume_set.item {
                all.push(volume(item)?);
            }
            next = answer.next_token.filter(|token: &String| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(Fault::Nonsense { cloud: CLOUD, call: "DescribeVolumes", message: "too many pages".to_owned() })
    }

    /// Gives a free volume to a machine: only one of two who ask gets it.
    ///
    /// # Errors
    /// Another machine has it, or the cloud does not do it.
    pub async fn attach_volume(&self, volume: &str, instance: &str, device: &str) -> Result<(), Fault> {
        let form = pairs(&[("VolumeId", volume), ("InstanceId", instance), ("Device", device)]);
        let _done: Done = patiently(self.pace, || self.ask("AttachVolume", "AttachVolumeResponse", &form)).await?;
        Ok(())
    }

    /// Takes a volume away from this machine, and from no other that may have got it meanwhile.
    ///
    /// # Errors
    /// It may be there yet.
    pub async fn detach_volume(&self, volume: &str, instance: &str, device: &str) -> Result<(), Fault> {
        let form = pairs(&[("VolumeId", volume), ("InstanceId", instance), ("Device", device)]);
        let _done: Done = patiently(self.pace, || self.ask("DetachVolume", "DetachVolumeResponse", &form)).await?;
        Ok(())
    }

    /// Deletes a volume. One that is not there is deleted.
    ///
    /// # Errors
    /// It may be there yet.
    pub async fn delete_volume(&self, volume: &str) -> Result<(), Fault> {
        let form = pairs(&[("VolumeId", volume)]);
        let done: Result<Done, Fault> =
            patiently(self.pace, || self.ask("DeleteVolume", "DeleteVolumeResponse", &form)).await;
        match done {
            Ok(_) | Err(Fault::NotFound { .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Form {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn volume(item: super::answers::Volume) -> Result<Volume, Fault> {
    let digits = item.volume_id.strip_prefix("vol-").unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message = "a volume whose id is none".to_owned();
        return Err(Fault::Nonsense { cloud: CLOUD, call: "CreateVolume", message });
    }
    Ok(Volume { is_free: item.status == "available", name: item.volume_id })
}
