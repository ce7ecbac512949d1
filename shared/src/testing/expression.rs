//! The expressions of DynamoDB that the crate sends, evaluated. Anything else panics.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Item;

/// The placeholders of one request. DynamoDB rejects a request with unused or undefined ones.
pub(super) struct Scope<'a> {
    names: Option<&'a Map<String, Value>>,
    values: Option<&'a Map<String, Value>>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Scope<'a> {
    pub(super) fn of(request: &'a Value) -> Self {
        let map = |field: &str| {
            let map = request.get(field).and_then(Value::as_object);
            assert!(map.is_none_or(|map| !map.is_empty()), "{field} must not be empty");
            map
        };
        Self {
            names: map("ExpressionAttributeNames"),
            values: map("ExpressionAttributeValues"),
            used: RefCell::default(),
        }
    }

    /// Splits an expression into its tokens.
    pub(super) fn tokens(&self, expression: &str) -> Vec<String> {
        let mut tokens: Vec<String> = Vec::new();
        let mut characters = expression.chars().peekable();
        while let Some(character) = characters.next() {
            let mut token = String::from(character);
            match character {
                ' ' => continue,
                '(' | ')' | ',' | '=' => {}
                '<' | '>' => {
                    let second = |next: &char| *next == '=' || (character == '<' && *next == '>');
                    token.extend(characters.next_if(second));
                }
                _ => {
                    let word = |next: &char| next.is_alphanumeric() || "_#:.".contains(*next);
                    assert!(word(&character), "unknown character in {expression}");
                    while let Some(next) = characters.next_if(word) {
                        token.push(next);
                    }
                }
            }
            let mut used = self.used.borrow_mut();
            used.extend(
                token.split('.').filter(|part| part.starts_with(['#', ':'])).map(Into::into),
            );
            tokens.push(token);
        }
        tokens
    }

    /// Panics if a placeholder is not used.
    pub(super) fn finish(self) {
        let used = self.used.borrow();
        for defined in [self.names, self.values].into_iter().flatten().flat_map(Map::keys) {
            assert!(used.contains(defined), "{defined} is not used");
        }
    }

    /// Evaluates the tokens of a condition for an item.
    pub(super) fn holds(&self, tokens: &[String], item: Option<&Item>) -> bool {
        let mut parser = Parser { tokens: tokens.iter(), scope: self, item };
        let holds = parser.any();
        assert!(parser.tokens.next().is_none(), "unparsed rest in {tokens:?}");
        holds
    }

    /// Returns the attribute names of a path.
    fn path(&self, token: &str) -> Vec<&'a str> {
        let part = |part| {
            let name = self.names.and_then(|names| names.get(part)).and_then(Value::as_str);
            name.unwrap_or_else(|| panic!("undefined name {part}"))
        };
        token.split('.').map(part).collect()
    }

    fn value(&self, token: &str) -> &'a Value {
        let value = self.values.and_then(|values| values.get(token));
        value.unwrap_or_else(|| panic!("undefined value {token}"))
    }

    /// Returns the attributes of an item that a projection selects.
    pub(super) fn project(&self, tokens: &[String], item: &Item) -> Item {
        let mut projected = Item::new();
        for token in tokens.iter().filter(|token| *token != ",") {
            match *self.path(token) {
                [name] => {
                    let value = item.get(name).map(|value| (name.to_owned(), value.clone()));
                    projected.extend(value);
                }
                [outer, inner] => {
                    let Some(value) = item.get(outer).and_then(|map| map["M"].get(inner)) else {
                        continue;
                    };
                    let map =
                        projected.entry(outer).or_insert_with(|| serde_json::json!({"M": {}}));
                    map["M"][inner] = value.clone();
                }
                _ => panic!("unknown path {token}"),
            }
        }
        projected
    }

    /// Applies an update of the form `SET path = :value`.
    pub(super) fn update(&self, tokens: &[String], item: &mut Item) {
        let [set, path, equals, value] = tokens else { panic!("unknown update {tokens:?}") };
        assert_eq!((set.as_str(), equals.as_str()), ("SET", "="));
        let value = self.value(value).clone();
        match *self.path(path) {
            [name] => drop(item.insert(name.to_owned(), value)),
            [outer, inner] => item[outer]["M"][inner] = value,
            _ => panic!("unknown path {path}"),
        }
    }
}

