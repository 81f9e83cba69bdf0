//! What every program reads of certificates, keys and revocation lists, read the same by all of them. Pure: bytes in, values
//! out; no file is opened here, no clock is asked.
//!
//! ```text
//!  bytes of a file ──> pem ──> sections: what each is, at which line, its DER
//! ```

pub mod pem;
