//! Compares the attributes that each role may query with those that the code reads.

use std::collections::BTreeSet;

use super::ledger::CHAIN;
use super::policies::ATTRIBUTES;
use super::runs::RUN;
use super::scan::{KEPT, WRAPPING};
use super::secrets_table::{DESCRIBED, TOP};
use super::tokens::TOKEN;

const TEMPLATE: &str = include_str!("../../../template.yaml");

/// Returns the text of the template after the first `start` of a text.
fn after<'a>(text: &'a str, start: &str) -> &'a str {
    text.split_once(start).unwrap_or_else(|| panic!("{start:?} is not in the template")).1
}

/// Returns the attributes that a statement of a role's policy allows.
fn allowed(policy: &str, sid: &str) -> BTreeSet<&'static str> {
    let statement = after(after(TEMPLATE, &format!("\n  {policy}:\n")), &format!("Sid: {sid}\n"));
    let list = after(statement, r#""dynamodb:Attributes": ["#);
    list.split(']').next().unwrap().split(", ").collect()
}

fn read(constants: &[&[&'static str]]) -> BTreeSet<&'static str> {
    constants.iter().copied().flatten().copied().collect()
}

#[test]
fn roles_may_query_exactly_what_the_code_reads() {
    let row: &[&str] = &["row"];
    let cases: [(&str, &str, &[&[&str]]); 8] = [
        ("PutPolicy", "ReadHighestVersion", &[TOP]),
        ("PutPolicy", "ReadEventsAndTokens", &[CHAIN, TOKEN]),
        ("ListPolicy", "ReadEvents", &[CHAIN, RUN]),
        ("PolicyPolicy", "ReadEventsAndPolicies", &[CHAIN, ATTRIBUTES]),
        ("RewrapPolicy", "ReadWrappedKeys", &[WRAPPING]),
        ("RewrapPolicy", "ReadDeletedVersionsAndRuns", &[CHAIN, RUN, KEPT, WRAPPING, row]),
        ("RenewPolicy", "ReadNewestVersion", &[DESCRIBED]),
        ("RenewPolicy", "ReadEventsPoliciesAndRuns", &[CHAIN, TOKEN, RUN, ATTRIBUTES]),
    ];
    for (policy, sid, constants) in cases {
        assert_eq!(allowed(policy, sid), read(constants), "{policy}, {sid}");
    }
    for policy in ["RestorePolicy", "PolicyPolicy"] {
        let statements = after(TEMPLATE, &format!("\n  {policy}:\n"));
        let next = statements.find("\n\n").unwrap_or(statements.len());
        assert!(statements[..next].contains("*read-highest-version"), "{policy}");
    }
}
