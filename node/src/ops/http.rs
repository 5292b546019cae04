//! `/metrics`, `/healthz` and `/readyz`, for this machine or the operator's network: plain HTTP,
//! a few connections, each with its time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::Metrics;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole connection, however many requests it makes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// After an accept that failed, as where files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Is the node ready to serve? If not, the reason.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Answers until it is dropped; it never fails. Connections end with it.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, ready: Probe) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (metrics, ready) = (Arc::clone(&metrics), Arc::clone(&ready));
                connections.spawn(async move {
                    converse(stream, metrics, ready).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "an operations connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, metrics: Arc<Metrics>, ready: Probe) {
    let service = service_fn(|request| {
        let response = answer(&request, &metrics, &ready);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "an operations connection ended"),
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, ready: &Probe) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into());
    }
    match request.uri().path() {
        "/metrics" => response(StatusCode::OK, OPEN_METRICS, metrics.render()),
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".into()),
        "/readyz" => match ready() {
            Ok(()) => response(StatusCode::OK, PLAIN, "ready\n".into()),
            Err(reason) => response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{reason}\n")),
        },
        _ => response(StatusCode::NOT_FOUND, PLAIN, "there are /metrics, /healthz and /readyz\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        fmt,
        net::SocketAddr,
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn start(ready: Probe) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::new());
        metrics.committed.add(7);
        tokio::spawn(serve(listener, metrics, ready));
        address
    }

    async fn get(address: SocketAddr, path: impl fmt::Display) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn a_node_is_healthy_before_it_is_ready() {
        let is_ready = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_ready);
        let probe = move || {
            if flag.load(Ordering::SeqCst) { Ok(()) } else { Err("the store is damaged".into()) }
        };
        let address = start(Arc::new(probe)).await;
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let refused = get(address, "/readyz").await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("the store is damaged"), "{refused}");
        is_ready.store(true, Ordering::SeqCst);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_shown_and_nothing_else_is() {
        let address = start(Arc::new(|| Ok(()))).await;
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("shoal_committed_total 7"), "{metrics}");
        assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
        assert!(get(address, "/etc/passwd").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_others_out_for_ever() {
        tokio::time::pause();
        let address = start(Arc::new(|| Ok(()))).await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
}
