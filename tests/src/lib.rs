//! The lab in network namespaces that the scenarios and the demo share.
