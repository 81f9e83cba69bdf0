//! The harness: a world with a CA, a receiver and holders of certificates, and clients for it.

pub(crate) mod answer;
pub(crate) mod curl;
pub(crate) mod forge;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod world;

pub(crate) use answer::{Answer, answer};
pub(crate) use world::{Holder, World};
