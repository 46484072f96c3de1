//! Tidegate: a stream-processing engine built from actors.
