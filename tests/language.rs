//! The rule language, construct by construct: every field, operator, metric,
//! trigger and exception does what its documentation says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use egret::config::rule_files;
use egret::rule::compile::{Options, compile};
use egret::rule::diagnose::Source;
use egret::rule::sheet::FlowSheet;
use egret::rule::{Field, Host, Metric};
use egret::runtime::rehearsal;
use egret::time::Timestamp;

/// A match block, a flow that satisfies it and one that does not.
const MATCHES: &[(&str, &str, &str)] = &[
    // Fields.
    ("exe: /usr/bin/rclone", "exe: /usr/bin/rclone", "exe: /usr/bin/curl"),
    ("exe: /usr/**/rclone", "exe: /usr/local/bin/rclone", "exe: /opt/rclone"),
    ("exe: /opt/", "exe: /opt/a/b", "exe: /optional"),
    ("exe: $temp_paths", "exe: /tmp/a/x", "exe: /usr/bin/x"),
    ("exe.name: curl", "exe: /usr/bin/curl", "exe: /usr/bin/curlier"),
    ("exe.kind: MEMFD", "exe: /memfd:x, exe.kind: memfd", "exe: /usr/bin/x"),
    ("exe.kind: deleted", "exe: /a, exe.kind: deleted", "exe: /a, exe.kind: kernel"),
    ("exe.sha256: abc", "exe: /a, exe.sha256: abc", "exe: /a"),
    ("exe.package: curl", "exe: /a, exe.package: curl", "exe: /a, exe.package: wget"),
    ("cmdline: {contains: --upload}", "cmdline: curl --upload x", "cmdline: curl x"),
    ("args: -T", "args: [curl, -T, x]", "args: [curl, -Tx]"),
    ("args: {all: {prefix: a}}", "args: [ab, ac]", "args: [ab, b]"),
    ("args: {none: {prefix: b}}", "args: [ab, ac]", "args: [ab, b]"),
    ("args: {any: {like: \"*.gpg\"}}", "args: [x, y.gpg]", "args: [x, y.gz]"),
    ("script: /tmp/sync.py", "exe: /usr/bin/python3, cmdline: python3 /tmp/sync.py --all", "exe: /a, cmdline: a /b"),
    ("cwd: /srv/**", "exe: /a, cwd: /srv/data", "exe: /a, cwd: /home"),
    ("pid: 42", "exe: /a, pid: 42", "exe: /a, pid: 43"),
    ("ppid: 7", "exe: /a, parent.exe: /b, ppid: 7", "exe: /a, parent.exe: /b, ppid: 8"),
    ("parent.exe: /usr/sbin/apache2", "exe: /a, parent.exe: /usr/sbin/apache2", "exe: /a, parent.exe: /bin/sh"),
    ("parent.cmdline: {contains: -d}", "exe: /a, parent.exe: /b, parent.cmdline: b -d", "exe: /a, parent.exe: /b"),
    ("ancestor.exe: /b", "exe: /a, parent.exe: /c, ancestor.exe: [/b]", "exe: /a, parent.exe: /c"),
    ("user: alice", "user: alice", "user: bob"),
    ("user: 1000", "user: alice, uid: 1000", "user: bob, uid: 1001"),
    ("uid: \"1000-60000\"", "uid: 1500", "uid: 999"),
    ("uid: alice", "user: alice, uid: 1000", "user: bob, uid: 1001"),
    ("login_user: alice", "exe: /a, login_user: alice", "exe: /a, user: alice"),
    ("auid: {gte: 1000}", "exe: /a, auid: 1000", "exe: /a, auid: 0"),
    ("group: backup", "exe: /a, group: backup", "exe: /a, group: users"),
    ("group: 34", "exe: /a, group: backup, gid: 34", "exe: /a, group: users, gid: 100"),
    ("gid: backup", "exe: /a, group: backup, gid: 34", "exe: /a, gid: 100"),
    ("container.id: abc", "container.id: abc", "exe: /a"),
    ("container.name: web", "container.id: a, container.name: web", "container.id: a, container.name: db"),
    ("container.image: {prefix: nginx}", "container.id: a, container.image: \"nginx:1\"", "container.id: a"),
    ("container.runtime: docker", "container.id: a, container.runtime: docker", "container.id: a"),
    ("container.labels: env=prod", "container.id: a, container.labels: [env=prod, x=y]", "container.id: a"),
    ("pod: web-1", "container.id: a, pod: web-1", "container.id: a, pod: web-2"),
    ("namespace: prod", "container.id: a, namespace: prod", "container.id: a, namespace: test"),
    ("cgroup: /system.slice/**", "exe: /a, cgroup: /system.slice/x", "exe: /a, cgroup: /user.slice"),
    ("unit: sync.service", "exe: /a, unit: sync.service", "exe: /a, unit: ssh.service"),
    ("slice: system.slice", "exe: /a, slice: system.slice", "exe: /a, slice: user.slice"),
    ("netns: 4026531840", "netns: 4026531840", "netns: 1"),
    ("iface: {like: \"wwan*\"}", "iface: wwan0", "iface: eth0"),
    ("direction: outbound", "direction: outbound", "direction: inbound"),
    ("proto: udp", "proto: udp", "proto: tcp"),
    ("proto: 17", "proto: udp", "proto: tcp"),
    ("proto: other", "proto: gre", "proto: sctp"),
    ("proto: icmp", "proto: icmpv6", "proto: tcp"),
    ("l7: tls", "dst.sni: example.net", "dst.dns: example.net"),
    ("src.ip: 192.168.0.0/16", "src: \"192.168.0.10:1\"", "src: \"10.0.0.1:1\""),
    ("src.port: 1234", "src: \"10.0.0.1:1234\"", "src: \"10.0.0.1:1235\""),
    ("dst.ip: [10.0.0.0/8, 203.0.113.7]", "dst: \"203.0.113.7:1\"", "dst: \"203.0.113.8:1\""),
    ("dst.ip: 203.0.113.0/24", "dst: \"[::ffff:203.0.113.7]:1\"", "dst: \"[2001:db8::7]:1\""),
    ("dst.ip: $metadata_ips", "dst: \"169.254.169.254:80\"", "dst: \"169.254.169.253:80\""),
    ("dst.port: \"1024-65535\"", "dst: \"203.0.113.7:1024\"", "dst: \"203.0.113.7:1023\""),
    ("dst.port: {in: [80, 443]}", "dst: \"203.0.113.7:443\"", "dst: \"203.0.113.7:444\""),
    ("dst.scope: private", "dst: \"10.1.2.3:1\"", "dst: \"8.8.8.8:1\""),
    ("dst.scope: public", "dst: \"8.8.8.8:1\"", "dst: \"224.0.0.1:1\""),
    ("dst.domain: example.net", "dst.sni: EXAMPLE.net.", "dst.sni: a.example.net"),
    ("dst.domain: \"*.example.net\"", "dst.sni: a.b.example.net", "dst.sni: example.net"),
    ("dst.domain: .example.net", "dst.sni: example.net", "dst.sni: notexample.net"),
    ("dst.domain: {suffix: example.net}", "dst.sni: a.example.net", "dst.sni: example.org"),
    ("dst.domain: bücher.example", "dst.sni: xn--bcher-kva.example", "dst.sni: bucher.example"),
    ("dst.domain.source: sni", "dst.sni: example.net", "dst.dns: example.net"),
    ("dst.domain.source: none", "bytes_out: 1", "dst.dns: example.net"),
    ("dst.domain.trust: unconfirmed", "dst.sni: example.net", "dst.sni: example.net, dst.dns: example.net"),
    ("dst.sni: example.net", "dst.sni: example.net", "dst.dns: example.net"),
    ("dst.dns: example.net", "dst.dns: example.net", "dst.sni: example.net"),
    ("dst.registered_domain: example.co.uk", "dst.sni: a.b.example.co.uk", "dst.sni: other.co.uk"),
    ("dst.asn: [AS64500, 64501]", "dst.asn: \"64500\"", "dst.asn: \"64502\""),
    ("dst.as_org: {icontains: EXAMPLE}", "dst.as_org: An Example Ltd", "dst.as_org: Other"),
    ("dst.country: \"NO\"", "dst.country: \"NO\"", "dst.country: DE"),
    ("attribution: unknown", "bytes_out: 1", "exe: /a"),
    ("attribution: exact", "exe: /a", "exe: /a, attribution: inferred"),
    ("evidence: wildcard", "exe: /a, attribution: inferred", "exe: /a"),
    ("unknown_reason: forwarded", "unknown_reason: forwarded", "exe: /a"),
    ("suspects: /usr/bin/tcpreplay", "suspects: [/usr/bin/tcpreplay]", "unknown_reason: no_socket"),
    ("flow.bytes_out: {gte: 5kB}", "bytes_out: 5kB", "bytes_out: 4999"),
    ("flow.bytes_in: {between: [1kB, 1KiB]}", "bytes_in: 1000", "bytes_in: 1025"),
    ("flow.age: {lt: 1s}", "bytes_out: 1", ""),
    ("flow.state: failed", "flow.state: failed", "flow.state: established"),
    ("dns.registered_domain: example.net", "dns.query: a.example.net", "dns.query: a.example.org"),
    ("host: here", "exe: /a", ""),
    ("host.tags: lab", "exe: /a", ""),
    ("host.tags: {none: prod}", "exe: /a", ""),
    ("start_time: {exists: false}", "exe: /a", ""),
    // Operators, and what they make of a missing field.
    ("exe.name: {eq: curl}", "exe: /bin/curl", "exe: /bin/Curl"),
    ("exe.name: {ne: curl}", "exe: /bin/wget", "exe: /bin/curl"),
    ("exe.name: {ne: curl}", "bytes_out: 1", "exe: /bin/curl"),
    ("exe.name: {in: [curl, wget]}", "exe: /bin/wget", "exe: /bin/nc"),
    ("exe.name: {not_in: [curl, wget]}", "bytes_out: 1", "exe: /bin/wget"),
    ("exe.name: {like: \"py*n\"}", "exe: /bin/python", "exe: /bin/perl"),
    ("exe.name: {not_like: \"py*\"}", "bytes_out: 1", "exe: /bin/python"),
    ("exe.name: {prefix: py}", "exe: /bin/python", "exe: /bin/ipython"),
    ("exe.name: {suffix: .sh}", "exe: /bin/a.sh", "exe: /bin/a.shx"),
    ("exe.name: {contains: yth}", "exe: /bin/python", "exe: /bin/perl"),
    ("exe.name: {regex: \"^py.*3$\"}", "exe: /bin/python3", "exe: /bin/python3.11"),
    ("exe.name: {regex: ytho, full: false}", "exe: /bin/python", "exe: /bin/perl"),
    ("exe.name: {regex: python, full: true}", "exe: /bin/python", "exe: /bin/python3"),
    ("exe.name: {exists: true}", "exe: /bin/a", "bytes_out: 1"),
    ("exe.name: {exists: false}", "bytes_out: 1", "exe: /bin/a"),
    ("exe.name: {ieq: CURL}", "exe: /bin/curl", "exe: /bin/curl2"),
    ("exe.name: {icontains: URL}", "exe: /bin/curl", "exe: /bin/wget"),
    ("dst.port: {lt: 1024}", "dst: \"203.0.113.7:1023\"", "dst: \"203.0.113.7:1024\""),
    ("dst.port: {lte: 1023}", "dst: \"203.0.113.7:1023\"", "dst: \"203.0.113.7:1024\""),
    ("dst.port: {gt: 1023}", "dst: \"203.0.113.7:1024\"", "dst: \"203.0.113.7:1023\""),
    ("dst.domain: {not_in: [.example.net]}", "bytes_out: 1", "dst.sni: a.example.net"),
    ("dst.domain: {like: \"up*.example.net\"}", "dst.sni: upload.example.net", "dst.sni: load.example.net"),
    ("dst.ip: {not_in: $private_nets}", "dst: \"203.0.113.7:1\"", "dst: \"10.0.0.1:1\""),
    // Together.
    ("exe: [/a, /b], dst.port: 443", "exe: /b, dst: \"203.0.113.7:443\"", "exe: /b, dst: \"203.0.113.7:80\""),
    ("all: [{exe: /a}, {user: alice}]", "exe: /a, user: alice", "exe: /a, user: bob"),
    ("any: [{exe: /a}, {user: alice}]", "exe: /b, user: alice", "exe: /b, user: bob"),
    ("not: {exe: /a}", "bytes_out: 1", "exe: /a"),
    ("not: {any: [{exe: /a}, {exe: /b}]}", "exe: /c", "exe: /b"),
    ("all: [$outward, {not: {exe: /a}}]", "exe: /b, direction: outbound", "exe: /a, direction: outbound"),
];

