//! Hands an event on, as it came, to the function of the stack that does what it asks for, and
//! that one's answer back. So the one door needs none of the permissions behind it.

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
use crate::event::{FunctionError, Origin, Received, Reply};
use crate::fields::Fields;
use crate::name::Name;

use super::{Settings, sdk, start};

/// A function that does nothing itself.
pub trait Relay {
    /// The verb.
    const NAME: &'static str;

    /// Reads which function does it, by the verb of that one, and which secret it is about.
    ///
    /// # Errors
    /// [`Error::Invalid`] where that cannot be told.
    fn parse(fields: &mut Fields) -> Result<(&'static str, Name), Error>;
}

/// Runs `R` until Lambda ends the process.
#[must_use]
pub fn relay<R: Relay>() -> ExitCode {
    start(R::NAME, |settings| async move {
        let doors = &Doors::new(settings).await;
        let handler = service_fn(|event| handle::<R>(doors, event));
        Runtime::new(handler).run().await
    })
}

/// The other functions of the stack.
struct Doors {
    client: Client,
    functions: Vec<(String, String)>,
}

impl Doors {
    async fn new(settings: Settings) -> Self {
        // What the other function does takes as long as it takes, and is not done twice.
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(27))
            .operation_timeout(Duration::from_secs(27));
        let config = aws_sdk_lambda::config::Builder::from(&sdk(settings.region).await)
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::disabled())
            .build();
        Self { client: Client::from_conf(config), functions: settings.functions }
    }

    async fn pass(&self, verb: &str, origin: Origin, event: &str) -> Passed {
        let answer = self.invoke(verb, event).await;
        match answer {
            Ok(Ok(answer)) => (Ok(answer.into()), "OK".to_owned(), None),
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

    /// The answer, or the code and message of a function error of Coffer's own.
    async fn invoke(
        &self,
        verb: &str,
        event: &str,
    ) -> Result<Result<Box<RawValue>, (String, String)>, Error> {
        let found = self.functions.iter().find(|(name, _)| name == verb);
        let (_, function) = found.ok_or_else(|| Error::Unavailable {
            message:
                "A setting of the function is missing. Ask the stack's operator: the function's \
                      log names it."
                    .into(),
            source: format!(
                "COFFER_{}_FUNCTION is not set: deploy the template",
                verb.to_uppercase()
            )
            .into(),
        })?;
        let request = self.client.invoke().function_name(function).payload(Blob::new(event));
        let answer = Box::pin(request.send())
            .await
            .map_err(|error| AwsError::of("lambda:InvokeFunction", function, &error))
            .map_err(|failure| {
                if failure.is_certain() { failure.into() } else { unanswered(Box::new(failure)) }
            })?;
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        let payload =
            String::from_utf8(payload).ok().and_then(|json| RawValue::from_string(json).ok());
        let Some(payload) = payload else { return Err(broken(function, "no JSON")) };
        if answer.function_error.is_none() {
            return Ok(Ok(payload));
        }
        let told: FunctionFailure = serde_json::from_str(payload.get()).unwrap_or_default();
        // Lambda's own: it ran out of time, or of memory, or was killed.
        if told.error_type.is_empty() || told.error_type.contains('.') {
            return Err(broken(function, &told.error_type));
        }
        Ok(Err((told.error_type, told.error_message)))
    }
}

/// An answer on its way back, its code, and what only the operator should see.
type Passed = (Result<Reply, FunctionError>, String, Option<String>);

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FunctionFailure {
    error_type: String,
    error_message: String,
}

fn broken(function: &str, what: &str) -> Error {
    unanswered(format!("lambda:InvokeFunction on {function}: {what}").into())
}

fn unanswered(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Unavailable {
        message: "The rotation was not answered, and may have been done. To rewrap or to reseal, \
                  try again: it goes on where it stopped. To renew, try again with the same \
                  `token`, or list the versions first."
            .into(),
        source,
    }
}

async fn handle<R: Relay>(
    doors: &Doors,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Reply, FunctionError> {
    let began = Instant::now();
    let (payload, context) = event.into_parts();
    let text = payload.get().to_owned();
    let Received { origin, fields, .. } = Received::read(payload);
    let parsed = fields.and_then(|mut fields| R::parse(&mut fields));
    let name = parsed.as_ref().ok().map(|(_, name)| name.clone());
    let (answer, code, detail) = match parsed {
        Ok((verb, _)) => doors.pass(verb, origin, &text).await,
        Err(error) => {
            let code = error.code().name.to_owned();
            (origin.reply(Err(error)), code, None)
        }
    };
    let name = name.as_ref().map(Name::as_str);
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let request_id = context.request_id;
    // What the other function answered is told in its own log.
    if detail.is_some() {
        tracing::error!(operation = R::NAME, request_id, name, code, detail, milliseconds);
    } else {
        tracing::info!(operation = R::NAME, request_id, name, code, milliseconds);
    }
    answer
}
