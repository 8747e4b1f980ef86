//! Conversations, tested: rule by rule, and by simulation.
