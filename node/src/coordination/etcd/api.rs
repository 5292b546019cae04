//! etcd's API, as far as it is used here.

use bytes::Bytes;

pub(super) use generated::*;

use compare::{CompareTarget, TargetUnion};
use request_op::Request;
use response_op::Response;

mod generated {
    #![allow(unreachable_pub, unused_qualifications, clippy::all)]
    tonic::include_proto!("etcdserverpb");
}

/// The key's version is this.
pub(super) fn version_is(key: &str, version: i64) -> Compare {
    compare(key, CompareTarget::Version, TargetUnion::Version(version))
}

/// The key came into being in this revision; 0: it is not there.
pub(super) fn created_in(key: &str, revision: i64) -> Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// The key goes with this lease.
pub(super) fn is_under(key: &str, lease: i64) -> Compare {
    compare(key, CompareTarget::Lease, TargetUnion::Lease(lease))
}

fn compare(key: &str, target: CompareTarget, value: TargetUnion) -> Compare {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Compare { key, target: target.into(), target_union: Some(value), ..Compare::default() }
}

/// Reads one key.
pub(super) fn get(key: &str) -> RequestOp {
    let range = RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..RangeRequest::default() };
    Request::RequestRange(range).into()
}

/// Writes one key, under a lease unless that is 0, and returns what was there before.
pub(super) fn put(key: &str, value: Bytes, lease: i64) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Request::RequestPut(PutRequest { key, value, lease, prev_kv: true }).into()
}

/// Takes one key away.
pub(super) fn delete(key: &str) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Request::RequestDeleteRange(DeleteRangeRequest { key }).into()
}

impl From<Request> for RequestOp {
    fn from(request: Request) -> Self {
        Self { request: Some(request) }
    }
}

impl From<TxnRequest> for RequestOp {
    fn from(txn: TxnRequest) -> Self {
        Request::RequestTxn(txn).into()
    }
}

impl TxnResponse {
    /// The key that the operation at `index` has read, if it was there.
    pub(super) fn read(&self, index: usize) -> Option<&KeyValue> {
        match self.responses.get(index)?.response.as_ref()? {
            Response::ResponseRange(range) => range.kvs.first(),
            Response::ResponsePut(put) => put.prev_kv.as_ref(),
            _ => None,
        }
    }

    /// The answer of the transaction that is the only operation of this one.
    pub(super) fn inner(&self) -> Option<&Self> {
        match self.responses.first()?.response.as_ref()? {
            Response::ResponseTxn(inner) => Some(inner),
            _ => None,
        }
    }

    /// The revision that it wrote, or saw.
    pub(super) fn revision(&self) -> i64 {
        self.header.as_ref().map_or(0, |header| header.revision)
    }
}
