//! Bytes arrive intact.
