//! The configuration file: TOML in, a typed and validated [`Config`] out.

mod model;

pub use model::{
    Admin, Backend, Balance, Check, CheckKind, Config, Expect, Global, HttpCheck, Log, LogFormat,
    Role, Service, StatusRange, TcpStep, Timeouts, XdpMode,
};
