//! get: opens one version of a secret, or the current version of every secret under a prefix.

mod bundle;
mod bundle_contexts;
mod one;
mod open;
mod snapshot;

use crate::audit_chain::Caller;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{Name, Prefix, VersionKey};
use crate::opened_secret::OpenedSecret;
use crate::request::Response;
use crate::secret::Secret;

use super::{Coffer, Operation};
pub use bundle::GetBundle;
pub use bundle_contexts::BundleContexts;
pub use one::{GetOne, VersionSelector};

/// A request to open secrets.
#[derive(Debug)]
pub enum Get {
    /// One version of one secret.
    One(GetOne),
    /// Every secret under a prefix.
    Bundle(GetBundle),
}

/// A response of get.
pub enum GetOutput {
    /// A version with its description.
    Secret(OpenedSecret),
    /// The bare value of a version.
    Bare(VersionKey, Secret),
    /// A page of a bundle.
    Page(BundlePage),
    /// A bundle as one document.
    Document(Response),
}

/// A page of a bundle.
#[derive(Debug, serde::Serialize)]
pub struct BundlePage {
    /// The secrets, sorted as a list sorts names.
    pub secrets: Vec<OpenedSecret>,
    /// Where the bundle continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

impl Operation for Get {
    const NAME: &'static str = "get";

    type Output = GetOutput;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let everything = fields.is_resource("bundle").then(Prefix::all);
        match fields.parsed("prefix")?.or(everything) {
            None => GetOne::parse(fields).map(Self::One),
            Some(prefix) => GetBundle::parse(prefix, fields).map(Self::Bundle),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::One(one) => Some(&one.name),
            Self::Bundle(bundle) => Some(bundle.prefix.name()),
        }
    }

    fn writes(&self) -> bool {
        false
    }

    /// Opens the version, or the bundle. See [`GetOne::apply`] and [`GetBundle::apply`].
    ///
    /// # Errors
    /// As these.
    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<GetOutput, Error> {
        match self {
            Self::One(one) => one.apply(coffer).await,
            Self::Bundle(bundle) => Box::pin(bundle.apply(coffer)).await,
        }
    }

    fn respond(output: GetOutput) -> Result<Response, Error> {
        match output {
            GetOutput::Secret(opened) => {
                let version = opened.description.version.clone();
                Ok(Response::json(&opened)?.of_version(version))
            }
            GetOutput::Bare(version, secret) => Ok(Response::bare(secret).of_version(version)),
            GetOutput::Page(page) => Response::json(&page),
            GetOutput::Document(document) => Ok(document),
        }
    }
}
