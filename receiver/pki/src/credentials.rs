//! The certificate, key and CA certificates of a client. They are loaded from files, checked, and
//! reloaded when the files change.

mod client_tls;
mod error;
mod files;
mod loading;
mod server_verifier;
mod watched;

pub use self::client_tls::{anonymous_tls, pinned_tls, unverified_tls};
pub use self::error::CredentialsError;
pub use self::loading::{CredentialStamps, Credentials, LoadedCredentials, Validity};
pub use self::server_verifier::ServerIdentityError;
pub use self::watched::WatchedCredentials;
