//! Relays an event unchanged to the function that does the operation, and returns its response. The
//! relaying function needs none of that function's permissions.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::primitives::Blob;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;

use crate::aws_error::AwsError;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::Name;
use crate::operations::missing_setting;
use crate::request::{FunctionError, Origin, Reply, Request};

use super::clients::sdk_config;
use super::settings::Settings;
use super::start;

/// A function that only relays.
pub trait Relay {
    /// The name of the function, for the log.
    const NAME: &'static str;

    /// Reads the action, whose function does the operation, and the secret that it is about.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn parse(fields: &mut Fields) -> Result<(&'static str, Name), Error>;
}

/// Runs `R` until Lambda ends the process.
#[must_use]
pub fn relay<R: Relay>() -> ExitCode {
    start(R::NAME, |settings| async move {
        let functions = &Functions::new(settings).await;
        let handler = service_fn(|event| handle::<R>(functions, event));
        Runtime::new(handler).run().await
    })
}

/// The functions of the stack that do the operations.
struct Functions {
    client: Client,
    functions: Vec<(String, String)>,
}

impl Functions {
    async fn new(settings: Settings) -> Self {
        // The other function may take up to its own timeout, and must not be invoked twice.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(27))
            .operation_timeout(Duration::from_secs(27));
        let config = aws_sdk_lambda::config::Builder::from(&sdk_config(settings.region).await)
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(config), functions: settings.functions }
    }

    async fn relay(&self, action: &str, origin: Origin, event: &str) -> Relayed {
        match self.invoke(action, event).await {
            Ok(Ok(response)) => (Ok(response.into()), "OK".to_owned(), None),
            Ok(Err((code, message))) => {
                (Err(FunctionError::passed(code.clone(), message)), code, None)
            }
            Err(error) => {
                let detail = error.detail().map(ToString::to_string);
                let code = error.code().name.to_owned();
                (origin.reply(Err(error)), code, detail)
            }
        }
    }

    /// Invokes the function of an action. Returns its response, or the code and message of a function
    /// error of Coffer.
    async fn invoke(
        &self,
        action: &str,
        event: &str,
    ) -> Result<Result<Box<RawValue>, (String, String)>, Error> {
        let found = self.functions.iter().find(|(name, _)| name == action);
        let (_, function) = found.ok_or_else(|| {
            missing_setting(&format!("COFFER_{}_FUNCTION", action.to_uppercase()))
        })?;
        let request = self.client.invoke().function_name(function).payload(Blob::new(event));
        let output = Box::pin(request.send())
            .await
            .map_err(|error| AwsError::of("lambda:InvokeFunction", function, &error))
            .map_err(|error| {
                if error.is_certain() { error.into() } else { no_response(Box::new(error)) }
            })?;
        let payload = output.payload.map(Blob::into_inner).unwrap_or_default();
        let payload =
            String::from_utf8(payload).ok().and_then(|json| RawValue::from_string(json).ok());
        let Some(payload) = payload else { return Err(broken(function, "not JSON")) };
        if output.function_error.is_none() {
            return Ok(Ok(payload));
        }
        let failure: FunctionFailure = serde_json::from_str(payload.get()).unwrap_or_default();
        // An error of Lambda: the function ran out of time or memory, or was killed.
        if failure.error_type.is_empty() || failure.error_type.contains('.') {
            return Err(broken(function, &failure.error_type));
        }
        Ok(Err((failure.error_type, failure.error_message)))
    }
}

/// A response to return, its code, and the detail for the operator.
type Relayed = (Result<Reply, FunctionError>, String, Option<String>);

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FunctionFailure {
    error_type: String,
    error_message: String,
}

fn broken(function: &str, what: &str) -> Error {
    no_response(format!("lambda:InvokeFunction on {function}: {what}").into())
}

fn no_response(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Unavailable {
        message:
            "The rotation did not respond, and it may have been done. To rewrap or to reseal, \
                  try again: it continues where it stopped. To renew, try again with the same \
                  `token`, or list the versions first."
                .into(),
        source,
    }
}

async fn handle<R: Relay>(
    functions: &Functions,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Reply, FunctionError> {
    let began = Instant::now();
    let (payload, context) = event.into_parts();
    let text = payload.get().to_owned();
    let Request { origin, fields, .. } = Request::read(payload);
    let parsed = fields.and_then(|mut fields| R::parse(&mut fields));
    let name = parsed.as_ref().ok().map(|(_, name)| name.clone());
    let (reply, code, detail) = match parsed {
        Ok((action, _)) => functions.relay(action, origin, &text).await,
        Err(error) => {
            let code = error.code().name.to_owned();
            (origin.reply(Err(error)), code, None)
        }
    };
    let name = name.as_ref().map(Name::as_str);
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let request_id = context.request_id;
    // The other function has logged its own response.
    if detail.is_some() {
        tracing::error!(operation = R::NAME, request_id, name, code, detail, milliseconds);
    } else {
        tracing::info!(operation = R::NAME, request_id, name, code, milliseconds);
    }
    reply
}

#[cfg(test)]
mod tests;
