//! The coordinator by hand: each rule of the protocol.
