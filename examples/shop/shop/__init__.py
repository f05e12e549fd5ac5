"""A shop, small enough to read in a minute: something for a pipeline to test."""
