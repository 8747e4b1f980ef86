//! Every shape of network, both address families.
