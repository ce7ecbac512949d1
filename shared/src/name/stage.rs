//! The stage of a version.

use std::str::FromStr;

use crate::error::Error;

/// The stage of a version among the versions of its secret. The terms are those of AWS Secrets
/// Manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The highest version.
    Current,
    /// The version below the highest.
    Previous,
    /// The new version of a rotation in progress.
    Pending,
}

impl Stage {
    /// Returns the stage as requests and responses show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "AWSCURRENT",
            Self::Previous => "AWSPREVIOUS",
            Self::Pending => "AWSPENDING",
        }
    }
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Current, Self::Previous, Self::Pending]
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or(Error::invalid("`stage` must be AWSCURRENT, AWSPREVIOUS or AWSPENDING."))
    }
}

impl serde::Serialize for Stage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_parsed_from_the_name_that_is_shown() {
        for stage in [Stage::Current, Stage::Previous, Stage::Pending] {
            assert_eq!(stage.as_str().parse::<Stage>().unwrap(), stage);
        }
        assert_eq!("awscurrent".parse::<Stage>().unwrap_err().code().name, "Invalid");
    }
}
