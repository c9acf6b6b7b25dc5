//! Conditions that contradict themselves.

use crate::flow::Scope;
use crate::packet::Address;
use crate::rule::{Condition, Field, Pattern, Test};

/// Why no flow can satisfy a condition, if simple means can tell.
pub(super) fn contradiction(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Shared(part) => contradiction(part),
        Condition::All(_) => {
            let mut tests = Vec::new();
            let mut denied = Vec::new();
            gather(condition, &mut tests, &mut denied);
            let pairs = tests
                .iter()
                .enumerate()
                .flat_map(|(index, test)| tests.iter().skip(index + 1).map(move |other| (*test, *other)));
            pairs
                .clone()
                .find_map(|(a, b)| exclude_each_other(a, b))
                .or_else(|| {
                    pairs.clone().find_map(|(a, b)| networks_out_of_scope(a, b).or_else(|| networks_out_of_scope(b, a)))
                })
                .or_else(|| {
                    let same = |a: &Test, b: &Test| {
                        a.field == b.field && format!("{:?}", a.pattern) == format!("{:?}", b.pattern)
                    };
                    let (test, _) = tests
                        .iter()
                        .flat_map(|test| denied.iter().map(move |denied| (*test, *denied)))
                        .find(|(a, b)| is_small(a) && is_small(b) && same(a, b))?;
                    Some(format!("the same test of `{}` must hold and must not hold", test.field))
                })
                .or_else(|| parts(condition).iter().find_map(contradiction))
        }
        Condition::Any(parts) if !parts.is_empty() => {
            let reasons: Option<Vec<String>> = parts.iter().map(contradiction).collect();
            reasons.and_then(|reasons| reasons.into_iter().next())
        }
        _ => None,
    }
}

fn parts(condition: &Condition) -> &[Condition] {
    match condition {
        Condition::All(parts) => parts,
        _ => &[],
    }
}

/// The tests that must all hold, and those that must not.
fn gather<'a>(condition: &'a Condition, tests: &mut Vec<&'a Test>, denied: &mut Vec<&'a Test>) {
    match condition {
        Condition::All(parts) => parts.iter().for_each(|part| gather(part, tests, denied)),
        Condition::Shared(part) => gather(part, tests, denied),
        Condition::Test(test) => tests.push(test),
        Condition::Not(part) => {
            if let Condition::Test(test) = &**part {
                denied.push(test);
            }
        }
        Condition::Any(_) => {}
    }
}

pub(super) fn is_small(test: &Test) -> bool {
    match &test.pattern {
        Pattern::Address(networks) => networks.len() < 64,
        Pattern::Domain(domains) => domains.len() < 64,
        Pattern::Text(texts) => texts.exact().count() < 64,
        _ => true,
    }
}

fn exclude_each_other(a: &Test, b: &Test) -> Option<String> {
    if a.field != b.field
        || matches!(a.field, Field::Args | Field::HostTags | Field::AncestorExe | Field::ContainerLabels)
    {
        return None;
    }
    let apart = match (&a.pattern, &b.pattern) {
        (Pattern::Number(a), Pattern::Number(b)) => {
            !a.ranges().iter().any(|(low, high)| b.ranges().iter().any(|(from, to)| low <= to && from <= high))
        }
        (Pattern::Text(a), Pattern::Text(b)) if a.patterns().is_empty() => !a.exact().any(|text| b.contains(text)),
        (Pattern::Text(a), Pattern::Text(b)) if b.patterns().is_empty() => !b.exact().any(|text| a.contains(text)),
        _ => false,
    };
    apart.then(|| format!("`{}` cannot satisfy both tests of it", a.field))
}

/// `dst.ip` in private networks and `dst.scope: public`.
fn networks_out_of_scope(networks: &Test, scope: &Test) -> Option<String> {
    let (Field::DstIp, Field::DstScope) = (networks.field, scope.field) else { return None };
    let (Pattern::Address(set), Pattern::Text(scopes)) = (&networks.pattern, &scope.pattern) else { return None };
    let outside = !set.is_empty()
        && set.len() < 10_000
        && set.iter().all(|network| {
            let first = Scope::of(Address::from(network.network()));
            let last = Scope::of(Address::from(network.broadcast()));
            first == last && !scopes.contains(first.name().as_bytes())
        });
    outside.then(|| "none of the networks of `dst.ip` has this `dst.scope`".to_owned())
}
