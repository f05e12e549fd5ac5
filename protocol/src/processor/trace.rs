//! W3C trace context, from whoever submits a pipeline to its steps.
//!
//! ```text
//! submit: traceparent ─▶ pipeline ─▶ task NODE ─▶ step N, attempt A ─▶ TRACEPARENT in the step's environment
//!         (whoever asks)    └──────────┴──────────────┴── spans whose ids follow from their names: nobody needs to tell them
//! ```
//!
//! A span's id is made from its parent's and its name. So the processor, which tells of spans, and an agent, which gives them to
//! its steps, name the same ones.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The variable that steps find theirs in, and that `navvy submit` takes it from.
pub const VARIABLE: &str = "TRACEPARENT";

/// A trace, and a span of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// A trace that begins here, of random bytes. It is sampled.
    pub fn begin(random: [u8; 24]) -> Self {
        let (trace, span) = random.split_at(16);
        let or_one = |bytes: &[u8]| if bytes.iter().all(|byte| *byte == 0) { 1 } else { 0 };
        let mut begun = Self { trace: [0; 16], span: [0; 8], flags: 1 };
        begun.trace.copy_from_slice(trace);
        begun.span.copy_from_slice(span);
        begun.trace[15] |= or_one(trace);
        begun.span[7] |= or_one(span);
        begun
    }

    /// Reads `00-TRACE-SPAN-FLAGS`. `None`: it is none, and nothing may be taken from it. Of a later version only these parts
    /// count.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
        let flags = parts.next()?;
        let [version] = unhex::<1>(version)?;
        if version == 0xff || version == 0 && parts.next().is_some() {
            return None;
        }
        let (trace, span, [flags]) = (unhex::<16>(trace)?, unhex::<8>(span)?, unhex::<1>(flags)?);
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }

    /// The span of this name below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let digest = Sha256::new().chain_update(self.trace).chain_update(self.span).chain_update(name).finalize();
        let mut span = [0; 8];
        span.copy_from_slice(&digest[..8]);
        if span == [0; 8] {
            span[7] = 1;
        }
        Self { span, ..*self }
    }

    /// The span of a pipeline below whoever submitted it.
    #[must_use]
    pub fn pipeline(&self, id: &str) -> Self {
        self.child(&format!("pipeline {id}"))
    }

    /// The span of a task below its pipeline's.
    #[must_use]
    pub fn task(&self, id: &str) -> Self {
        self.child(&format!("task {id}"))
    }

    /// The span of a step below its task's.
    #[must_use]
    pub fn step(&self, step: u64, attempt: u64) -> Self {
        self.child(&format!("step {step:03}-{attempt}"))
    }

    /// For logs: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        super::segment::hex(&self.trace)
    }

    /// 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        super::segment::hex(&self.span)
    }

    /// Whoever began it wants it to be recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// As in a header: version 0.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), self.span_id(), self.flags)
    }
}

/// Lower-case alone, as the standard wants it.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_again_and_what_is_none_is_not_read() {
        let read = TraceParent::read(TEXT).unwrap();
        assert_eq!(read.to_string(), TEXT);
        assert_eq!((read.trace_id().as_str(), read.is_sampled()), ("4bf92f3577b34da6a3ce929d0e0e4736", true));
        // A later version may have more parts.
        assert_eq!(TraceParent::read(&format!("{}-more", TEXT.replacen("00", "01", 1))), Some(read));
        let zeros = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let odd = [
            "",
            "00",
            "00-0-0-01",
            zeros,
            &TEXT.to_uppercase(),
            &format!("{TEXT}-more"),
            &format!(" {TEXT}"),
            &format!("{TEXT}\n"),
            &TEXT.replacen("00", "ff", 1),
            &TEXT.replace("-00f067aa0ba902b7", "-0000000000000000"),
        ];
        for odd in odd {
            assert_eq!(TraceParent::read(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn spans_follow_from_their_names() {
        let begun = TraceParent::begin([0; 24]);
        assert_eq!(TraceParent::read(&begun.to_string()), Some(begun));
        let task = begun.pipeline("p").task("t");
        let spans = [
            begun,
            begun.pipeline("p"),
            task,
            begun.pipeline("p").task("u"),
            task.step(1, 1),
            task.step(1, 2),
            task.step(11, 1),
        ];
        for (nth, span) in spans.iter().enumerate() {
            assert_eq!(span.trace_id(), begun.trace_id());
            assert!(spans[..nth].iter().all(|other| other.span_id() != span.span_id()), "{span}");
        }
        assert_eq!(begun.pipeline("p").task("t").step(1, 2), spans[5]);
    }
}
