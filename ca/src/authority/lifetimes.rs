//! How long tokens and certificates from the network live, and how long replaced ones overlap.

use std::time::Duration;

use crate::pki::DAY_SECS;

/// Default lifetime of a join token.
pub const TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
/// Longest lifetime of a join token. A longer one would be a password in a file.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * DAY_SECS);
/// Lifetime of a certificate that was issued for a join token, and of each renewal of it.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(7 * DAY_SECS);
/// How long a certificate remains valid after its successor was first used, and how long a renewal
/// may remain unused before it counts as abandoned. Longer than any request in progress with the
/// old certificate, and as long as the longest pause of a client that retries.
pub const OVERLAP: Duration = Duration::from_secs(3600);
/// How often superseded certificates are revoked. Each time signs a CRL, and receivers fetch one
/// every ten minutes.
pub const SUPERSEDED_INTERVAL: Duration = Duration::from_secs(600);
/// Renewed certificates that one holder may have beside the one it shows: two attempts whose
/// answers were lost, and one more. Without a bound a thief of the key could collect any number of
/// them.
pub const RENEWED_VALID_MAX: usize = 3;
