//! What operators do: reload, kill, restart, stop, look.