struct Parser<'p, 'a> {
    tokens: std::slice::Iter<'p, String>,
    scope: &'p Scope<'a>,
    item: Option<&'p Item>,
}

impl Parser<'_, '_> {
    fn next_is(&mut self, token: &str) -> bool {
        let is = self.tokens.as_slice().first().is_some_and(|next| next == token);
        if is {
            self.tokens.next();
        }
        is
    }

    fn expect(&mut self, token: &str) {
        assert!(self.next_is(token), "{token} expected before {:?}", self.tokens);
    }

    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.next_is("OR") {
            holds |= self.all();
        }
        holds
    }

    fn all(&mut self) -> bool {
        let mut holds = self.one();
        while self.next_is("AND") {
            holds &= self.one();
        }
        holds
    }

    fn one(&mut self) -> bool {
        if self.next_is("(") {
            let holds = self.any();
            self.expect(")");
            return holds;
        }
        for function in ["attribute_exists", "attribute_not_exists", "begins_with"] {
            if self.next_is(function) {
                self.expect("(");
                let value = self.operand();
                let holds = match function {
                    "attribute_exists" => value.is_some(),
                    "attribute_not_exists" => value.is_none(),
                    _ => {
                        self.expect(",");
                        let prefix = self.operand().unwrap();
                        let text = value.as_ref().and_then(|value| value["S"].as_str());
                        text.is_some_and(|text| text.starts_with(prefix["S"].as_str().unwrap()))
                    }
                };
                self.expect(")");
                return holds;
            }
        }
        let left = self.operand();
        if self.next_is("BETWEEN") {
            let first = self.operand();
            self.expect("AND");
            let last = self.operand();
            return compare(">=", left.as_ref(), first.as_ref())
                && compare("<=", left.as_ref(), last.as_ref());
        }
        if self.next_is("IN") {
            self.expect("(");
            let mut holds = false;
            loop {
                holds |= compare("=", left.as_ref(), self.operand().as_ref());
                if !self.next_is(",") {
                    break;
                }
            }
            self.expect(")");
            return holds;
        }
        let comparator = self.tokens.next().expect("a comparator");
        let right = self.operand();
        compare(comparator, left.as_ref(), right.as_ref())
    }

    fn operand(&mut self) -> Option<Value> {
        let token = self.tokens.next().expect("an operand");
        if token.starts_with(':') {
            return Some(self.scope.value(token).clone());
        }
        let path = self.scope.path(token);
        let (first, rest) = path.split_first()?;
        let value = rest.iter().try_fold(self.item?.get(*first)?, |value, name| {
            value.get("M").and_then(|map| map.get(name))
        });
        value.cloned()
    }
}

fn compare(comparator: &str, left: Option<&Value>, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return comparator == "<>" };
    let order = order(left, right);
    match comparator {
        "=" => order == Some(Ordering::Equal),
        "<>" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        other => panic!("unknown comparator {other}"),
    }
}

/// Compares two attributes. Types without an order are only equal or not.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    let number = |value: &Value| Some(value["N"].as_str()?.parse::<i128>().unwrap());
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Some(left.cmp(&right));
    }
    if let (Some(left), Some(right)) = (left["S"].as_str(), right["S"].as_str()) {
        return Some(left.as_bytes().cmp(right.as_bytes()));
    }
    let set = |value: &Value| {
        let members = value["SS"].as_array()?.iter();
        Some(members.map(|member| member.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>())
    };
    let equal = match (set(left), set(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    };
    equal.then_some(Ordering::Equal)
}