#[test]
fn every_field_and_operator_matches_what_it_says() {
    let mut wrong = Vec::new();
    for (block, yes, no) in MATCHES {
        let condition = condition(block);
        for (flow, expected) in [(yes, true), (no, false)] {
            if !flow.is_empty() && matches(&condition, flow) != expected {
                wrong.push(format!("{{{block}}} on {{{flow}}} is not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tested = |name: &str| MATCHES.iter().any(|(block, ..)| block.contains(&format!("{name}:")));
    let untested: Vec<&str> = Field::ALL.iter().map(|field| field.name()).filter(|name| !tested(name)).collect();
    assert!(untested.is_empty(), "no test of {untested:?}");
    for operator in egret::rule::kind::OPERATORS {
        assert!(tested(operator.name), "no test of the operator `{}`", operator.name);
    }
}

/// `not_in`, `not_like`, `ne` and `not` are true exactly where `in`, `like`, `eq` and the block itself are false.
#[test]
fn negations_are_exact_for_every_flow() {
    let flows: BTreeSet<&str> =
        MATCHES.iter().flat_map(|(_, yes, no)| [*yes, *no]).filter(|one| !one.is_empty()).collect();
    let pairs = [
        ("exe: {in: [/a, /usr/bin/*]}", "exe: {not_in: [/a, /usr/bin/*]}"),
        ("exe.name: {like: \"*url*\"}", "exe.name: {not_like: \"*url*\"}"),
        ("exe.name: {eq: curl}", "exe.name: {ne: curl}"),
        ("user: {in: [alice, 1500]}", "user: {not_in: [alice, 1500]}"),
        ("group: {in: [backup]}", "group: {not_in: [backup]}"),
        ("dst.domain: {in: [.example.net]}", "dst.domain: {not_in: [.example.net]}"),
        ("dst.domain: {like: \"*a*\"}", "dst.domain: {not_like: \"*a*\"}"),
        ("dst.ip: {in: $private_nets}", "dst.ip: {not_in: $private_nets}"),
        ("dst.port: {in: [443, \"1-1023\"]}", "dst.port: {not_in: [443, \"1-1023\"]}"),
        ("dst.asn: {eq: 64500}", "dst.asn: {ne: 64500}"),
        ("args: {any: {prefix: a}}", "args: {none: {prefix: a}}"),
        ("proto: {in: [udp, other]}", "proto: {not_in: [udp, other]}"),
        ("iface: {exists: true}", "iface: {exists: false}"),
    ];
    let blocks = MATCHES.iter().map(|(block, ..)| ((*block).to_owned(), format!("not: {{{block}}}")));
    let pairs = pairs.iter().map(|(yes, no)| ((*yes).to_owned(), (*no).to_owned())).chain(blocks);
    let mut asked = 0;
    for (positive, negative) in pairs {
        let (yes, no) = (condition(&positive), condition(&negative));
        for flow in &flows {
            assert_ne!(matches(&yes, flow), matches(&no, flow), "{{{positive}}} and {{{negative}}} on {{{flow}}}");
            asked += 1;
        }
    }
    assert!(asked > 10_000, "{asked}");
}

#[test]
fn every_metric_and_trigger_fires_when_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language");
    let sources = rule_files::read(&[folder]).unwrap();
    let text: String = sources.iter().map(|source| source.text.to_string()).collect();
    let compiled = compile(sources, &Options::default());
    assert!(compiled.report.diagnostics.is_empty(), "{}", compiled.report);
    let mut failures = Vec::new();
    let mut fired = BTreeSet::new();
    for case in &compiled.cases {
        let outcome = rehearsal::run(case, &compiled.rules);
        failures.extend(outcome.failures.iter().map(|failure| {
            format!("{}:{} \"{}\": {}", failure.span.source, failure.span.line, case.name, failure.message)
        }));
        fired.extend(outcome.shown.fired);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let silent: Vec<_> =
        compiled.rules.rules.iter().map(|rule| &rule.metadata.id).filter(|id| !fired.contains(*id)).collect();
    assert!(silent.is_empty(), "no test makes these fire: {silent:?}");
    // Rates and peaks of other sums, and shares of other fields, differ in what they add up.
    let general =
        |metric: &&Metric| !matches!(metric, Metric::Rate(_) | Metric::Peak(_) | Metric::MaxDestinationShare(_));
    for metric in Metric::all().iter().filter(general) {
        assert!(text.contains(&format!("{metric}: {{")), "no test of {metric}");
    }
}

fn condition(block: &str) -> egret::rule::Condition {
    let text =
        format!("macros: {{outward: {{direction: outbound}}}}\nrules: [{{id: r, match: {{{block}}}, each: {{}}}}]\n");
    let compiled = compile(vec![Source::new("rules.yaml", text)], &Options::default());
    let rules = compiled.into_result().unwrap_or_else(|report| panic!("{{{block}}}: {report}"));
    rules.rules[0].condition.clone()
}

fn matches(condition: &egret::rule::Condition, flow: &str) -> bool {
    let written: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(&format!("{{{flow}}}")).unwrap();
    let entries = written.into_iter().map(|(key, value)| {
        let values = match value {
            serde_yaml::Value::Sequence(values) => values.iter().map(text_of).collect(),
            value => vec![text_of(&value)],
        };
        (key, values)
    });
    let sheet = FlowSheet::read(&entries.collect()).unwrap_or_else(|bad| panic!("{{{flow}}}: {bad:?}"));
    let host = Host { name: "here".into(), tags: vec!["lab".into()], ..Host::default() };
    condition.matches(&sheet.observation(&host, Timestamp::EPOCH))
}

fn text_of(value: &serde_yaml::Value) -> String {
    match value {
        serde_yaml::Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap().trim().to_owned(),
    }
}
