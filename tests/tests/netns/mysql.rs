//! A real MySQL client and a real MariaDB.
