//! Sources and sinks against the traits of `tidegate-engine`.
