//! Images of virtual machines: what one is made of, and where it is kept on this machine.
//!
//! ```text
//! recipe (vm-image/recipe) ─▶ build ─▶ IMAGES/NAME/{root.qcow2, vmlinux, initrd.cpio, manifest.json} ─▶ verified ─▶ a machine
//!                          import FILE ─▶                                        table: a config's name ─▶ NAME
//! ```

#![warn(missing_docs)]

pub mod manifest;
