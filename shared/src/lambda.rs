//! Runs an operation as a Lambda function.

pub(crate) mod clients;
mod log;
pub mod relay;
mod settings;

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::{Context, LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;

use crate::audit_chain::Caller;
use crate::error::{Error, ErrorCode};
use crate::name::{Name, VersionKey};
use crate::operations::{Coffer, Operation, parse};
use crate::request::{FunctionError, Reply, Request, Response};
use settings::Settings;

/// Runs `O` until Lambda ends the process. If a setting is missing, every request that needs it
/// fails.
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
    log::init(settings.level);
    log::harden();
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

/// Handles one event: read, parse, apply, respond, and one line in the log.
async fn handle<O: Operation>(
    coffer: &Coffer,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Reply, FunctionError> {
    let began = Instant::now();
    let (payload, context) = event.into_parts();
    let Request { origin, who, fields } = Request::read(payload);
    let caller = Caller { who, request_id: context.request_id.clone() };
    let mut name = None;
    let result = match fields.and_then(parse::<O>) {
        Ok(operation) => {
            name = operation.name().cloned();
            let writes = operation.writes();
            // Boxed: the compiler cannot lay out all calls of an operation as one value.
            let apply = Box::pin(operation.apply(coffer, &caller));
            let answer = async { apply.await.and_then(O::respond) };
            within(context.deadline(), writes, answer).await
        }
        Err(error) => Err(error),
    };
    log_result::<O>(&context, name.as_ref(), &result, began);
    origin.reply(result)
}

/// Writes the line of a request. A server error is logged as an error.
fn log_result<O: Operation>(
    context: &Context,
    name: Option<&Name>,
    result: &Result<Response, Error>,
    began: Instant,
) {
    let error = result.as_ref().err();
    let code = error.map(Error::code);
    let version = result.as_ref().ok().and_then(Response::version);
    let about = error.and_then(Error::names);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                operation = O::NAME,
                request_id = context.request_id,
                name = name.map(Name::as_str),
                version = version.map(VersionKey::as_str),
                code = code.map_or("OK", |code| code.name),
                about = about.as_deref(),
                detail = error.and_then(Error::detail).map(tracing::field::display),
                milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            )
        };
    }
    if let Some(ErrorCode { status: 500.., .. }) = code {
        line!(error);
    } else {
        line!(info);
    }
}

/// Ends an operation shortly before Lambda's timeout, so that the caller gets an error.
async fn within(
    deadline: SystemTime,
    writes: bool,
    work: impl Future<Output = Result<Response, Error>>,
) -> Result<Response, Error> {
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

#[cfg(test)]
mod tests;
