//! The forms of rules outside the program: in responses, in the ledger, and for the comparison of
//! requests.

use super::{CharacterClass, GenerateRules};
use crate::row::{Attribute, Row};
use crate::template::Template;

impl GenerateRules {
    /// Returns the rules in the form of a request.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        let (classes, characters) = &self.excluded;
        let excluded = |class| classes.contains(&class).then_some(true);
        Shown {
            length: self.length,
            exclude_characters: Some(characters.as_str()).filter(|text| !text.is_empty()),
            exclude_lowercase: excluded(CharacterClass::Lowercase),
            exclude_uppercase: excluded(CharacterClass::Uppercase),
            exclude_numbers: excluded(CharacterClass::Numbers),
            exclude_punctuation: excluded(CharacterClass::Punctuation),
            require_each_included_type: self.require_each.then_some(true),
            template: self.template.as_ref().map(Template::text),
            key: self.template.as_ref().map(Template::key),
        }
    }

    /// Returns the rules as the ledger stores them. Defaults are left out.
    #[must_use]
    pub fn to_row(&self) -> Row {
        let length = Attribute::Number(self.length.to_string());
        let mut row = Row::from([("length".to_owned(), length)]);
        let (classes, characters) = &self.excluded;
        let named = CharacterClass::ALL.into_iter().filter(|(class, _)| classes.contains(class));
        let each = self.require_each.then_some("require_each_included_type");
        let flags = named.map(|(_, field)| field).chain(each);
        row.extend(flags.map(|field| (field.to_owned(), Attribute::Flag(true))));
        if !characters.is_empty() {
            let characters = Attribute::Text(characters.clone());
            row.insert("exclude_characters".to_owned(), characters);
        }
        row.extend(self.template_row());
        row
    }

    /// Reads what [`GenerateRules::to_row`] returned. `None` if the row has no valid rules, or if they
    /// exceed a limit.
    #[must_use]
    pub fn of_row(row: &Row) -> Option<Self> {
        let set = |field: &str| row.get(field).is_some_and(Attribute::is_set);
        let classes = CharacterClass::ALL.into_iter().filter(|(_, field)| !set(field));
        let classes: Vec<_> = classes.map(|(class, _)| class).collect();
        let length = u64::try_from(row.get("length")?.integer()?).ok()?;
        let characters = row.get("exclude_characters").and_then(Attribute::text);
        let each = set("require_each_included_type");
        let rules = Self::build(length, &classes, characters.unwrap_or_default(), each).ok()?;
        let text = |name: &str| row.get(name).map(Attribute::text);
        let template = match (text("template"), text("template_key")) {
            (None, None) => None,
            (Some(text), Some(key)) => Some(Template::new(text?.to_owned(), key?.to_owned()).ok()?),
            _ => return None,
        };
        Some(rules.within(template))
    }

    /// Returns what the rules allow, so that two requests can be compared.
    pub(crate) fn visible(&self) -> Row {
        let classes = self.classes.join(&b'\n');
        let mut row = Row::from([
            ("length".to_owned(), Attribute::Number(self.length.to_string())),
            ("classes".to_owned(), Attribute::Bytes(classes)),
            ("require_each".to_owned(), Attribute::Flag(self.require_each)),
        ]);
        row.extend(self.template_row());
        row
    }

    /// Returns the attributes of the template, if there is one.
    fn template_row(&self) -> impl Iterator<Item = (String, Attribute)> {
        let parts = self.template.as_ref().map(|template| {
            [("template", template.text()), ("template_key", template.key())]
                .map(|(name, text)| (name.to_owned(), Attribute::Text(text.to_owned())))
        });
        parts.into_iter().flatten()
    }
}

/// Rules in the form of a request. Defaults are left out.
#[derive(Debug, serde::Serialize)]
pub struct Shown<'a> {
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_characters: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_lowercase: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_uppercase: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_numbers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_punctuation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    require_each_included_type: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{ALL, drawn, template};
    use super::*;

    #[test]
    fn stored_rules_are_read_back() {
        for rules in [
            GenerateRules::new(32, &ALL, "", false).unwrap(),
            GenerateRules::new(9, &ALL[1..3], "0Oé", true).unwrap(),
            GenerateRules::new(9, &ALL, "", false).unwrap().within(Some(template())),
        ] {
            assert_eq!(GenerateRules::of_row(&rules.to_row()), Some(rules));
        }
        assert_eq!(GenerateRules::of_row(&Row::new()), None);
    }

    #[test]
    fn a_required_class_without_characters_is_refused_but_read_from_the_ledger() {
        let (digits, letters) = ("0123456789", "abcdefghijklmnopqrstuvwxyz");
        let error = GenerateRules::new(32, &ALL, digits, true).unwrap_err();
        assert!(error.to_string().contains("`require_each_included_type`"), "{error}");
        assert!(GenerateRules::new(32, &ALL, digits, false).is_ok());
        assert!(GenerateRules::new(32, &ALL[1..], letters, true).is_ok(), "it is not included");
        let mut stored = GenerateRules::new(32, &ALL, digits, false).unwrap().to_row();
        stored.insert("require_each_included_type".to_owned(), Attribute::Flag(true));
        let read = GenerateRules::of_row(&stored).unwrap();
        assert!(read.require_each && drawn(&read).len() == 32);
    }

    #[test]
    fn rules_over_a_limit_are_neither_accepted_nor_read() {
        let (fits, large) = ("0".repeat(256), "0".repeat(257));
        let rules = GenerateRules::new(32, &ALL, &fits, false).unwrap();
        assert!(GenerateRules::new(32, &ALL, &large, false).is_err());
        let with = |name: &str, value: &str| {
            let mut row = rules.clone().within(Some(template())).to_row();
            row.insert(name.to_owned(), Attribute::Text(value.to_owned()));
            GenerateRules::of_row(&row)
        };
        assert!(with("exclude_characters", &fits).is_some());
        assert!(with("exclude_characters", &large).is_none());
        let object = format!("{{\"a\":\"{}\"}}", "x".repeat(4096));
        for (name, value) in
            [("template", object.as_str()), ("template", "[]"), ("template_key", &"k".repeat(257))]
        {
            assert!(with(name, value).is_none(), "{name}");
        }
        let mut half = rules.within(Some(template())).to_row();
        half.remove("template");
        assert!(GenerateRules::of_row(&half).is_none());
    }

    #[test]
    fn a_generated_value_becomes_a_field_of_its_template() {
        let rules = GenerateRules::new(20, &ALL, "", true).unwrap().within(Some(template()));
        let read: BTreeMap<String, String> = serde_json::from_slice(&drawn(&rules)).unwrap();
        assert_eq!((read["user"].as_str(), read["password"].len()), ("admin", 20));
        let shown = serde_json::to_value(rules.shown()).unwrap();
        let expected = serde_json::json!({
            "length": 20,
            "require_each_included_type": true,
            "template": r#"{"user":"admin"}"#,
            "key": "password",
        });
        assert_eq!(shown, expected);
        let plain = rules.clone().within(None);
        assert_ne!(plain.visible(), rules.visible());
        assert!(!plain.visible().contains_key("template"));
    }
}
