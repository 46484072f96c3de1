//! The running of a job as actix actors.
