//! The service of all connections: what is done around each route, and which route answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{Method, request};
use lizmon_mtls::service::{ClientRequest, RequestBody, Routes};
use lizmon_protocol::route;
use tower::ServiceExt as _;

use super::state::ReceiverState;
use super::{perf, respond};

/// All routes of a receiver.
#[derive(Clone)]
pub struct Front(Arc<AllRoutes>);

struct AllRoutes {
    app: Arc<ReceiverState>,
    router: Router,
}

impl Front {
    /// The routes of this receiver.
    pub fn new(app: Arc<ReceiverState>) -> Self {
        let router = super::router(&app);
        Self(Arc::new(AllRoutes { app, router }))
    }
}

impl Routes for Front {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn answer(&self, mut request: ClientRequest<RequestBody>) -> Self::Future {
        let routes = self.0.clone();
        // Most requests bring samples. Those do not pass the router, which would cost more than
        // their answer.
        if brings_samples(&request.head) {
            return Box::pin(async move {
                let take = async |request: &mut _| {
                    let taken = perf::take_samples(&routes.app, request).await;
                    taken.into_response()
                };
                respond(&routes.app, &mut request, take).await
            });
        }
        Box::pin(async move {
            let route = async |request: &mut ClientRequest<RequestBody>| {
                let Ok(response) = routes.router.clone().oneshot(request.take_request()).await;
                response
            };
            respond(&routes.app, &mut request, route).await
        })
    }
}

/// Whether it is a POST to what the router serves as [`perf::read_host`].
fn brings_samples(head: &request::Parts) -> bool {
    let rest = head.uri.path().strip_prefix(route::PERF);
    let rest = rest.and_then(|rest| rest.strip_prefix('/'));
    head.method == Method::POST && rest.is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode};

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
            assert_eq!(
                brings_samples(&request().into_parts().0),
                expected,
                "{method} {path}"
            );
            assert_eq!(
                routed.status() == StatusCode::OK,
                expected,
                "{method} {path}"
            );
        }
    }
}
