//! Config text to diagnostics with spans, or to a compiled pipeline.
