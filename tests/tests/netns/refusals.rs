//! Starts that cannot succeed: one clear line each.
