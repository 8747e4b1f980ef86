//! Scenarios in network namespaces: the real daemon, the kernel's real XDP, real clients and
//! servers. They need root and run one at a time.

mod adverts;
mod announcements;
mod attachment;
mod balance;
mod checksums;
mod connections;
mod flows;
mod health;
mod load;
mod moves;
mod mysql;
mod operation;
mod pair;
mod paths;
mod reach;
mod refusals;
mod sessions;
mod transfer;
