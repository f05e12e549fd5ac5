//! Images of virtual machines: what one is made of, and where it is kept on this machine.
//!
//! ```text
//! recipe (vm-image/recipe) ─▶ [`build`] ─▶ IMAGES/NAME/{root.qcow2, vmlinux, initrd.cpio, manifest.json} ─▶ [`verify`] ─▶ a machine
//!                     FILE ─▶ [`import`] ─▶                                 [`table`]: a config's name ─▶ NAME
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`store`] | the images of this machine: listed, looked up, put, removed |
//! | [`build`], [`import`] | images made: by the recipe, of somebody's disk |
//! | [`manifest`] | what an image is |
//! | [`mod@verify`] | whether its files still are what the manifest says |
//! | [`table`] | which image a config's name stands for |
//! | [`mod@error`] | what can go wrong, and whose fault it is |
//!
//! On disk: `IMAGES/NAME/`, beside it `IMAGES/.locks/NAME`, `IMAGES/.verified/NAME` and, while one is made, `IMAGES/.making-*`.

#![warn(missing_docs)]

pub mod build;
pub mod error;
pub mod import;
mod in_use;
mod initrd;
mod lock;
pub mod making;
pub mod manifest;
pub mod name;
pub mod qcow2;
mod recipe;
#[cfg(test)]
mod samples;
pub mod store;
pub mod table;
mod tools;
pub mod verify;

pub use error::ImageError;
pub use store::{Image, Images};
pub use table::Table;
