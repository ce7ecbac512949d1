//! The clients of AWS.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

/// Loads the SDK's configuration: TLS on ring with Amazon's own root certificates (reading the
/// system's costs milliseconds at every cold start), the role's credentials from the environment,
/// and timeouts so that the slowest call with all its retries ends well before a function's timeout.
pub(super) async fn sdk_config(region: Option<String>) -> SdkConfig {
    const ROOTS: &[u8] = include_bytes!("../amazon-trust.pem");
    let trust = TrustStore::empty().with_pem_certificate(ROOTS);
    let client = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(TlsContext::builder().with_trust_store(trust).build().unwrap_or_default())
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(3))
        .operation_timeout(Duration::from_secs(8));
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(client)
        .credentials_provider(EnvironmentVariableCredentialsProvider::new())
        .region(region.map(Region::new))
        .timeout_config(timeouts.build())
        .retry_config(retries())
        .load()
        .await
}

/// Four tries, with pauses of up to 200, 400 and 800 ms and full jitter.
///
/// The SDK has one first pause for all retries. This one suits throttling, because KMS and DynamoDB
/// count by the second. Adaptive mode is not used: its limiter is shared by all calls of the process
/// and would delay a request because of an earlier one.
pub(crate) fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(1))
}

/// An unlimited retry budget.
///
/// By default, all clients of one service in a process share one bucket of 500 tokens. A retry takes
/// some of them, and only a success returns any. One throttled bundle empties the bucket, and the
/// next request fails after a single try. A function handles one request at a time, and its retries
/// are already limited by their number and the timeout, and spread by jitter.
fn retry_budget() -> RetryPartition {
    RetryPartition::custom("coffer").token_bucket(TokenBucket::unlimited()).build()
}

pub(crate) fn dynamodb_config(config: &SdkConfig) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::config::Builder::from(config).retry_partition(retry_budget())
}

pub(crate) fn kms_config(config: &SdkConfig) -> aws_sdk_kms::config::Builder {
    aws_sdk_kms::config::Builder::from(config).retry_partition(retry_budget())
}

/// Opens the connection of the first request while Lambda is still in INIT, with a bare `GET /ping`,
/// which is not an API call. The response does not matter.
macro_rules! warm {
    ($name:ident, $sdk:ident, $call:ident) => {
        pub(super) async fn $name(client: &$sdk::Client) {
            let once =
                $sdk::config::Builder::new().retry_config(RetryConfig::disabled()).timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(Duration::from_secs(1))
                        .operation_timeout(Duration::from_secs(1))
                        .build(),
                );
            let ping = client.$call().customize().config_override(once).mutate_request(|request| {
                let uri = format!("{}/ping", request.uri().trim_end_matches('/'));
                // With a URI that does not parse, the request fails, which does not matter either.
                let _ = request.set_uri(uri);
                let _ = request.set_method("GET");
                request.headers_mut().remove("x-amz-target");
                request.headers_mut().remove("content-length");
                *request.body_mut() = "".into();
            });
            drop(ping.send().await);
        }
    };
}
warm!(warm_dynamodb, aws_sdk_dynamodb, list_tables);
warm!(warm_kms, aws_sdk_kms, list_aliases);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use aws_sdk_kms::config::Credentials;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use base64::prelude::{BASE64_STANDARD, Engine};
    use futures_util::future::join_all;

    use super::*;
    use crate::encryption_context::EncryptionContext;
    use crate::keys::Keys;
    use crate::keys::Unwrapped;
    use crate::testing::{http_client, test_config};

    /// A busy KMS: some throttled requests, then responses.
    #[derive(Default)]
    struct Busy {
        throttled: AtomicUsize,
        requests: AtomicUsize,
    }

    impl Busy {
        fn listen() -> (Arc<Self>, String) {
            let busy = Arc::new(Self::default());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let server = Arc::clone(&busy);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = Arc::clone(&server);
                    std::thread::spawn(move || server.serve(&stream));
                }
            });
            (busy, endpoint)
        }

        /// Responds to each request on a connection until it is closed.
        fn serve(&self, stream: &TcpStream) -> Option<()> {
            let mut reader = BufReader::new(stream);
            let response = format!(r#"{{"Plaintext":"{}"}}"#, BASE64_STANDARD.encode([7; 64]));
            loop {
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).ok()? == 0 {
                        return None;
                    }
                    let line = line.trim_end().to_ascii_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().ok()?;
                    }
                }
                reader.read_exact(&mut vec![0; length]).ok()?;
                self.requests.fetch_add(1, Ordering::SeqCst);
                let one_less = |left: usize| left.checked_sub(1);
                let throttle =
                    self.throttled.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
                let (status, body) = match throttle {
                    Ok(_) => ("400 Bad Request", r#"{"__type":"ThrottlingException"}"#),
                    Err(_) => ("200 OK", &*response),
                };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
                let mut stream = stream;
                stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
            }
        }
    }

    #[tokio::test]
    async fn a_request_has_all_its_tries_whatever_happened_to_earlier_ones() {
        const BUNDLE: usize = 150;
        let (busy, endpoint) = Busy::listen();
        let config = sdk_config(Some("eu-west-1".to_owned())).await;
        let credentials = Credentials::new("key", "secret", None, None, "test");
        let config = kms_config(&config).endpoint_url(endpoint).credentials_provider(credentials);
        let kms = aws_sdk_kms::Client::from_conf(config.build());
        let keys = Keys::new(kms, "arn".to_owned(), Vec::new(), Duration::ZERO);
        let context = EncryptionContext::default();

        busy.throttled.store(BUNDLE * 4, Ordering::SeqCst);
        let results = join_all((0..BUNDLE).map(|_| keys.unwrap(b"wrapped", &context))).await;
        for result in results {
            let error = result.unwrap_err();
            assert!(error.detail().unwrap().to_string().contains("ThrottlingException"));
        }
        assert_eq!(busy.requests.swap(0, Ordering::SeqCst), BUNDLE * 4);

        busy.throttled.store(3, Ordering::SeqCst);
        let unwrapped = keys.unwrap(b"wrapped", &context).await.unwrap();
        assert!(matches!(unwrapped, Unwrapped::Key(_)));
        assert_eq!(busy.requests.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn a_connection_is_opened_by_a_request_that_is_no_call_of_the_api() {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&requests);
        let http = http_client(move |request| {
            let about = (request.method().to_owned(), request.uri().to_owned());
            received.lock().unwrap().push((about, request.headers().get("x-amz-target").is_some()));
            // The response does not matter.
            Err(ConnectorError::timeout("no response".into()))
        });
        let config = test_config(http);
        warm_dynamodb(&aws_sdk_dynamodb::Client::from_conf(dynamodb_config(&config).build())).await;
        warm_kms(&aws_sdk_kms::Client::from_conf(kms_config(&config).build())).await;
        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), 2, "{requests:?}");
        for (((method, uri), target), service) in requests.iter().zip(["dynamodb", "kms"]) {
            assert_eq!((method.as_str(), *target), ("GET", false));
            assert!(uri.contains(service) && uri.ends_with(".amazonaws.com/ping"), "{uri}");
        }
    }
}
