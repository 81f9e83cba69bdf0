//! What the baseline answers: its handlers read the body.

use std::path::Path;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path as RoutePath;
use axum::routing::{get, post};
use http::StatusCode;
use lizmon_benches::bare;
use lizmon_protocol::route;

/// As long as a receiver's.
pub(crate) const TOKEN_BYTES: usize = 700;
/// Answered with so many bytes, as summaries are: `/bytes/{count}`
pub(crate) const BYTES: &str = "/bytes";

/// Serves until it is ended by a signal.
#[tokio::main]
pub(crate) async fn serve(certs: &Path) -> Result<()> {
    let files = (
        &*certs.join("receivers/rx.crt"),
        &*certs.join("receivers/rx.key"),
        &*certs.join("root.crt"),
    );
    let started = |address| {
        eprintln!("READY on {address}");
        Ok(())
    };
    bare::serve(files, router(), started).await
}

fn router() -> Router {
    let take = |_body: Bytes| async { StatusCode::NO_CONTENT };
    let token = format!(
        r#"{{"access_token":"{}","token_type":"Bearer","expires_in":300,"scope":"metrics:write"}}"#,
        "x".repeat(TOKEN_BYTES)
    );
    let token = Bytes::from(token);
    let filler = Bytes::from(vec![b'0'; 1 << 20]);
    Router::new()
        .route("/api/perf/{host}/{epoch}", post(take))
        .route("/api/perf/{host}", post(take))
        .route(route::TOKEN, post(move |_body: Bytes| async { token }))
        .route(
            &format!("{BYTES}/{{count}}"),
            get(move |RoutePath(count): RoutePath<usize>| async move {
                filler.slice(..count.min(filler.len()))
            }),
        )
}
