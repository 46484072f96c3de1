//! Whole jobs, whole processes, real data: see `tests/`.
