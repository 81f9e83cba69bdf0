//! The service of all connections: what is done around each route, and which route answers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Method, Request};
use lizmon_protocol::route;
use tower::Service;

use super::state::ReceiverState;
use super::{perf, respond};

/// All routes of a receiver.
#[derive(Clone)]
pub struct Front {
    app: Arc<ReceiverState>,
    router: Router,
}

impl Front {
    /// The routes of this receiver.
    pub fn new(app: Arc<ReceiverState>) -> Self {
        let router = super::router(&app);
        Self { app, router }
    }

    /// Most requests bring samples. Those do not pass the router, which would cost more than their
    /// answer; it would give them to the same handler.
    async fn route(mut self, request: Request<Body>) -> Response {
        if brings_samples(&request) {
            return perf::take_samples(&self.app, request).await.into_response();
        }
        let Ok(response) = self.router.call(request).await;
        response
    }
}

impl Service<Request<Body>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move {
            let app = front.app.clone();
            Ok(respond(&app, request, async |request| front.route(request).await).await)
        })
    }
}

/// Whether the router would give it to [`perf::take_samples`].
fn brings_samples<B>(request: &Request<B>) -> bool {
    let rest = request.uri().path().strip_prefix(route::PERF);
    let rest = rest.and_then(|rest| rest.strip_prefix('/'));
    request.method() == Method::POST && rest.is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tower::ServiceExt as _;

    use super::*;

    /// As the router decides, by the same pattern.
    #[tokio::test]
    async fn what_brings_samples() {
        let path = format!("{}/{{*rest}}", route::PERF);
        let posted = axum::routing::post(|| async { StatusCode::OK });
        let router = Router::<()>::new().route(&path, posted);
        for (method, path, expected) in [
            ("POST", "/api/perf/web1", true),
            ("POST", "/api/perf/web1/1465001814", true),
            ("POST", "/api/perf/web1/cpu?x=/", true),
            ("POST", "/api/perf/web%2F1", true),
            ("POST", "/api/perf/web1/", true),
            ("POST", "/api/perf//", true),
            ("POST", "/api/perf/", false),
            ("POST", "/api/perf", false),
            ("POST", "/api/perf?a=/api/perf/web1", false),
            ("POST", "/api/perfweb1/1", false),
            ("POST", "//api/perf/web1", false),
            ("POST", "/api%2Fperf/web1", false),
            ("POST", "/API/PERF/web1", false),
            ("GET", "/api/perf/web1", false),
            ("PUT", "/api/perf/web1", false),
            ("HEAD", "/api/perf/web1", false),
        ] {
            let request = || {
                let request = Request::builder().method(method).uri(path);
                request.body(Body::empty()).unwrap()
            };
            let routed = router.clone().oneshot(request()).await.unwrap();
            assert_eq!(brings_samples(&request()), expected, "{method} {path}");
            assert_eq!(
                routed.status() == StatusCode::OK,
                expected,
                "{method} {path}"
            );
        }
    }
}
