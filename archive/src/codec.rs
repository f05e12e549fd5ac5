//! One frame of zstd: made, and taken apart within its bounds.

use zstd_safe::{CCtx, CParameter, DCtx};

use crate::format::BLOCK;

/// The magic number of a data frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Plain bytes of a block in a frame: the most that zstd allows.
const ZSTD_BLOCK: usize = 128 << 10;

/// Level 3 with tables that stay in a core's own cache even where two share it: 20 to 40 % faster than zstd's own,
/// which are made for larger caches, for 3 to 5 % more bytes.
const LEAN: [CParameter; 3] = [CParameter::WindowLog(20), CParameter::HashLog(14), CParameter::ChainLog(14)];

/// Packs frames. Its tables are used again for each of them.
pub struct Compressor(CCtx<'static>);

impl Compressor {
    /// `level` is zstd's; 3 packs with tables that suit a core's own cache.
    pub fn new(level: i32) -> Self {
        let mut context = CCtx::create();
        let lean = if level == 3 { &LEAN[..] } else { &[] };
        for parameter in [CParameter::CompressionLevel(level)].iter().chain(lean) {
            let set = context.set_parameter(*parameter);
            debug_assert!(set.is_ok(), "zstd knows the parameter and clamps levels");
        }
        Self(context)
    }

    /// The same, but what looks like noise is stored: zstd would search it through and find nothing.
    pub fn compress_or_store(&mut self, plain: &[u8], to: &mut Vec<u8>) {
        if looks_like_noise(plain) { store(plain, to) } else { self.compress(plain, to) }
    }

    /// One frame that says how long it is unpacked. `to` is written anew.
    pub fn compress(&mut self, plain: &[u8], to: &mut Vec<u8>) {
        to.clear();
        to.reserve(zstd_safe::compress_bound(plain.len()));
        if self.0.compress2(to, plain).is_err() {
            // It has the room that it needs, so this is a lack of memory; stored is a right frame, too.
            store(plain, to);
        }
    }
}

const SAMPLES: usize = 64;
const SAMPLE: usize = 1024;
/// The sum of the squared counts of bytes in a sample: 5116 in noise, give or take 90. Text has 40,000 and more.
const NOISE_SUM: u32 = 5500;

/// Whether every one of many samples is: a frame that is partly compressible is left to zstd.
fn looks_like_noise(plain: &[u8]) -> bool {
    let step = plain.len() / SAMPLES;
    // In a small frame there is nothing to win.
    step >= SAMPLE && (0..SAMPLES).all(|sample| is_noise(&plain[sample * step..sample * step + SAMPLE]))
}

fn is_noise(sample: &[u8]) -> bool {
    let mut counts = [0_u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    counts.iter().map(|count| count * count).sum::<u32>() < NOISE_SUM
}

/// A frame whose blocks are the plain bytes: for what zstd cannot shrink.
pub fn store(plain: &[u8], to: &mut Vec<u8>) {
    to.clear();
    to.extend_from_slice(&MAGIC);
    // A single segment, and four bytes of length.
    to.push(0xa0);
    to.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    let last = plain.len().div_ceil(ZSTD_BLOCK).max(1) - 1;
    for number in 0..=last {
        let block = &plain[number * ZSTD_BLOCK..plain.len().min((number + 1) * ZSTD_BLOCK)];
        let head = (block.len() as u32) << 3 | u32::from(number == last);
        to.extend_from_slice(&head.to_le_bytes()[..3]);
        to.extend_from_slice(block);
    }
}

/// Unpacks frames. Its tables are used again for each of them.
pub struct Decompressor(DCtx<'static>);

impl Decompressor {
    /// Works for frames of any level.
    pub fn new() -> Self {
        Self(DCtx::create())
    }

    /// `frame` must be exactly one frame that unpacks to exactly `length` bytes. `to` is written anew.
    pub fn unpack(&mut self, frame: &[u8], length: usize, to: &mut Vec<u8>) -> Result<(), &'static str> {
        if length_of(frame)? != length as u64 {
            return Err("the length of a frame differs from its announcement");
        }
        self.unpack_any(frame, length, to)
    }

    /// The same, up to `cap` bytes.
    pub fn unpack_any(&mut self, frame: &[u8], cap: usize, to: &mut Vec<u8>) -> Result<(), &'static str> {
        let length = length_of(frame)?;
        if length > cap as u64 {
            return Err("a frame is longer than it may be");
        }
        to.clear();
        to.reserve(length as usize);
        match self.0.decompress(to, frame) {
            Ok(unpacked) if unpacked as u64 == length => Ok(()),
            Ok(_) => Err("the length of a frame differs from its own header"),
            Err(_) => Err("invalid zstd frame"),
        }
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self::new()
    }
}

/// What the one frame in these bytes says of its plain length.
fn length_of(frame: &[u8]) -> Result<u64, &'static str> {
    // Behind it nothing, and no skippable frame: other readers would see more or less than we do.
    if !frame.starts_with(&MAGIC) || zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err("a frame is not exactly one zstd frame");
    }
    zstd_safe::get_frame_content_size(frame).ok().flatten().ok_or("a frame does not say how long it is")
}

const _: () = assert!(ZSTD_BLOCK.is_multiple_of(BLOCK));

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(plain: &[u8], pack: impl FnOnce(&[u8], &mut Vec<u8>)) {
        let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
        pack(plain, &mut packed);
        Decompressor::new().unpack(&packed, plain.len(), &mut unpacked).unwrap();
        assert!(unpacked == plain);
    }

    #[test]
    fn frames_round_trip_compressed_and_stored() {
        for length in [0, 1, 512, ZSTD_BLOCK - 1, ZSTD_BLOCK, ZSTD_BLOCK + 1, 3 * ZSTD_BLOCK, 1 << 20] {
            let plain: Vec<u8> = (0..length).map(|at| ((at * at) >> 7) as u8).collect();
            round_trip(&plain, store);
            round_trip(&plain, |plain, to| Compressor::new(3).compress(plain, to));
        }
    }

    #[test]
    fn noise_is_stored_and_what_is_partly_noise_is_not() {
        let mut state = 1_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let mut plain: Vec<u8> = (0..1 << 20).map(|_| noise()).collect();
        assert!(looks_like_noise(&plain));
        round_trip(&plain, |plain, to| Compressor::new(3).compress_or_store(plain, to));
        plain[500_000..520_000].fill(b'x');
        assert!(!looks_like_noise(&plain));
        assert!(!looks_like_noise(&"some words and more words ".repeat(10_000).into_bytes()));
        assert!(!looks_like_noise(&plain[..SAMPLE]));
    }

    #[test]
    fn only_exactly_one_frame_of_the_announced_length() {
        let mut frame = Vec::new();
        store(&[7; 512], &mut frame);
        let unpack = |frame: &[u8], length| Decompressor::new().unpack(frame, length, &mut Vec::new());
        assert!(unpack(&frame, 512).is_ok());
        assert!(unpack(&frame, 1024).is_err());
        assert!(unpack(&frame[..frame.len() - 1], 512).is_err());
        assert!(unpack(&[&frame[..], &frame].concat(), 1024).is_err(), "two frames");
        assert!(unpack(&[&frame[..], b"x"].concat(), 512).is_err(), "and more");
        let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &[0; 4]].concat();
        assert!(unpack(&[&skippable[..], &frame].concat(), 512).is_err(), "a skippable frame before");
        assert!(unpack(&[&frame[..], &skippable].concat(), 512).is_err(), "a skippable frame behind");
    }
}
