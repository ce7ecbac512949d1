//! Runs one operation as a Lambda function: settings, clients, log, and the runtime's loop.

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::config::retry::{RetryPartition, TokenBucket};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::chain::Caller;
use crate::error::{Code, Error};
use crate::event::{Answer, FunctionError, Received, Reply};
use crate::fields::Fields;
use crate::keys::Keys;
use crate::name::{Label, Name};
use crate::operations::executor::Action;
use crate::operations::{Coffer, Legacy, Policy};
use crate::store::Store;

pub mod relay;

/// One verb: a request that is read from fields and applied to the coffer.
pub trait Operation: Sized + Send {
    /// The verb.
    const NAME: &'static str;

    /// Reads the request.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a field is missing or not what it should be.
    fn parse(fields: &mut Fields) -> Result<Self, Error>;

    /// The secret that the request is about, if it is about one, for the log.
    fn name(&self) -> Option<&Name>;

    /// Whether it may have changed something when its time runs out.
    fn writes(&self) -> bool;

    /// Does it.
    ///
    /// # Errors
    /// As the coffer's.
    fn apply(
        self,
        coffer: &Coffer,
        caller: &Caller,
    ) -> impl Future<Output = Result<Answer, Error>> + Send;
}

/// Runs `O` until Lambda ends the process. A setting that is missing is told to every caller.
#[must_use]
pub fn run<O: Operation>() -> ExitCode {
    start(O::NAME, |settings| async move {
        let coffer = &settings.coffer().await;
        let handler = service_fn(|event| handle::<O>(coffer, event));
        Runtime::new(handler).run().await
    })
}

fn start<F>(name: &'static str, serve: impl FnOnce(Settings) -> F) -> ExitCode
where
    F: Future<Output = Result<(), lambda_runtime::Error>>,
{
    let settings = Settings::from_environment();
    log(settings.level);
    harden();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve(settings)),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(operation = name, detail = %error, "the function did not start");
            ExitCode::FAILURE
        }
    }
}

/// From event to answer: read, parse, apply, reply; one line in the log.
async fn handle<O: Operation>(
    coffer: &Coffer,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Reply, FunctionError> {
    let began = Instant::now();
    let (payload, context) = event.into_parts();
    let Received { origin, who, fields } = Received::read(payload);
    let caller = Caller { who, request_id: context.request_id.clone() };
    let request = fields.and_then(|mut fields| {
        let request = O::parse(&mut fields)?;
        fields.finish()?;
        Ok(request)
    });
    let mut name = None;
    let result = match request {
        Ok(request) => {
            name = request.name().cloned();
            let writes = request.writes();
            within(context.deadline(), writes, request.apply(coffer, &caller)).await
        }
        Err(error) => Err(error),
    };
    let detail = result.as_ref().err().and_then(Error::detail);
    let version = result.as_ref().ok().and_then(Answer::version);
    let code = result.as_ref().err().map(Error::code);
    let about = result.as_ref().err().and_then(Error::names);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                operation = O::NAME,
                request_id = context.request_id,
                name = name.as_ref().map(Name::as_str),
                version = version.map(Label::as_str),
                code = code.map_or("OK", |code| code.name),
                about = about.as_deref(),
                detail = detail.map(tracing::field::display),
                milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            )
        };
    }
    // What the caller can mend is information, what the operator must is an error.
    if let Some(Code { status: 500.., .. }) = code {
        line!(error);
    } else {
        line!(info);
    }
    origin.reply(result)
}

/// Ends what takes longer than Lambda allows while there is still time to say so.
async fn within(
    deadline: SystemTime,
    writes: bool,
    work: impl Future<Output = Result<Answer, Error>>,
) -> Result<Answer, Error> {
    const MARGIN: Duration = Duration::from_millis(500);
    let left = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::timeout(left.saturating_sub(MARGIN), work).await.unwrap_or_else(|elapsed| {
        let message = if writes {
            "The time allowed for one call is over, and the request may have been done. To delete \
             or to restore, try again: it continues where it stopped. To put, try again with the \
             same `token`, or list the versions first."
        } else {
            "The time allowed for one call is over. Nothing was changed. Ask for less at a time: \
             page with `limit`, or use a longer `prefix`. If the request is about one secret, try \
             again."
        };
        Err(Error::Unavailable { message: message.into(), source: Box::new(elapsed) })
    })
}

