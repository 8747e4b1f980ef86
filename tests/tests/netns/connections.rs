//! Connections opened, closed, reset and abandoned: every count returns to zero.
