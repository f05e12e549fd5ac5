//! File trees as one stream: a pax tar in independent zstd frames, with a manifest behind it.
//!
//! ```text
//! ┌ START ┐┌ announcement ┬ zstd frame 0 ┐ … ┌ announcement ┬ zstd frame N ┐┌ part ┐ … ┌ part ┐┌ footer ┐
//! │ empty ││ length,      │ ≤ 16 MiB of  │   │              │ … and the    ││ manifest         ││ leads  │
//! │ frame ││ digest       │ the tar      │   │              │ tar's end    ││ frames, entries  ││ to it  │
//! └───────┘└──────────────┴──────────────┘   └──────────────┴──────────────┘└──────────────────┘└────────┘
//!   zstd     skippable      zstd                                             skippable           skippable
//! ```
//!
//! `zstd -d` passes over everything skippable, so `zstd -d | tar x` reads an archive without us. Written and read as a
//! stream, it needs no temporary file; with its end at hand, any one file is read from the frame that holds it.
//!
//! | module | |
//! |---|---|
//! | [`entry`] | what an archive holds |
//! | [`tape`], [`sparse`] | the tar inside, which has one form only |
//! | [`mod@format`] | announcements and the footer |
//! | [`manifest`] | frames and entries as records |
//! | [`codec`] | one zstd frame |
//! | [`frames`] | an archive read section by section |
//! | [`pack`] | trees into an archive |
//! | [`unpack`] | an archive into trees, or only verified |
//! | [`contents`] | what is in one, and one file's bytes |
//! | [`beneath`] | directories below a root, without going through links |

#![warn(missing_docs)]

pub mod beneath;
pub mod codec;
pub mod contents;
pub mod entry;
pub mod error;
pub mod format;
pub mod frames;
pub mod manifest;
pub mod pack;
mod promise;
pub mod sparse;
pub mod tape;
pub mod unpack;
