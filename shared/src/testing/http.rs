//! An HTTP client with canned responses, and the configuration of clients in tests.

use std::fmt;
use std::future::ready;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;

use crate::lambda::clients::retries;

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

/// Configures clients that send their requests to `http`, with the retries of a function. Does not
/// read the environment, which may have another endpoint.
pub(crate) fn test_config(http: SharedHttpClient) -> SdkConfig {
    let credentials = Credentials::new("key", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(retries())
        .http_client(http)
        .build()
}