/// What the template sets, read once.
struct Settings {
    table: Option<String>,
    key_arn: Option<String>,
    retired: Vec<String>,
    ledger: Option<String>,
    /// Other functions of the stack, by their verbs.
    functions: Vec<(String, String)>,
    cache: Duration,
    policy: Policy,
    region: Option<String>,
    level: LevelFilter,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
        #[cfg(feature = "crash")]
        if let Some(points) = number("COFFER_CRASH_AFTER") {
            crate::store::crash::after(points.into());
        }
        Self {
            table: variable("COFFER_TABLE"),
            key_arn: variable("COFFER_KEY_ARN"),
            retired: variable("COFFER_RETIRED_KEY_ARNS")
                .map(|arns| arns.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            ledger: variable("COFFER_LEDGER"),
            functions: Action::ALL
                .into_iter()
                .filter_map(|action| {
                    let name = format!("COFFER_{}_FUNCTION", action.as_str().to_uppercase());
                    Some((action.as_str().to_owned(), variable(&name)?))
                })
                .collect(),
            cache: Duration::from_secs(number("COFFER_DATA_KEY_CACHE_SECONDS").unwrap_or(0).into()),
            policy: Policy {
                // Anything but an explicit `read` refuses: a typo must not open more than was
                // meant.
                legacy: match variable("COFFER_LEGACY_ITEMS").as_deref() {
                    Some("read") => Legacy::Read,
                    _ => Legacy::Refuse,
                },
                forced_delete: variable("COFFER_FORCED_DELETE").as_deref() == Some("allow"),
                history_days: number("COFFER_HISTORY_RETENTION_IN_DAYS").filter(|days| *days > 0),
                notice_days: number("COFFER_EXPIRY_NOTICE_IN_DAYS").unwrap_or(0),
                kms_requests_per_second: number("COFFER_ROTATION_KMS_REQUESTS_PER_SECOND")
                    .unwrap_or(1)
                    .max(1),
            },
            region: variable("AWS_REGION"),
            level: variable("AWS_LAMBDA_LOG_LEVEL")
                .and_then(|level| level.replace("FATAL", "ERROR").parse().ok())
                .unwrap_or(LevelFilter::INFO),
        }
    }

    async fn coffer(self) -> Coffer {
        let config = sdk(self.region).await;
        let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb_config(&config).build());
        let kms = aws_sdk_kms::Client::from_conf(kms_config(&config).build());
        let kms = self.key_arn.map(|arn| (kms, arn));
        tokio::join!(warm_dynamodb(&dynamodb), async {
            if let Some((client, _)) = &kms {
                warm_kms(client).await;
            }
        });
        let keys = kms.map(|(client, arn)| Keys::new(client, arn, self.retired, self.cache));
        let store = self.table.map(|table| Store::new(dynamodb, table, self.ledger));
        Coffer::new(keys, store, self.policy)
    }
}

/// The SDK's settings, each on purpose: TLS on ring with Amazon's own roots (reading the system's
/// costs milliseconds at every cold start), the role's credentials as Lambda hands them over, and
/// limits so that the slowest call with all its retries ends well within a function's timeout.
async fn sdk(region: Option<String>) -> SdkConfig {
    const ROOTS: &[u8] = include_bytes!("amazon-trust.pem");
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

/// Four tries, with pauses of up to 200, 400 and 800 ms, drawn with full jitter.
///
/// The SDK has one first pause for all that is retried; this one suits throttling, because KMS and
/// DynamoDB count by the second. Its adaptive mode is left out: the limiter is shared by all calls
/// of the process and would hold the next request back for what the last one met.
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(1))
}

/// A retry budget that every request has to itself.
///
/// By default all clients of one service in a process share one bucket of 500 tokens. A retry
/// takes some of them and only a success gives any back. One throttled bundle empties it, and the
/// next request fails after a single try. A function handles one request at a time, so nothing is
/// gained by making it pay for the one before: the number of tries and the time of the call bound
/// its retries, and the jittered pauses spread them.
fn budget() -> RetryPartition {
    RetryPartition::custom("coffer").token_bucket(TokenBucket::unlimited()).build()
}

fn dynamodb_config(config: &SdkConfig) -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::config::Builder::from(config).retry_partition(budget())
}

fn kms_config(config: &SdkConfig) -> aws_sdk_kms::config::Builder {
    aws_sdk_kms::config::Builder::from(config).retry_partition(budget())
}

