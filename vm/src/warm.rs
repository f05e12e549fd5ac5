//! Machines that have booted, kept for others to go on from.

use navvy_environment::HostPaths;
use navvy_environment::request::{Machine as Wanted, OnEvent, PrepareEvent, Purpose};
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_vm_image::Image;

use crate::error::{Fault, PrepareError};
use crate::images;
use crate::machine_id::MachineId;
use crate::machines::{CLEAN_UP_LIMIT, Machines};
use crate::provider::Order;
use crate::record::{Planned, Record};
use crate::state::State;

impl Machines {
    /// Makes the snapshot from which machines of this image and size start, unless there is one. The config's name of the image;
    /// `None`: the one that is used where none is named.
    ///
    /// # Errors
    /// Why there is none; machines boot instead.
    pub async fn warm(
        &self,
        image: Option<&str>,
        size: Size,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<(), PrepareError> {
        let wanted = Wanted { image: image.map(str::to_owned), purpose: Purpose::Steps, class: None, layers: None };
        let image = images::resolve(&self.settings, &wanted).map_err(at_once)?;
        self.warm_image(image, size, host, events).await
    }

    pub(crate) async fn warm_image(
        &self,
        image: Image,
        size: Size,
        host: &HostPaths,
        events: OnEvent<'_>,
    ) -> Result<(), PrepareError> {
        if self.provider.has_snapshot(&image, size, host).await.map_err(at_once)? {
            return Ok(());
        }
        let owner = Owner::this_process().map_err(Fault::host("look at this process")).map_err(at_once)?;
        let planned = Planned {
            version: Planned::VERSION,
            machine: MachineId::random(),
            task: None,
            owner: owner.clone(),
            provider: self.name().to_owned(),
            image: image.manifest.name.clone(),
            is_adoptable: false,
            has_steps: false,
            pool: None,
            kind: None,
            is_lent: false,
        };
        let machine = planned.machine.clone();
        let record = Record::create(&host.state, planned).await.map_err(|e| at_once(e.into()))?;
        let order = Order::nobodys(machine, owner, image, size);
        let what = format!("keeping a snapshot of {}", order.image.manifest.name);
        events(PrepareEvent::Progress { what, done: 0, total: None });
        let mut instance = self.provider.order(order, record.clone(), host);
        let made = async {
            record.enter(State::Provisioned).await?;
            instance.provision().await?;
            record.enter(State::Launched).await?;
            instance.make_snapshot().await
        };
        let made = tokio::time::timeout(self.settings.start_limit, made).await;
        let made = made.unwrap_or(Err(Fault::Start { limit: self.settings.start_limit }));
        let console = instance.console();
        drop(instance);
        let leftovers = self.destroy(&record, host, CLEAN_UP_LIMIT).await;
        match made {
            Ok(_) if leftovers.is_empty() => Ok(()),
            Ok(_) => {
                events(PrepareEvent::Warning(format!(
                    "what a snapshot was made of is not gone: {}",
                    leftovers.join(", ")
                )));
                Ok(())
            }
            Err(fault) => Err(PrepareError { fault, console, leftovers }),
        }
    }
}

fn at_once(fault: Fault) -> PrepareError {
    PrepareError { fault, console: String::new(), leftovers: Vec::new() }
}
