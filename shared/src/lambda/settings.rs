//! The settings of a function.

use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use crate::keys::Keys;
use crate::operations::rotation::action::Action;
use crate::operations::{Coffer, LegacyItems, StackOptions};
use crate::store::ledger::Ledger;
use crate::store::secrets_table::SecretsTable;

use super::clients::{dynamodb_config, kms_config, sdk_config, warm_dynamodb, warm_kms};

/// The settings of a function, from the environment that the template defines.
pub(super) struct Settings {
    table: Option<String>,
    key_arn: Option<String>,
    retired: Vec<String>,
    ledger: Option<String>,
    /// The functions of the actions of a rotation.
    pub(super) functions: Vec<(String, String)>,
    cache: Duration,
    options: StackOptions,
    pub(super) region: Option<String>,
    pub(super) level: LevelFilter,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub(super) fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
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
            options: StackOptions {
                // Anything but `read` refuses: a typo must not open legacy rows.
                legacy_items: match variable("COFFER_LEGACY_ITEMS").as_deref() {
                    Some("read") => LegacyItems::Read,
                    _ => LegacyItems::Refuse,
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

    /// Creates the clients and opens their connections.
    pub(super) async fn coffer(self) -> Coffer {
        let config = sdk_config(self.region).await;
        let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb_config(&config).build());
        let kms = aws_sdk_kms::Client::from_conf(kms_config(&config).build());
        let kms = self.key_arn.map(|arn| (kms, arn));
        tokio::join!(warm_dynamodb(&dynamodb), async {
            if let Some((client, _)) = &kms {
                warm_kms(client).await;
            }
        });
        let keys = kms.map(|(client, arn)| Keys::new(client, arn, self.retired, self.cache));
        let table = self.table.map(|table| SecretsTable::new(dynamodb.clone(), table));
        let ledger = self.ledger.map(|ledger| Ledger::new(dynamodb, ledger));
        Coffer::new(keys, table, ledger, self.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::read(|name| {
            let variable = variables.iter().find(|(each, _)| *each == name);
            variable.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_not_set_is_missing_or_safe() {
        for variables in [&[] as &[_], &[("COFFER_TABLE", ""), ("COFFER_FORCED_DELETE", "yes")]] {
            let settings = settings(variables);
            assert!(settings.table.is_none() && settings.ledger.is_none());
            assert!(settings.key_arn.is_none() && settings.functions.is_empty());
            assert_eq!(settings.options.legacy_items, LegacyItems::Refuse);
            assert!(!settings.options.forced_delete);
            assert_eq!(settings.options.history_days, None);
            assert_eq!(settings.options.kms_requests_per_second, 1);
            assert_eq!(settings.cache, Duration::ZERO);
            assert_eq!(settings.level, LevelFilter::INFO);
        }
    }

    #[test]
    fn every_setting_is_read() {
        let settings = settings(&[
            ("COFFER_TABLE", "secrets"),
            ("COFFER_LEDGER", "ledger"),
            ("COFFER_KEY_ARN", "arn:stack"),
            ("COFFER_RETIRED_KEY_ARNS", "arn:one,arn:two"),
            ("COFFER_RENEW_FUNCTION", "stack-renew"),
            ("COFFER_DATA_KEY_CACHE_SECONDS", "60"),
            ("COFFER_LEGACY_ITEMS", "read"),
            ("COFFER_FORCED_DELETE", "allow"),
            ("COFFER_HISTORY_RETENTION_IN_DAYS", "400"),
            ("COFFER_EXPIRY_NOTICE_IN_DAYS", "7"),
            ("COFFER_ROTATION_KMS_REQUESTS_PER_SECOND", "100"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_LAMBDA_LOG_LEVEL", "FATAL"),
        ]);
        assert_eq!(settings.table.as_deref(), Some("secrets"));
        assert_eq!(settings.ledger.as_deref(), Some("ledger"));
        assert_eq!(settings.key_arn.as_deref(), Some("arn:stack"));
        assert_eq!(settings.retired, ["arn:one", "arn:two"]);
        assert_eq!(settings.functions, [("renew".to_owned(), "stack-renew".to_owned())]);
        assert_eq!(settings.cache, Duration::from_mins(1));
        assert_eq!(settings.options.legacy_items, LegacyItems::Read);
        assert!(settings.options.forced_delete);
        assert_eq!(settings.options.history_days, Some(400));
        assert_eq!(settings.options.notice_days, 7);
        assert_eq!(settings.options.kms_requests_per_second, 100);
        assert_eq!(settings.region.as_deref(), Some("eu-west-1"));
        assert_eq!(settings.level, LevelFilter::ERROR);
    }

    #[test]
    fn an_invalid_number_is_not_read() {
        let settings = settings(&[
            ("COFFER_DATA_KEY_CACHE_SECONDS", "-1"),
            ("COFFER_HISTORY_RETENTION_IN_DAYS", "0"),
            ("COFFER_ROTATION_KMS_REQUESTS_PER_SECOND", "0"),
            ("AWS_LAMBDA_LOG_LEVEL", "LOUD"),
        ]);
        assert_eq!(settings.cache, Duration::ZERO);
        assert_eq!(settings.options.history_days, None);
        assert_eq!(settings.options.kms_requests_per_second, 1);
        assert_eq!(settings.level, LevelFilter::INFO);
    }
}
