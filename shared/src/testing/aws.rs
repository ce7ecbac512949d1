//! AWS in memory, behind the HTTP connector of the SDK: the SDK's own requests, retries and errors
//! are part of every test. Faults and the writes of others can be planned.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use serde_json::{Value, json};

use super::dynamodb::{ITEM_SIZE, Tables};
use super::http::test_config;
use super::kms::{Key, Kms};
use super::{Item, KEY};
use crate::lambda::clients::{dynamodb_config, kms_config};

/// More calls than any test makes.
const MAX_CALLS: usize = 20_000;

/// AWS in memory. A clone is the same AWS.
#[derive(Clone)]
pub(crate) struct Aws(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: Tables,
    kms: Kms,
    faults: Vec<Planned>,
    hooks: Vec<(&'static str, usize, Hook)>,
    calls: Vec<(String, Value)>,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// AWS refuses it with this code.
    Code(&'static str),
    /// AWS refuses it with this code and message.
    Message(&'static str, &'static str),
    /// The transaction is canceled, with a reason for each write.
    Canceled(&'static [&'static str]),
    /// AWS has an internal error.
    Internal,
    /// The connection fails before AWS does anything.
    NoConnection,
    /// AWS does it, and the response is lost.
    LostResponse,
}

struct Planned {
    operation: &'static str,
    matches: Box<dyn Fn(&Value) -> bool + Send>,
    times: usize,
    fault: Fault,
}

type Hook = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// An error response.
#[derive(Debug)]
pub(super) struct Refused(Value);

impl Refused {
    pub(super) fn code(code: &str) -> Self {
        Self::message(code, "Refused.")
    }

    pub(super) fn message(code: &str, message: &str) -> Self {
        Self(json!({"__type": format!("com.amazonaws#{code}"), "message": message}))
    }

    pub(super) fn canceled(reasons: &[&str]) -> Self {
        let mut canceled = Self::code("TransactionCanceledException");
        let reason = |code: &&str| match *code {
            "ValidationError" => json!({"Code": code, "Message": ITEM_SIZE}),
            code => json!({"Code": code}),
        };
        canceled.0["CancellationReasons"] = reasons.iter().map(reason).collect();
        canceled
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aws")
    }
}

impl Aws {
    /// Creates an AWS with two empty tables and the stack's key.
    pub(crate) fn new() -> Self {
        let aws = Self(Arc::default());
        aws.add_key(KEY);
        aws
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes the next `times` calls of an operation fail.
    pub(crate) fn fail(&self, operation: &'static str, times: usize, fault: Fault) {
        self.fail_if(operation, times, fault, |_| true);
    }

    /// Makes the next `times` calls of an operation fail whose request matches.
    pub(crate) fn fail_if(
        &self,
        operation: &'static str,
        times: usize,
        fault: Fault,
        matches: impl Fn(&Value) -> bool + Send + 'static,
    ) {
        let matches = Box::new(matches);
        self.state().faults.push(Planned { operation, matches, times, fault });
    }

    /// Ends all planned faults.
    pub(crate) fn recover(&self) {
        self.state().faults.clear();
    }

    /// Runs `hook` right before an operation is done, once, after `skip` calls of it.
    pub(crate) fn before<F: Future<Output = ()> + Send + 'static>(
        &self,
        operation: &'static str,
        skip: usize,
        hook: impl FnOnce(Self) -> F + Send + 'static,
    ) {
        let aws = self.clone();
        let hook: Hook = Box::new(move || Box::pin(hook(aws)));
        self.state().hooks.push((operation, skip, hook));
    }

    /// Ends every page of a query or scan after this many items.
    pub(crate) fn set_page(&self, items: usize) {
        self.state().tables.page = items;
    }

    /// Returns the requests of an operation so far.
    pub(crate) fn requests(&self, operation: &str) -> Vec<Value> {
        let state = self.state();
        let calls = state.calls.iter().filter(|(name, _)| name == operation);
        calls.map(|(_, request)| request.clone()).collect()
    }

    /// Returns the number of calls of an operation so far.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.requests(operation).len()
    }

    /// Returns everything that is stored, to compare.
    pub(crate) fn stored(&self) -> BTreeMap<&'static str, Vec<Item>> {
        let state = self.state();
        let tables = state.tables.by_name.iter();
        tables.map(|(name, table)| (*name, table.items.values().cloned().collect())).collect()
    }

    /// Returns the items of a name, in the order of their sort keys.
    pub(crate) fn items(&self, table: &'static str, name: &str) -> Vec<Item> {
        let state = self.state();
        let items = state.tables.table(table).items.iter();
        items.filter(|((each, _), _)| each == name).map(|(_, item)| item.clone()).collect()
    }

    /// Returns the items of a name in the ledger whose sort key begins like this.
    pub(crate) fn entries(&self, name: &str, kind: &str) -> Vec<Item> {
        let items = self.items("ledger", name).into_iter();
        items.filter(|item| item["entry"]["S"].as_str().unwrap().starts_with(kind)).collect()
    }

    /// Puts an item, as another client does.
    pub(crate) fn put_item(&self, table: &'static str, item: Item) {
        let mut state = self.state();
        let key = state.tables.table(table).key(&item);
        state.tables.set(table, key, Some(item));
    }

    /// Removes an item, as another client does.
    pub(crate) fn remove_item(&self, table: &'static str, name: &str, sort: &str) {
        let key = (name.to_owned(), sort.to_owned());
        assert!(self.state().tables.table_mut(table).items.remove(&key).is_some(), "{key:?}");
    }

    /// Edits an item, as another client does.
    pub(crate) fn edit_item(
        &self,
        table: &'static str,
        name: &str,
        sort: &str,
        edit: impl FnOnce(&mut Item),
    ) {
        let key = (name.to_owned(), sort.to_owned());
        let mut state = self.state();
        let item = state.tables.table_mut(table).items.get_mut(&key);
        edit(item.unwrap_or_else(|| panic!("no item {key:?}")));
    }

    /// Creates a KMS key.
    pub(crate) fn add_key(&self, arn: &str) {
        self.state().kms.keys.insert(arn.to_owned(), Key::default());
    }

    /// Rotates the material of a KMS key.
    pub(crate) fn rotate_key(&self, arn: &str) {
        self.state().kms.keys.get_mut(arn).unwrap().material += 1;
    }

    /// Disables or enables a KMS key.
    pub(crate) fn disable_key(&self, arn: &str, disabled: bool) {
        self.state().kms.keys.get_mut(arn).unwrap().disabled = disabled;
    }

    /// Wraps a data key under a KMS key, as another client does.
    pub(crate) fn wrap(&self, arn: &str, context: &[(&str, &str)], data_key: &[u8]) -> Vec<u8> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.state().kms.wrap(arn, context.iter().map(pair).collect(), data_key)
    }

    /// Returns a client of DynamoDB, with the retries of a function.
    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = test_config(self.http_client());
        aws_sdk_dynamodb::Client::from_conf(dynamodb_config(&config).build())
    }

    /// Returns a client of KMS, with the retries of a function.
    pub(crate) fn kms(&self) -> aws_sdk_kms::Client {
        let config = test_config(self.http_client());
        aws_sdk_kms::Client::from_conf(kms_config(&config).build())
    }

    fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    async fn respond(self, operation: String, body: Value) -> Result<HttpResponse, ConnectorError> {
        let hook = self.state().take_hook(&operation);
        if let Some(hook) = hook {
            hook().await;
        }
        let mut state = self.state();
        let fault = state.take_fault(&operation, &body);
        let result = match fault {
            Some(Fault::Code(code)) => Err(Refused::code(code)),
            Some(Fault::Message(code, message)) => Err(Refused::message(code, message)),
            Some(Fault::Canceled(reasons)) => Err(Refused::canceled(reasons)),
            Some(Fault::Internal) => Err(Refused::code("InternalServerError")),
            Some(Fault::NoConnection) => return Err(lost()),
            Some(Fault::LostResponse) | None => state.call(&operation, &body),
        };
        state.calls.push((operation, body));
        assert!(state.calls.len() < MAX_CALLS, "the operation does not end");
        if let Some(Fault::LostResponse) = fault {
            return Err(lost());
        }
        let internal = matches!(fault, Some(Fault::Internal));
        let (status, body) = match result {
            Ok(output) => (200, output),
            Err(Refused(error)) => (if internal { 500 } else { 400 }, error),
        };
        Ok(HttpResponse::new(status.try_into().unwrap(), body.to_string().into()))
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").expect("a call of a JSON protocol");
        let operation = target.rsplit('.').next().unwrap().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        HttpConnectorFuture::new(self.clone().respond(operation, body))
    }
}

impl State {
    fn call(&mut self, operation: &str, request: &Value) -> Result<Value, Refused> {
        match operation {
            "GenerateDataKey" | "Decrypt" | "ReEncrypt" => self.kms.call(operation, request),
            _ => self.tables.call(operation, request),
        }
    }

    fn take_hook(&mut self, operation: &str) -> Option<Hook> {
        let place = self.hooks.iter().position(|(each, _, _)| *each == operation)?;
        let (_, skip, _) = &mut self.hooks[place];
        if *skip > 0 {
            *skip -= 1;
            return None;
        }
        Some(self.hooks.remove(place).2)
    }

    fn take_fault(&mut self, operation: &str, request: &Value) -> Option<Fault> {
        let matching = |planned: &&mut Planned| {
            planned.times > 0 && planned.operation == operation && (planned.matches)(request)
        };
        let planned = self.faults.iter_mut().find(matching)?;
        planned.times -= 1;
        Some(planned.fault)
    }
}

fn lost() -> ConnectorError {
    ConnectorError::timeout("no response".into())
}
