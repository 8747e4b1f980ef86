//! Backends that are killed, hang, refuse or flap.
