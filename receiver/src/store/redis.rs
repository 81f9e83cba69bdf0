//! Redis and Valkey.

pub mod info;
pub mod judge;
