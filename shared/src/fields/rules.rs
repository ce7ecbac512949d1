//! The rules for a value to be generated.

use crate::error::Error;
use crate::generate::{CharacterClass, GenerateRules};
use crate::template::Template;

use super::Fields;

impl Fields {
    /// Reads the rules for a value to be generated: `generate`, an object with `length`,
    /// `exclude_characters`, `exclude_lowercase`, `exclude_uppercase`, `exclude_numbers`,
    /// `exclude_punctuation`, `require_each_included_type`, and `template` with `key`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or what [`GenerateRules::new`] or [`Template::new`] refuses.
    pub fn rules(&mut self) -> Result<Option<GenerateRules>, Error> {
        let Some(mut fields) = self.object("generate", "generate.")? else { return Ok(None) };
        let length = fields.number("length")?.unwrap_or(GenerateRules::DEFAULT_LENGTH);
        let excluded = fields.text("exclude_characters")?.unwrap_or_default();
        let mut classes = Vec::new();
        for (class, name) in CharacterClass::ALL {
            if !fields.flag(name)? {
                classes.push(class);
            }
        }
        let require_each = fields.flag("require_each_included_type")?;
        let template = match (fields.text("template")?, fields.text("key")?) {
            (None, None) => None,
            (Some(text), Some(key)) => Some(Template::new(text, key)?),
            _ => return Err(fields.wrong("template", "requires `key`. Give both or neither")),
        };
        fields.finish()?;
        let rules = GenerateRules::new(length, &classes, &excluded, require_each)?;
        Ok(Some(rules.within(template)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_a_template_and_its_key_or_neither() {
        let rules = |generate: &str| {
            Fields::parse(&format!(r#"{{"generate":{generate}}}"#)).unwrap().rules()
        };
        let with = rules(r#"{"template":"{}","key":"password"}"#).unwrap().unwrap();
        assert_eq!(with.template().map(Template::key), Some("password"));
        assert!(rules("{}").unwrap().unwrap().template().is_none());
        for half in [r#"{"template":"{}"}"#, r#"{"key":"k"}"#, r#"{"template":{},"key":"k"}"#] {
            assert_eq!(rules(half).err().unwrap().code().name, "Invalid", "{half}");
        }
    }
}
