//! What the operator and the orchestra see over HTTP: `/metrics`, `/live`, `/ready`. Plain HTTP/1.1, nothing else.
//!
//! - `GET /metrics`: every family in Prometheus text format 0.0.4.
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 200 while rules are loaded, the store is open, the doors stand open and no drain has begun; 503
//!   otherwise.
//!
//! It serves few clients at once, keeps none for long, reads the metrics and the store's totals and changes nothing.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::session::Gateway;

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections at once; further clients wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long to wait after a failed accept, which is mostly the limit of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, gateway: Arc<Gateway>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let gateway = Arc::clone(&gateway);
                tokio::spawn(async move {
                    connection(socket, gateway).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a metrics client could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, gateway: Arc<Gateway>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&gateway)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service);
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a metrics connection broke"),
    }
}

async fn answer(
    request: Request<Incoming>,
    gateway: Arc<Gateway>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    Ok(match request.uri().path() {
        "/metrics" => metrics(gateway).await,
        "/live" => text(StatusCode::OK, "live\n".to_owned()),
        "/ready" if gateway.drain.has_begun() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        }
        // The socket is bound after everything that readiness promises.
        "/ready" => text(StatusCode::OK, "ready\n".to_owned()),
        _ => text(StatusCode::NOT_FOUND, "here are /metrics, /live and /ready\n".to_owned()),
    })
}

async fn metrics(gateway: Arc<Gateway>) -> Response<Full<Bytes>> {
    let rendered = spawn_blocking(move || {
        match gateway.store.quarantine().totals() {
            Ok(totals) => gateway.metrics.quarantine(totals.messages, totals.bytes),
            Err(error) => tracing::warn!(%error, "the quarantine could not be counted"),
        }
        match gateway.store.quarantine().released() {
            Ok(counts) => {
                for (class, count) in counts {
                    gateway.metrics.released(class.as_str(), count);
                }
            }
            Err(error) => tracing::warn!(%error, "the releases could not be counted"),
        }
        gateway.metrics.journal_dropped(gateway.store.journal().dropped());
        gateway.metrics.render()
    });
    match rendered.await {
        Ok(body) => {
            let mut response = text(StatusCode::OK, body);
            let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be written; see the log\n".to_owned(),
            )
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
