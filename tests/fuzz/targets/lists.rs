//! Published lists in every format, and the lists of rules that name them.
#![no_main]

use std::sync::Arc;

use egret::names::List;
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use libfuzzer_sys::fuzz_target;

/// A list of each type that a file can fill.
const RULES: &str = "lists:
  networks: {type: cidr, file: list, max_items: 1000}
  names: {type: domain, file: list, max_items: 1000}
  systems: {type: asn, file: list, max_items: 1000}
  programs: {type: exe, file: list, max_items: 1000}
  users: {type: user, file: list, max_items: 1000}
";

fuzz_target!(|content: &[u8]| {
    if let Ok(list) = List::parse(content, 100_000) {
        assert!(list.counts.entries() <= 100_000);
    }
    let content = content.to_vec();
    let options = Options { read_file: Arc::new(move |_| Ok(content.clone())), ..Options::default() };
    let _ = compile(vec![Source::new("rules.yaml", RULES)], &options);
});