/// Opens the connection that the first request will use, while Lambda is still in INIT: a bare
/// `GET /ping`, which is no API call. What it answers does not matter.
macro_rules! warm {
    ($name:ident, $sdk:ident, $call:ident) => {
        async fn $name(client: &$sdk::Client) {
            let once =
                $sdk::config::Builder::new().retry_config(RetryConfig::disabled()).timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(Duration::from_secs(1))
                        .operation_timeout(Duration::from_secs(1))
                        .build(),
                );
            let ping = client.$call().customize().config_override(once).mutate_request(|request| {
                let uri = format!("{}/ping", request.uri().trim_end_matches('/'));
                // A URI that does not parse leaves a request that fails, which is as good.
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

/// One JSON object a line, from this crate alone: the SDK and the runtime print requests and
/// bodies at their lower levels, and errors that are told here already.
fn log(level: LevelFilter) {
    let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(own)).init();
}

/// No core file, and no panic message, ever holds a secret. A panic ends the process; where it
/// happened is all that is told.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked");
    }));
    if let Err(error) = limited.and(hidden) {
        tracing::warn!(detail = %error, "core files could not be turned off");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_sdk_kms::config::Credentials;
    use base64::prelude::{BASE64_STANDARD, Engine};
    use futures_util::future::join_all;

    use super::*;
    use crate::context::Context;
    use crate::keys::Unwrapped;

    /// KMS as it answers when it is busy: so many throttled requests, then answers.
    #[derive(Default)]
    struct Busy {
        throttled: AtomicUsize,
        asked: AtomicUsize,
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

        /// Answers each request on a connection, until it is closed.
        fn serve(&self, stream: &TcpStream) -> Option<()> {
            let mut reader = BufReader::new(stream);
            let answer = format!(r#"{{"Plaintext":"{}"}}"#, BASE64_STANDARD.encode([7; 64]));
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
                self.asked.fetch_add(1, Ordering::SeqCst);
                let one_less = |left: usize| left.checked_sub(1);
                let throttle =
                    self.throttled.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
                let (status, body) = match throttle {
                    Ok(_) => ("400 Bad Request", r#"{"__type":"ThrottlingException"}"#),
                    Err(_) => ("200 OK", &*answer),
                };
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
                let mut stream = stream;
                stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
            }
        }
    }

    #[tokio::test]
    async fn a_request_has_its_tries_whatever_became_of_those_before() {
        const BUNDLE: usize = 150;
        let (busy, endpoint) = Busy::listen();
        let config = sdk(Some("eu-west-1".to_owned())).await;
        let credentials = Credentials::new("key", "secret", None, None, "test");
        let config = kms_config(&config).endpoint_url(endpoint).credentials_provider(credentials);
        let kms = aws_sdk_kms::Client::from_conf(config.build());
        let keys = Keys::new(kms, "arn".to_owned(), Vec::new(), Duration::ZERO);
        let context = Context::default();

        busy.throttled.store(BUNDLE * 4, Ordering::SeqCst);
        let answers = join_all((0..BUNDLE).map(|_| keys.unwrap(b"wrapped", &context))).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(error.detail().unwrap().to_string().contains("ThrottlingException"));
        }
        assert_eq!(busy.asked.swap(0, Ordering::SeqCst), BUNDLE * 4);

        busy.throttled.store(3, Ordering::SeqCst);
        let unwrapped = keys.unwrap(b"wrapped", &context).await.unwrap();
        assert!(matches!(unwrapped, Unwrapped::Key(_)));
        assert_eq!(busy.asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_runs_out_of_time_is_told_what_to_do_by_what_was_asked() {
        let never = std::future::pending::<Result<Answer, Error>>;
        let deadline = SystemTime::now() + Duration::from_secs(29);
        let read = within(deadline, false, never()).await.err().unwrap();
        let write = within(deadline, true, never()).await.err().unwrap();
        for error in [&read, &write] {
            assert_eq!(error.code().name, "Unavailable");
            assert!(error.to_string().contains("try again"), "{error}");
        }
        let (read, write) = (read.to_string(), write.to_string());
        assert!(read.contains("`limit`") && !read.contains("may have been done"), "{read}");
        assert!(write.contains("`token`") && write.contains("may have been done"), "{write}");
    }
}
