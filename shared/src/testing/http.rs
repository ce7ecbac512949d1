//! An HTTP client with canned responses.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;

type Respond = dyn Fn(&HttpRequest) -> Result<HttpResponse, ConnectorError> + Send + Sync;

#[derive(Clone)]
struct Canned(Arc<Respond>);

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canned")
    }
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(ready((self.0)(&request)))
    }
}

/// Returns a client that responds to each request with the result of `respond`.
pub(crate) fn http_client(
    respond: impl Fn(&HttpRequest) -> Result<HttpResponse, ConnectorError> + Send + Sync + 'static,
) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Canned(Arc::new(respond)));
    http_client_fn(move |_, _| connector.clone())
}
