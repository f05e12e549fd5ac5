//! Packed bytes in, plain bytes out, a bounded piece at a time.

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::heads::{Packer, ZSTD};

/// A frame that needs a larger window is not unpacked: only zstd's `--ultra` and `--long` make any. That is how much memory
/// one may take.
const MOST_WINDOW: u32 = 23;

/// Takes one stream apart. The packed bytes themselves say where it ends.
pub enum Unpacker {
    Deflate(Box<Decompress>),
    Zstd(DCtx<'static>),
}

/// What became of one step.
pub struct Step {
    /// Bytes that were taken.
    pub used: usize,
    /// Plain bytes that were made.
    pub made: usize,
    pub is_over: bool,
}

impl Unpacker {
    /// # Errors
    /// Why it cannot be unpacked here, as the end of a sentence.
    pub fn new(packer: Packer, has_magic: bool) -> Result<Self, String> {
        if packer == Packer::Deflate {
            return Ok(Self::Deflate(Box::new(Decompress::new(false))));
        }
        let mut context = DCtx::create();
        context.set_parameter(DParameter::WindowLogMax(MOST_WINDOW)).map_err(of_zstd)?;
        let mut unpacker = Self::Zstd(context);
        if !has_magic {
            unpacker.step(ZSTD, &mut [0; 8])?;
        }
        Ok(unpacker)
    }

    /// Takes some of `from` and fills some of `to`.
    ///
    /// # Errors
    /// As for [`Unpacker::new`].
    pub fn step(&mut self, from: &[u8], to: &mut [u8]) -> Result<Step, String> {
        match self {
            Self::Deflate(inflate) => {
                let (taken, made) = (inflate.total_in(), inflate.total_out());
                let status = inflate.decompress(from, to, FlushDecompress::None);
                let status = status.map_err(|_| "is damaged".to_owned())?;
                Ok(Step {
                    used: (inflate.total_in() - taken) as usize,
                    made: (inflate.total_out() - made) as usize,
                    is_over: status == Status::StreamEnd,
                })
            }
            Self::Zstd(context) => {
                let (mut from, mut to) = (InBuffer::around(from), OutBuffer::around(to));
                let wanted = context.decompress_stream(&mut to, &mut from).map_err(of_zstd)?;
                Ok(Step { used: from.pos(), made: to.pos(), is_over: wanted == 0 })
            }
        }
    }
}

fn of_zstd(code: usize) -> String {
    format!("is not unpacked by zstd: {}", zstd_safe::get_error_name(code))
}
