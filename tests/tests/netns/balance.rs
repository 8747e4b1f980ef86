//! Who gets a new connection: the balance algorithms, weights and backups.
