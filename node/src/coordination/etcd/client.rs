//! Requests to whichever endpoint answers.
//!
//! One endpoint is used at a time, by everything on this node. A request that gets no answer from
//! it makes everybody use the next one; watches too, which would not notice by themselves.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tracing::debug;

use super::{
    EtcdOptions, EtcdTls,
    api::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseRevokeRequest,
        LeaseTimeToLiveRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest,
        WatchRequest, WatchResponse, kv_client::KvClient, lease_client::LeaseClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use crate::coordination::CoordinationError;

/// The most bytes in an answer of etcd.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A connection is asked for a sign of life after so long; etcd takes more often for an attack.
const PING: Duration = Duration::from_secs(6);

/// etcd, wherever it answers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client {
    endpoints: Arc<[(String, Channel)]>,
    /// Which is used.
    chosen: Arc<watch::Sender<usize>>,
    /// How long an answer may take.
    patience: Duration,
}

impl Client {
    /// Connects to nobody yet.
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, CoordinationError> {
        let endpoints: Result<Arc<[_]>, _> = options
            .endpoints
            .iter()
            .map(|address| match channel(address, options) {
                Ok(channel) => Ok((address.clone(), channel)),
                Err(error) => Err(CoordinationError::Unavailable(format!("{address}: {}", chain(&error)))),
            })
            .collect();
        Ok(Self { endpoints: endpoints?, chosen: Arc::default(), patience: options.lease })
    }

    /// The same, less patient.
    pub(super) fn within(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Tries every endpoint once.
    pub(super) async fn is_there(&self, key: &str) -> Result<(), CoordinationError> {
        let mut failed = Vec::new();
        for _ in 0..self.endpoints.len() {
            let address = &self.endpoints[*self.chosen.borrow()].0;
            let range = RangeRequest { key: key.to_owned().into(), limit: 1, ..RangeRequest::default() };
            match self.range(range).await {
                Ok(_) => return Ok(()),
                Err(status) => failed.push(format!("{address}: {}", said(&status))),
            }
        }
        Err(CoordinationError::Unavailable(format!("no etcd answers ({})", failed.join("; "))))
    }

    /// Tells when another endpoint is chosen.
    pub(super) fn chosen(&self) -> watch::Receiver<usize> {
        self.chosen.subscribe()
    }

    pub(super) async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        self.ask(|channel| async { kv(channel).range(range).await }).await
    }

    pub(super) async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        self.ask(|channel| async { kv(channel).txn(txn).await }).await
    }

    /// Forgets what was before `revision`.
    #[cfg(test)]
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = super::api::CompactionRequest { revision };
        self.ask(|channel| async { kv(channel).compact(request).await }).await.map(drop)
    }

    /// A new lease, or this one again where it has run out (0: etcd chooses one). It lasts whole
    /// seconds.
    pub(super) async fn grant(&self, id: i64, lasting: Duration) -> Result<LeaseGrantResponse, Status> {
        let ttl = i64::try_from(lasting.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl, id };
        self.ask(|channel| async { LeaseClient::new(channel).lease_grant(request).await }).await
    }

    /// Prolongs a lease; is it still there?
    pub(super) async fn keep_alive(&self, id: i64) -> Result<bool, Status> {
        let request = futures_util::stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers = self
            .ask(|channel| async { LeaseClient::new(channel).lease_keep_alive(needs_leader(request)).await })
            .await?;
        let answer = timeout(self.patience, answers.message()).await.map_err(|_| silent())??;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// How much longer a lease lasts, in whole seconds; none where there is no such lease.
    pub(super) async fn time_to_live(&self, id: i64) -> Result<Option<Duration>, Status> {
        let request = LeaseTimeToLiveRequest { id };
        let asked = self.ask(|channel| async { LeaseClient::new(channel).lease_time_to_live(request).await });
        Ok(u64::try_from(asked.await?.ttl).ok().map(Duration::from_secs))
    }

    /// Ends a lease and what goes with it.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), Status> {
        let request = LeaseRevokeRequest { id };
        match self.ask(|channel| async { LeaseClient::new(channel).lease_revoke(request).await }).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }

    /// What becomes of some keys.
    pub(super) async fn watch(&self, keys: WatchCreateRequest) -> Result<Streaming<WatchResponse>, Status> {
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(keys)) };
        // etcd ends the watch when its client's half of the stream ends.
        let requests = futures_util::StreamExt::chain(
            futures_util::stream::iter([create]),
            futures_util::stream::pending(),
        );
        self.ask(|channel| async {
            let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            client.watch(needs_leader(requests)).await
        })
        .await
    }

    async fn ask<T, F>(&self, request: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let chosen = *self.chosen.borrow();
        let asked = timeout(self.patience, request(self.endpoints[chosen].1.clone())).await;
        let answer = asked.unwrap_or_else(|_| Err(silent()));
        if let Err(status) = &answer
            && !is_an_answer(status.code())
        {
            self.leave(chosen, status);
        }
        answer.map(Response::into_inner)
    }

    /// Goes on to the next endpoint, unless somebody else has already.
    fn leave(&self, endpoint: usize, because: &Status) {
        let next = (endpoint + 1) % self.endpoints.len();
        self.chosen.send_if_modified(|chosen| {
            let leaves = *chosen == endpoint && next != endpoint;
            if leaves {
                debug!(from = self.endpoints[endpoint].0, because = %said(because), "another etcd endpoint");
                *chosen = next;
            }
            leaves
        });
    }
}

impl From<Status> for CoordinationError {
    fn from(status: Status) -> Self {
        Self::Unavailable(said(&status))
    }
}

/// What etcd has refused, or why nobody answered.
pub(super) fn said(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), chain)
}

/// etcd has understood and refuses; any other code says that it cannot serve.
fn is_an_answer(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

fn silent() -> Status {
    Status::deadline_exceeded("no answer in time")
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A member that has lost the others ends the stream instead of falling silent.
fn needs_leader<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
    request
}

fn channel(address: &str, options: &EtcdOptions) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from_shared(address.to_owned())?
        .connect_timeout(options.lease)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(options.lease);
    if let Some(tls) = &options.tls {
        endpoint = endpoint.tls_config(tls_config(tls))?;
    }
    Ok(endpoint.connect_lazy())
}

fn tls_config(tls: &EtcdTls) -> ClientTlsConfig {
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
    match &tls.identity {
        Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
        None => config,
    }
}

/// An error with what it comes from; each of tonic's says only a part.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        said.push(error.to_string());
        source = error.source();
    }
    said.dedup();
    said.join(": ")
}
