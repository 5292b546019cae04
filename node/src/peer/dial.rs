//! How other nodes are reached.

use std::{net::SocketAddr, sync::Arc};

use quinn::{ClientConfig, Connection, Endpoint};
use shoal_certs::NODE_NAME;
use tokio::{net::lookup_host, sync::watch};

use super::framed::LinkError;
use crate::{
    config::{AccessLimits, Current},
    coordination::{NodeName, Nodes},
    ops::Metrics,
};

/// Connects to nodes by their names.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) me: NodeName,
    pub(crate) cluster: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: ClientConfig,
    pub(crate) nodes: watch::Receiver<Arc<Nodes>>,
    pub(crate) limits: Current<AccessLimits>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Dialer {
    pub(super) async fn dial(&self, node: &NodeName) -> Result<Connection, LinkError> {
        let mut error = LinkError::Address(format!("{} is not registered", node.0));
        let addresses = self.nodes.borrow().get(node).map(|record| record.peer_addresses.clone());
        for address in addresses.unwrap_or_default() {
            match self.connect(&address).await {
                Ok(connection) => return Ok(connection),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    async fn connect(&self, address: &str) -> Result<Connection, LinkError> {
        let unknown = || LinkError::Address(address.to_owned());
        let address: SocketAddr = match address.parse() {
            Ok(address) => address,
            Err(_) => lookup_host(address).await.map_err(|_| unknown())?.next().ok_or_else(unknown)?,
        };
        Ok(self.endpoint.connect_with(self.tls.clone(), address, NODE_NAME)?.await?)
    }
}
