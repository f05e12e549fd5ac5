//! What a machine starts from, as its provider knows it.

use std::sync::Arc;

use navvy_vm_image::Image;

use crate::far::{cloud, hosts, lent};
use crate::record::Known;

/// What a machine starts from, as its provider knows it.
#[derive(Clone)]
pub(crate) enum Source {
    /// An image of this host.
    Image(Box<Image>),
    /// One of these hosts.
    Hosts(Arc<hosts::Hosts>, hosts::Candidates),
    /// An image and a size of a cloud.
    Cloud(Arc<cloud::Cloud>, Box<cloud::Chosen>),
    /// What a processor lends.
    Lent(lent::Chosen),
}

impl From<Image> for Source {
    fn from(image: Image) -> Self {
        Self::Image(Box::new(image))
    }
}

impl Source {
    /// Its name, for records and people.
    pub fn name(&self) -> String {
        match self {
            Self::Image(image) => image.manifest.name.clone(),
            Self::Hosts(_, candidates) => candidates.name(),
            Self::Cloud(_, chosen) => chosen.image.image.clone(),
            Self::Lent(chosen) => chosen.image.clone(),
        }
    }

    /// By which name a pool counts machines that start from it: it is found by that name, too.
    pub fn counted(&self) -> &str {
        match self {
            Self::Image(image) => &image.manifest.name,
            Self::Hosts(_, candidates) => &candidates.counted,
            Self::Cloud(_, chosen) => &chosen.image.name,
            Self::Lent(chosen) => &chosen.image,
        }
    }

    /// Is the machine of a pool's record one that starts from it?
    pub fn is_of(&self, known: &Known) -> bool {
        match self {
            Self::Image(image) => known.planned.image == image.manifest.name,
            Self::Hosts(_, candidates) => {
                known.requested().is_some_and(|(_, place)| candidates.hosts.iter().any(|host| host.name == place))
            }
            Self::Cloud(cloud, chosen) => {
                let shape = Some((chosen.size.cpus, chosen.size.memory >> 20));
                let is_there = known.requested().is_some_and(|(_, place)| place == cloud.terms.place);
                known.planned.image == chosen.image.image && known.shape() == shape && is_there
            }
            // Its record is where its pool is.
            Self::Lent(_) => false,
        }
    }

    /// The version of its Docker engine, if it has one.
    pub fn docker(&self) -> Option<String> {
        match self {
            Self::Image(image) => image.manifest.docker.clone(),
            Self::Hosts(_, candidates) => candidates.hosts.first().and_then(|host| host.docker.clone()),
            Self::Cloud(_, chosen) => chosen.image.docker.clone(),
            // Nobody knows before there is one.
            Self::Lent(_) => None,
        }
    }

    /// As whom steps run in it.
    pub fn user(&self) -> String {
        match self {
            Self::Image(image) => image.manifest.user.clone(),
            Self::Hosts(_, candidates) => {
                candidates.hosts.first().map(|host| host.step_user.clone()).unwrap_or_default()
            }
            Self::Cloud(_, chosen) => chosen.image.user.clone(),
            Self::Lent(chosen) => chosen.user(),
        }
    }
}
