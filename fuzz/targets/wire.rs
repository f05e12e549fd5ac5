//! What an agent says to a processor, and what lies in the store as its output: any bytes as any message; chunks and segments in
//! any words; objects that are no frames, or frames of something else. What is believed is within its bounds and leads to one
//! place; nothing costs more memory than its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, mishap};
use navvy_protocol::processor::segment::{MAX_STORED, Of, ROOT, check_chunk, hex, parse_path, read, unpack};
use navvy_protocol::processor::{LogName, MAX_CHUNK, MAX_SEGMENT, MOST_OFFSET, v1};
use prost::Message;
use sha2::{Digest as _, Sha256};

const OF: Of<'static> = Of { pipeline: "0b0c3b5e-4d3c-4b53-9d5c-3a4f1f1c2d11", task: "0123456789abcdef" };

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    match feed.byte() % 5 {
        0 => messages(feed.rest()),
        1 => words(&mut feed),
        2 => path(&feed.text(200)),
        3 => object(&mut feed),
        _ => frame(&mut feed),
    }
});

/// What is understood is said again with the same meaning.
fn message<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again = M::decode(&message.encode_to_vec()[..]).expect("what was written cannot be read");
    assert!(again == message, "a message is written otherwise than it was read");
    Some(message)
}

/// The bytes as every message that an agent sends, and as those that it believes.
fn messages(bytes: &[u8]) {
    if let Some(chunk) = message::<v1::Chunk>(bytes) {
        chunk_is_sound(&chunk);
    }
    if let Some(segment) = message::<v1::Segment>(bytes) {
        segment_is_sound(&segment, &segment.object);
    }
    if let Some(commit) = message::<v1::CommitSegmentsRequest>(bytes) {
        commit.segments.iter().for_each(|segment| segment_is_sound(segment, &segment.object));
    }
    message::<v1::SegmentRequest>(bytes);
    message::<v1::ClaimRequest>(bytes);
    message::<v1::Beat>(bytes);
    message::<v1::RecordRequest>(bytes);
    message::<v1::FinishRequest>(bytes);
    message::<v1::CommitRequest>(bytes);
    message::<v1::PiecesRequest>(bytes);
    message::<v1::CompleteUploadRequest>(bytes);
    message::<v1::ClaimAnswer>(bytes);
    message::<v1::Word>(bytes);
    message::<v1::DurableMarks>(bytes);
    message::<v1::FinishAnswer>(bytes);
}

fn words(feed: &mut Feed<'_>) {
    let log = feed.text(14);
    let sizes = [0, 1, MAX_SEGMENT as u32, MAX_SEGMENT as u32 + 1, MAX_STORED as u32, MAX_STORED as u32 + 1, u32::MAX];
    let size = |feed: &mut Feed<'_>| sizes[feed.up_to(sizes.len() - 1)];
    let (length, stored) = (size(feed), size(feed));
    let offset = feed.number();
    let sha256 = feed.piece(40).to_vec();
    let unique = feed.text(34);
    let chunk =
        v1::Chunk { log: log.clone(), offset, bytes: feed.piece(255).to_vec().into(), stream: i32::from(feed.byte()) };
    chunk_is_sound(&chunk);
    segment_is_sound(&v1::Segment { log, offset, length, stored, sha256, object: String::new() }, &unique);
}

fn chunk_is_sound(chunk: &v1::Chunk) {
    match check_chunk(chunk) {
        Ok(log) => {
            assert_eq!(log.to_string(), chunk.log);
            assert!((1..=MAX_CHUNK).contains(&chunk.bytes.len()) && chunk.offset <= MOST_OFFSET);
        }
        Err(error) => assert!(!error.0.is_empty() && error.0.len() < 400, "{error}"),
    }
}

fn segment_is_sound(said: &v1::Segment, unique: &str) {
    match read(OF, said, unique) {
        Ok(sealed) => {
            assert_eq!(sealed.log.to_string(), said.log);
            assert!(sealed.length > 0 && sealed.length <= MAX_SEGMENT as u64 && sealed.stored <= MAX_STORED as u64);
            assert!(sealed.start <= MOST_OFFSET && sealed.sha256.len() == 64);
            let beneath = format!("{ROOT}{}/{}/", OF.pipeline, OF.task);
            assert!(
                sealed.object.starts_with(&beneath) && sealed.object.matches('/').count() == 5,
                "{}",
                sealed.object
            );
            assert_eq!(parse_path(&sealed.object), Some((OF.task, sealed.log, sealed.start)));
        }
        Err(error) => assert!(!error.0.is_empty() && error.0.len() < 400, "{error}"),
    }
}

/// A path that is understood has one spelling, and none leads up.
fn path(text: &str) {
    for text in [text.to_owned(), format!("{ROOT}{text}")] {
        let Some((task, log, start)) = parse_path(&text) else { continue };
        assert!(start <= MOST_OFFSET && LogName::read(&log.to_string()) == Ok(log));
        assert!(text.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{text}");
        assert!(text.contains(&format!("/{task}/{log}/{start}-")), "{text}");
    }
}

/// Any bytes as an object.
fn object(feed: &mut Feed<'_>) {
    let length = feed.number() % (2 * MAX_SEGMENT as u64);
    let sha256 = hex(&Sha256::digest(feed.piece(60)));
    if let Ok(bytes) = unpack(feed.rest(), length, &sha256) {
        assert!(bytes.len() as u64 == length && hex(&Sha256::digest(&bytes)) == sha256);
    }
}

/// A segment's own object, and something that befell it.
fn frame(feed: &mut Feed<'_>) {
    let mut bytes = feed.piece(300).to_vec();
    let repeats = feed.up_to(40);
    bytes = bytes.repeat(repeats.max(1));
    let mut object = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut object, &bytes, 1).expect("zstd compresses into a bound of its own");
    let (length, sha256) = (bytes.len() as u64, hex(&Sha256::digest(&bytes)));
    assert_eq!(unpack(&object, length, &sha256).as_deref(), Ok(&bytes[..]));
    mishap(feed, &mut object, &[]);
    if let Ok(unpacked) = unpack(&object, length, &sha256) {
        assert!(unpacked == bytes);
    }
}
