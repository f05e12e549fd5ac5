//! The working tree that was submitted, on its way from the store into an environment.
//!
//! ```text
//! store ──GET, 8 MiB at a time──▶ zstd, unpacked ──▶ tar stream ──▶ supervisor, which unpacks it as the job's user
//! ```

use std::io::Write;

use navvy_checkout::SentTree;
use navvy_job::chain::chain;
use navvy_storage::{GrantedReader, Retries, Transport};
use tokio::runtime::Handle;
use zstd_safe::{DCtx, InBuffer, OutBuffer};

use navvy_granted::Remote;

/// Bytes that are unpacked at once.
const UNPACKED: usize = 256 << 10;

/// By its name, as the claim has it.
pub struct SubmittedTree {
    pub name: String,
    pub grantor: Remote,
    pub transport: Transport,
    pub retries: Retries,
    pub runtime: Handle,
}

impl SentTree for SubmittedTree {
    fn stream(&self, into: &mut dyn Write) -> Result<(), String> {
        let mut reader = GrantedReader::new(self.transport.clone(), self.retries);
        let mut unpacking = Unpacking::new();
        while let Some(piece) =
            self.runtime.block_on(reader.next(|| self.grantor.tree_url(&self.name))).map_err(|error| chain(&error))?
        {
            unpacking.unpack(&piece, into)?;
        }
        unpacking.end()
    }
}

/// Frames of zstd, one after the other.
struct Unpacking {
    context: DCtx<'static>,
    plain: Vec<u8>,
    /// A frame has begun and not ended.
    within: bool,
}

impl Unpacking {
    fn new() -> Self {
        Self { context: DCtx::create(), plain: Vec::with_capacity(UNPACKED), within: false }
    }

    fn unpack(&mut self, packed: &[u8], into: &mut dyn Write) -> Result<(), String> {
        let mut input = InBuffer::around(packed);
        loop {
            self.plain.clear();
            let mut output = OutBuffer::around(&mut self.plain);
            let hint = self.context.decompress_stream(&mut output, &mut input);
            let hint =
                hint.map_err(|code| format!("the submitted tree is damaged: {}", zstd_safe::get_error_name(code)))?;
            let is_full = output.pos() == output.capacity();
            into.write_all(output.as_slice()).map_err(|error| error.to_string())?;
            self.within = hint != 0;
            // With a full buffer there may be more inside, even if all of the input was taken.
            if input.pos() == packed.len() && !is_full {
                return Ok(());
            }
        }
    }

    fn end(self) -> Result<(), String> {
        match self.within {
            true => Err("the submitted tree is cut off: it ends within a frame".to_owned()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(parts: &[&[u8]]) -> Vec<u8> {
        let frame = |part: &&[u8]| {
            let mut frame = Vec::with_capacity(zstd_safe::compress_bound(part.len()));
            zstd_safe::compress(&mut frame, part, 3).unwrap();
            frame
        };
        parts.iter().flat_map(frame).collect()
    }

    #[test]
    fn frames_are_unpacked_however_they_are_cut() {
        let (one, two) = (vec![7_u8; 1 << 20], b"the end".to_vec());
        let all = packed(&[&one, &two]);
        for size in [1, 7, 4096, all.len()] {
            let (mut unpacking, mut plain) = (Unpacking::new(), Vec::new());
            all.chunks(size).for_each(|piece| unpacking.unpack(piece, &mut plain).unwrap());
            unpacking.end().unwrap();
            assert!(plain == [one.clone(), two.clone()].concat(), "in pieces of {size}");
        }
    }

    #[test]
    fn a_tree_that_is_cut_off_or_is_none_is_an_error() {
        let all = packed(&[b"whole"]);
        let mut unpacking = Unpacking::new();
        unpacking.unpack(&all[..all.len() - 2], &mut Vec::new()).unwrap();
        assert!(unpacking.end().unwrap_err().contains("cut off"));
        assert!(Unpacking::new().unpack(b"no zstd at all", &mut Vec::new()).unwrap_err().contains("damaged"));
    }
}
