//! Flags that several verbs share.

pub(crate) mod attributes;
pub(crate) mod ca_keys;
pub(crate) mod connection;
pub(crate) mod days;
pub(crate) mod leaf;
pub(crate) mod output;
pub(crate) mod renewal;
pub(crate) mod store;
