//! Scenarios in network namespaces: the real daemon, the kernel's real XDP, real clients and
//! servers. They need root and run one at a time.

mod administration;
mod admission;
mod adverts;
mod announcements;
mod attachment;
mod balance;
mod checksums;
mod connections;
mod demo;
mod flows;
mod health;
mod host_names;
mod load;
mod moves;
mod mysql;
mod mysql_check;
mod mysql_probe;
mod mysql_states;
mod observe;
mod operation;
mod oracle;
mod pair;
mod paths;
mod reach;
mod refusals;
mod sessions;
mod transfer;
mod upgrade;
