//! What the fuzz targets have in common: one function for each decoder, which panics where
//! something does not hold.

pub mod decoders;
