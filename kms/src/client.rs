//! The HTTP client towards everything that this KMS asks: endpoints, indexer, collateral service, other replicas.

use std::time::Duration;

/// `timeout` limits each exchange. Nobody who is asked sends on to somebody else.
pub(crate) fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(timeout)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .build()
}
