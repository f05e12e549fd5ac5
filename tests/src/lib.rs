//! Harness for end-to-end stories.
