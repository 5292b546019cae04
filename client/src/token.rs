//! Where tokens come from: one that is given, or a callback that is asked for each new one.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

/// A future of a [`TokenSource`].
pub(crate) type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Why a [`TokenSource`] had no token. The client tries again, with back-off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token: {0}")]
pub struct TokenError(pub String);

/// Where the client gets its tokens (JWTs that say who the user is).
///
/// A token is kept until it is about to expire or a node says that it has, so that a reconnect
/// costs no call. With a source that [renews](Self::renewing), a session outlives its token: a new
/// one is asked for when a fifth of the old one's time is left. Without one, the client closes
/// with [`TokenExpired`](crate::Code::TokenExpired) when the token does.
#[derive(Clone)]
pub struct TokenSource {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Fixed(Arc<str>),
    Renewing(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    /// One token, which is never renewed. Strings convert to it.
    #[must_use]
    pub fn fixed(token: impl Into<Arc<str>>) -> Self {
        Self { kind: Kind::Fixed(token.into()) }
    }

    /// A callback that fetches a token, as from the app's own service.
    ///
    /// It is called for the first connection, before a token expires, and after a node has called
    /// one expired. It should answer or fail within some seconds; it may be dropped unfinished.
    ///
    /// ```
    /// use shoal_client::{TokenError, TokenSource};
    ///
    /// async fn ask_my_service() -> Result<String, std::io::Error> {
    ///     Ok("eyJ…".to_owned())
    /// }
    ///
    /// let tokens = TokenSource::renewing(|| async {
    ///     ask_my_service().await.map_err(|error| TokenError(error.to_string()))
    /// });
    /// ```
    #[must_use]
    pub fn renewing<F, T>(fetch: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self { kind: Kind::Renewing(Arc::new(move || Box::pin(fetch()))) }
    }

    /// Can it give another token than the last one?
    pub(crate) fn renews(&self) -> bool {
        matches!(self.kind, Kind::Renewing(_))
    }

    pub(crate) async fn fetch(&self) -> Result<String, TokenError> {
        match &self.kind {
            Kind::Fixed(token) => Ok(token.as_ref().to_owned()),
            Kind::Renewing(fetch) => fetch().await,
        }
    }
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::fixed(token)
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::fixed(token)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is a secret.
        f.write_str(if self.renews() { "TokenSource::renewing" } else { "TokenSource::fixed" })
    }
}
