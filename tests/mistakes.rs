//! A hundred mistakes that people make in rule files: each must be found with
//! its code, at its line and column, and with the word that was meant.

use std::path::Path;

use egret::rule::compile::{Lint, Options, compile};
use egret::rule::diagnose::Source;
use egret::rule::render::{Colour, Format, render};

/// Where a mistake stands.
enum Place {
    /// In a match block.
    Match,
    /// In the conditions of `when`.
    When,
    /// Among the keys of a rule.
    Rule,
    /// In a file that has a rule as well.
    File,
    /// In a file of its own.
    Alone,
}
use Place::{Alone, File, Match, Rule, When};

/// The place, the text with `§` before the character at fault, the code, and what must be suggested.
const MISTAKES: &[(Place, &str, &str, &str)] = &[
    // Keys.
    (Rule, "§severty: high", "R0101", "severity"),
    (Rule, "§titel: x", "R0101", "title"),
    (Rule, "§descripton: x", "R0101", "description"),
    (Rule, "§groupby: [exe]", "R0101", "group_by"),
    (Rule, "§keep_fireing_for: 5m", "R0101", "keep_firing_for"),
    (Rule, "§cool_down: 5m", "R0101", "cooldown"),
    (Rule, "§refrences: [x]", "R0101", "references"),
    (Rule, "§atack: [T1567]", "R0101", "attack"),
    (Rule, "§ouputs: [a]", "R0101", "outputs"),
    (Rule, "§exeptions: []", "R0101", "exceptions"),
    (Rule, "§summery: x", "R0101", "summary"),
    (Rule, "§limit: {}", "R0101", "limits"),
    (Rule, "limits: {§max_group: 5}", "R0101", "max_groups"),
    (Rule, "limits: {max_alerts: {count: 1, §pre: 1h}}", "R0101", "per"),
    (Rule, "realert: {§evry: 1h}", "R0101", "every"),
    (Rule, "realert: {§on_grow: 2x}", "R0101", "on_growth"),
    (Rule, "active: {§durring: [office]}", "R0101", "during"),
    (Rule, "exceptions: [{name: a, fields: [exe], values: [/a], §expire: 2030-01-01}]", "R0101", "expires"),
    (Rule, "exceptions: [{name: a, fields: [exe], values: [/a], §resaon: x}]", "R0101", "reason"),
    (
        Rule,
        "exceptions: [{name: a, fields: [exe], values: [/a], budget: {§byte_out: 1GB, per: 1d}}]",
        "R0101",
        "bytes_out",
    ),
    (File, "lists: {l: {type: cidr, §item: [10.0.0.0/8]}}", "R0101", "items"),
    (File, "schedules: {s: {§weekday: [mon]}}", "R0101", "weekdays"),
    (File, "schedules: {s: {§tmes: [\"07:00-08:00\"]}}", "R0101", "times"),
    (File, "defaults: {§severiti: low}", "R0101", "severity"),
    (File, "§macro: {}", "R0101", "macros"),
    (File, "§override: []", "R0101", "overrides"),
    (File, "pack: {name: x, §revison: 1}", "R0101", "revision"),
    // Fields.
    (Match, "§exee: /bin/a", "R0107", "exe"),
    (Match, "§dst.domian: example.net", "R0107", "dst.domain"),
    (Match, "§dst.prot: 443", "R0107", "dst.port"),
    (Match, "§dst.contry: DE", "R0107", "dst.country"),
    (Match, "§src.prt: 443", "R0107", "src.port"),
    (Match, "§cmdlin: x", "R0107", "cmdline"),
    (Match, "§usr: root", "R0107", "user"),
    (Match, "§direcion: outbound", "R0107", "direction"),
    (Match, "§parent_exe: /bin/a", "R0107", "parent.exe"),
    (Match, "§container.imge: x", "R0107", "container.image"),
    (Match, "§destination.ip: 10.0.0.1", "R0107", "dst.ip"),
    (Match, "§protocol: tcp", "R0107", "proto"),
    (Match, "§nto: {exe: /bin/a}", "R0107", "not"),
    (Rule, "group_by: [§exec]", "R0107", "exe"),
    (Rule, "details: [§cmd_line]", "R0107", "cmdline"),
    (Rule, "details: [{top: §dst.ipp, n: 5}]", "R0107", "dst.ip"),
    (Rule, "exceptions: [{name: a, fields: [§uesr], values: [a]}]", "R0107", "user"),
    // Operators.
    (Match, "exe: {§prefx: /tmp}", "R0108", "prefix"),
    (Match, "exe: {§startswith: /tmp}", "R0108", "prefix"),
    (Match, "exe: {§contians: x}", "R0108", "contains"),
    (Match, "dst.port: {§ge: 1024}", "R0108", "gte"),
    (Match, "dst.ip: {§cidr: 10.0.0.0/8}", "R0108", "in"),
    (Match, "exe: {§not_inn: [/a]}", "R0108", "not_in"),
    (Match, "cmdline: {§regx: x}", "R0108", "regex"),
    (When, "{bytes_out: {§ge: 1MB}}", "R0108", "gte"),
    (When, "{bytes_out: {§above: 1MB}}", "R0108", "gt"),
    // Metrics.
    (When, "{§byte_out: {gte: 1MB}}", "R0109", "bytes_out"),
    (When, "{§payload_ot: {gte: 1MB}}", "R0109", "payload_out"),
    (When, "{§conections: {gte: 5}}", "R0109", "connections"),
    (When, "{§distinct(dst.ipp): {gte: 5}}", "R0109", "distinct(dst.ip)"),
    (When, "{§upload_ration: {gte: 0.5}}", "R0109", "upload_ratio"),
    (When, "{§bytes_out.rat: {gte: 1MB/s}}", "R0109", "bytes_out.rate"),
    (When, "{§dns.querys: {gte: 5}}", "R0109", "dns.queries"),
    // Values.
    (Rule, "severity: §hgih", "R0110", "high"),
    (Rule, "severity: §critcal", "R0110", "critical"),
    (Rule, "status: §stabel", "R0110", "stable"),
    (Rule, "confidence: §meduim", "R0110", "medium"),
    (Rule, "no_data: §resolv", "R0110", "resolve"),
    (Match, "direction: §outbond", "R0110", "outbound"),
    (Match, "dst.scope: §pubilc", "R0110", "public"),
    (Match, "proto: §tpc", "R0110", "tcp"),
    (Match, "exe.kind: §memdf", "R0110", "memfd"),
    (Match, "l7: §htttp", "R0110", "http"),
    (Match, "attribution: §unknwon", "R0110", "unknown"),
    (File, "lists: {l: {type: §domian, items: [a.example]}}", "R0110", "domain"),
    // Names.
    (Match, "exe: §$interpeters", "R0112", "$interpreters"),
    (Match, "dst.domain: §$cloud_storge", "R0112", "$cloud_storage"),
    (Match, "all: [§$externl]", "R0112", "$external"),
    (Rule, "active: {during: [§ofice]}", "R0113", "office"),
    (Rule, "outputs: [§soc-sylog]", "R0115", "soc-syslog"),
    (Rule, "attack: [§t1567.002]", "R0117", "T1567.002"),
    (Rule, "attack: [§T1567.009]", "R0117", "T1567.001"),
    (Match, "exe: §$private_nets", "R0120", ""),
    (File, "overrides: [{rule: §base-rul, set: {severity: low}}]", "R0301", "base-rule"),
    (File, "overrides: [{rule: base-rule, set: {§severty: low}}]", "R0302", "severity"),
    // Literals.
    (When, "{bytes_out: {gte: §500M}}", "R0130", "500MB"),
    (When, "{bytes_out: {gte: §500mb}}", "R0130", "500MB"),
    (When, "{bytes_out.rate: {gte: §80Mbps}}", "R0130", "80Mbit/s"),
    (Rule, "for: §10min", "R0130", "10m"),
    (Rule, "for: §90", "R0130", "90s"),
    (Rule, "for: §1:30", "R0015", ""),
    (Match, "dst.ip: §10.1.2.3/8", "R0130", "10.0.0.0/8"),
    (Match, "dst.ip: §10.0.*", "R0130", "10.0.0.0/16"),
    (Match, "dst.port: §0755", "R0016", "755"),
    (Match, "dst.port: §70000", "R0130", ""),
    (Match, "dst.domain: §\"https://example.net/x\"", "R0130", "example.net"),
    (Match, "cmdline: {regex: §\"(\"}", "R0130", ""),
    (File, "schedules: {s: {weekdays: [§mno-fri]}}", "R0130", "mon-fri"),
    (File, "schedules: {s: {tz: §Europe/Berln}}", "R0130", "Europe/Berlin"),
    (Rule, "summary: §\"{{ exe\"", "R0140", ""),
    // Logic.
    (When, "{upload_ratio: {gte: §1.5}}", "R0210", ""),
    (When, "{bytes_out: {gt: {metric: bytes_out, times: 5}}}", "R0205", "floor"),
    (Match, "§dst.ip: 10.0.0.0/8, dst.scope: public", "R0210", ""),
    (Match, "§dst.port: 80, all: [{dst.port: 443}]", "R0210", ""),
    (Rule, "resolve: §{bytes_out: {lt: 5MB}}", "R0215", ""),
    (Rule, "§each: {}", "R0202", ""),
    (Alone, "rules: [{id: §a, match: {}}]", "R0201", "window"),
    (Alone, "rules: [{id: a, match: {}, when: {§bytes_out: {gte: 1MB}}}]", "R0203", "window"),
    (Alone, "rules: [{id: a, match: {}, each: {}}, {id: §a, match: {}, each: {}}]", "R0212", ""),
    (Alone, "macros: {m: {all: [§$m]}}", "R0225", ""),
    (Alone, "version: §2", "R0125", "version: 1"),
    (Alone, "rules: [{id: §Big_Name, match: {}, each: {}}]", "R0126", "big-name"),
    // The text itself.
    (Match, "exe: §*/rclone", "R0012", "\"*/rclone\""),
    (Match, "dst.domain: [§*.example.net]", "R0012", "\"*.example.net\""),
    (Rule, "title: §@here", "R0013", "\"@here\""),
    (Rule, "summary: §{{ exe }}", "R0011", "\"{{ exe }}\""),
    (Match, "dst.ip: [§2001:db8::, 10.0.0.1]", "R0018", "\"2001:db8::\""),
    (Rule, "title: a, §title: b", "R0003", ""),
    (Match, "dst.country: §NO", "R0014", "\"NO\""),
    (Alone, "a: &x {b: 1}\nrules:\n- §<<: *x", "R0007", "macro"),
    (Alone, "§capture: {source: auto}\noutputs: {}", "R0104", "--config"),
];

#[test]
fn every_mistake_is_found_where_it_stands() {
    let mut wrong = Vec::new();
    let mut suggested = 0;
    let mut typos = 0;
    for (place, marked, code, meant) in MISTAKES {
        let text = file(place, marked);
        let at = text.find('§');
        let clean = text.replace('§', "");
        let report = compile(vec![Source::new("rules.yaml", &clean)], &options()).report;
        let shown = render(&report, Format::Concise, Colour::Plain, 50);
        let found = report.diagnostics.iter().find(|found| found.code.id == *code);
        let Some(found) = found else {
            wrong.push(format!("{marked}: {code} is missing in\n{shown}"));
            continue;
        };
        if let Some(at) = at {
            let before = text.get(..at).unwrap();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            let position = (found.span.line as usize, found.span.column as usize);
            if position != (line, column) {
                wrong.push(format!("{marked}: {code} at {position:?} and not at {:?}", (line, column)));
            }
        }
        if !meant.is_empty() {
            typos += 1;
            if found.help.iter().any(|help| help.contains(meant)) {
                suggested += 1;
            } else {
                wrong.push(format!("{marked}: `{meant}` is not suggested in\n{shown}"));
            }
        }
    }
    assert!(MISTAKES.len() >= 100, "{} mistakes", MISTAKES.len());
    assert!(wrong.is_empty(), "{suggested} of {typos} suggested\n{}", wrong.join("\n"));
}

#[test]
fn the_files_without_a_mistake_are_clean() {
    for place in [Match, When, Rule, File] {
        let text = file(&place, if matches!(place, When) { "{bytes_out: {gte: 1MB}}" } else { "" });
        let report = compile(vec![Source::new("rules.yaml", text)], &options()).report;
        assert!(report.diagnostics.is_empty(), "{report}");
    }
}

#[test]
fn a_report_reads_like_this() {
    let text = "version: 1\nrules:\n  - id: cloud-upload\n    match:\n      exe: /usr/bin/rclone\n      dst.domian: \"*.example.net\"\n    window: 10m\n    when: {bytes_out: {gte: 500M}}\n  - id: rclone-any\n    match:\n      exe: */rclone\n      dst.ip: $interpreters\n    each: {}\n    exceptions:\n      - {name: nightly-backup, fields: [exe], values: [/usr/bin/restic], expires: 1969-04-22}\n";
    let report = compile(vec![Source::new("rules/20-cloud.yaml", text)], &options()).report;
    insta::assert_snapshot!(render(&report, Format::Full, Colour::Plain, 50));
}

fn options() -> Options {
    let outputs = Some(["soc-syslog", "soc-mail"].map(str::to_owned).into());
    Options { outputs, lint: Lint::Off, ..Options::default() }
}

fn file(place: &Place, text: &str) -> String {
    let head = "version: 1\nmacros: {external: {dst.scope: public, direction: outbound}}\nschedules: {office: {times: [\"07:00-19:00\"]}}\n";
    let rule = |matches: &str, when: &str, more: &str| {
        format!("{head}rules:\n  - {{id: base-rule, match: {{{matches}}}, window: 10m, when: {when}{more}}}\n")
    };
    let usual = "{bytes_out: {gte: 1MB}}";
    match place {
        Match => rule(text, usual, ""),
        When => rule("", text, ""),
        Rule if text.is_empty() => rule("", usual, ""),
        Rule => rule("", usual, &format!(", {text}")),
        // A file has each of its keys once.
        File if text.starts_with("schedules") => {
            format!("version: 1\n{text}\nrules:\n  - {{id: base-rule, match: {{}}, each: {{}}}}\n")
        }
        File => format!("{}{text}\n", rule("", usual, "")),
        Alone => format!("{text}\n"),
    }
}

/// What provokes the codes that the mistakes above do not: the code, and a file.
fn more_files() -> Vec<(&'static str, String)> {
    let rule =
        |more: &str| format!("rules: [{{id: a, match: {{}}, window: 10m, when: {{bytes_out: {{gte: 1MB}}}}{more}}}]\n");
    let matching = |block: &str| format!("rules: [{{id: a, match: {{{block}}}, each: {{}}}}]\n");
    let mut nested = String::from("{exe: /a}");
    (0..20).for_each(|_| nested = format!("{{not: {nested}}}"));
    vec![
        ("R0001", "rules: [a\n".to_owned()),
        ("R0002", "rules:\n\t- a\n".to_owned()),
        ("R0004", "[".repeat(100)),
        ("R0005", "#".repeat((8 << 20) + 1)),
        ("R0006", "rules: []\n---\nrules: []\n".to_owned()),
        ("R0008", "rules: &a [*a]\n".to_owned()),
        ("R0009", "rules: !!set {}\n".to_owned()),
        ("R0010", "rules: \0\n".to_owned()),
        ("R0017", "? [a]\n: b\n".to_owned()),
        ("R0019", "rules: [{id: a, match: {}, each: {}, title: :x}]\n".to_owned()),
        ("R0021", rule(", description: > 5MB")),
        ("R0021", "rules:\n  - id: a\n    title: > 5MB\n".to_owned()),
        ("R0100", String::new()),
        ("R0102", "rules: 5\n".to_owned()),
        ("R0103", "rules: [{match: {}, each: {}}]\n".to_owned()),
        ("R0118", rule(", attack: [T1002]")),
        ("R0122", "lists: {l: {type: cidr, file: nowhere.txt}}\n".to_owned()),
        ("R0124", "lists: {l: {type: cidr, file: damaged.txt}}\n".to_owned()),
        ("R0220", rule("").replace("10m", "40d")),
        ("R0226", matching(&format!("all: [{nested}]"))),
        ("R0230", rule(", exceptions: [{name: e, fields: [exe, user], values: [[/a]]}]")),
        ("R0401", format!("lists: {{l: {{type: exe, items: [/a]}}}}\n{}", rule(""))),
        ("R0402", format!("macros: {{m: {{exe: /a}}}}\n{}", rule(""))),
        ("R0403", format!("schedules: {{s: {{weekdays: [mon]}}}}\n{}", rule(""))),
        ("R0404", "lists: {l: {type: exe, items: [/a, /b, /a]}}\n".to_owned()),
        ("R0405", "lists: {l: {type: exe, items: [/b, /a]}}\n".to_owned()),
        ("R0411", rule(", exceptions: [{name: e, fields: [exe], values: [\"*\"]}]")),
        ("R0412", rule(", exceptions: [{name: e, fields: [exe], values: [/a], expires: 1969-01-01}]")),
        (
            "R0413",
            rule(
                ", exceptions: [{name: e, fields: [exe], values: [/a]}, {name: f, fields: [exe, user], values: [[/a, b]]}]",
            ),
        ),
        ("R0415", rule("")),
        ("R0421", matching("not: {dst.domain: example.net}")),
        ("R0425", rule(", tags: [exfiltration]").replace("bytes_out", "bytes_total")),
        ("R0430", rule(", group_by: [src.port]")),
        ("R0431", matching("cmdline: {regex: \"[a-z]+\"}")),
        ("R0432", matching("exe.name: \"curl*\"")),
        ("R0433", matching("exe: curl")),
        ("R0435", rule(", group_by: [dst.asn]")),
        ("R0440", rule("")),
        ("R0441", rule("")),
        ("R0445", rule("").replace("10m", "1s")),
        ("R0501", format!("{}tests: [{{name: t, rules: [b], flows: [], expect: []}}]\n", rule(""))),
    ]
}

/// What provokes the codes of the configuration and of failed tests, which no check of rules has.
fn elsewhere(folder: &Path) -> Vec<(&'static str, Vec<String>, String)> {
    let command = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let config = "check --format json --config FILE rules.yaml";
    let secret = folder.join("secret");
    std::fs::write(&secret, "s3cr3t").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let outputs = |output: &str| format!("outputs:\n  hook: {{{output}}}\n");
    let rules = "rules: [{id: a, match: {}, each: {}}]\ntests: [{name: t, rules: [a], flows: [{at: 0s, dst: \"203.0.113.1:1\"}], expect: [{never: firing}]}]\n";
    vec![
        ("R0502", command("test --output github FILE"), rules.to_owned()),
        ("R0601", command(config), "capture: {interfaces: 5}\n".to_owned()),
        (
            "R0602",
            command(config),
            outputs(&format!("type: webhook, url: \"https://hooks.example.org/a\", secret_file: {}", secret.display())),
        ),
        ("R0605", command(config), outputs("type: webhook, url: \"http://hooks.example.org/a\", allow_insecure: true")),
        (
            "R0610",
            command(config),
            outputs("type: slack, url: \"https://hooks.slack.example.org/a\", rate: {per_second: 50}"),
        ),
    ]
}

#[test]
fn every_code_can_be_provoked_and_says_more() {
    let read_file = |path: &str| match path {
        "damaged.txt" => Ok(b"10.0.0.0/8\nnonsense here\n".to_vec()),
        _ => Err("there is none".to_owned()),
    };
    let missing = [(egret::rule::Field::DstAsn, "a database".to_owned())].into();
    let options = Options { lint: Lint::On, read_file: std::sync::Arc::new(read_file), missing, ..options() };
    let mut provoked: std::collections::BTreeSet<&str> = MISTAKES.iter().map(|(_, _, code, _)| *code).collect();
    for (code, text) in more_files() {
        let report = compile(vec![Source::new("rules.yaml", &text)], &options).report;
        let found: Vec<&str> = report.diagnostics.iter().map(|found| found.code.id).collect();
        assert!(found.contains(&code), "{code} is not among {found:?} for\n{}", text.get(..200).unwrap_or(&text));
        provoked.insert(code);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), "rules: [{id: a, match: {}, each: {}}]\n").unwrap();
    for (code, arguments, text) in elsewhere(folder.path()) {
        let file = folder.path().join("file.yaml");
        std::fs::write(&file, &text).unwrap();
        let arguments = arguments.iter().map(|argument| argument.replace("FILE", file.to_str().unwrap()));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_egret"));
        let output = command.args(arguments).current_dir(folder.path()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            printed.contains(code),
            "{code} is not in {printed}{} for\n{text}",
            String::from_utf8_lossy(&output.stderr)
        );
        provoked.insert(code);
    }
    for code in egret::rule::catalogue::ALL {
        assert!(provoked.contains(code.id), "nothing provokes {} {}", code.id, code.name);
        assert!(code.explanation.len() > 40, "{} says little", code.id);
    }
}

#[test]
fn what_a_comment_allows_is_not_told() {
    let text = "rules:\n  - id: a\n    match: {}\n    # egret:allow R0430 every flow is looked at by itself\n    group_by: [src.port]\n    window: 10m\n    when: {bytes_out: {gte: 1MB}}\n";
    let found = |text: &str| {
        let options = Options { lint: Lint::On, ..options() };
        let report = compile(vec![Source::new("rules.yaml", text)], &options).report;
        report.diagnostics.iter().filter(|found| found.code.id == "R0430").count()
    };
    assert_eq!(found(text), 0);
    assert_eq!(found(&text.replace("R0430", "R0431")), 1);
    assert_eq!(found(&text.replace("R0430", "unbounded-group")), 0, "by its name as well");
}

#[test]
fn shadowed_exceptions_are_those_that_never_apply() {
    let shadowed = |exceptions: &str| {
        let text = format!("rules: [{{id: a, match: {{dst.port: 443}}, each: {{}}, exceptions: [{exceptions}]}}]\n");
        let options = Options { lint: Lint::On, ..options() };
        let report = compile(vec![Source::new("rules.yaml", text)], &options).report;
        assert!(!report.has_errors(), "{report}");
        report.diagnostics.iter().filter(|found| found.code.id == "R0413").count()
    };
    let wide = "{name: wide, fields: [exe], values: [/a, /b]}";
    assert_eq!(shadowed(&format!("{wide}, {{name: narrow, fields: [exe, user], values: [[/a, bob], [/b, eve]]}}")), 1);
    assert_eq!(shadowed(&format!("{wide}, {{name: other, fields: [exe, user], values: [[/a, bob], [/c, eve]]}}")), 0);
    assert_eq!(shadowed(&format!("{{name: narrow, fields: [exe, user], values: [[/a, bob]]}}, {wide}")), 0);
    let timed = "{name: timed, fields: [exe], values: [/a], budget: {bytes_out: 1GB, per: 1d}}";
    assert_eq!(
        shadowed(&format!("{timed}, {{name: more, fields: [exe], values: [/a]}}")),
        0,
        "above its budget the other applies"
    );
    assert_eq!(shadowed("{name: elsewhere, match: {dst.port: 80}}"), 1, "the rule looks at port 443 alone");
}

#[test]
fn what_takes_no_thought_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    let wrong = "version: 1\nlists:\n  tools: {type: exe, items: [/usr/bin/a, /usr/bin/b, /usr/bin/a]}\n  nets:\n    type: cidr\n    items:\n      - 10.0.0.0/8\n      - 10.0.0.0/8\n      - 10.1.2.3/16\n      - 9.0.0.0/8\n  names: {type: domain, items: [b.example, \"a.example\", .c.example, B.example.org]}\n  mine: {type: domain, items: [b.example, # the first one\n    a.example]}\nrules:\n  - id: a\n    severty: hgih\n    match: {exe: $tools, dst.ip: $nets, dst.domain: *.example.net}\n    window: 10min\n    when: {bytes_out: {gte: 500mb}}\n";
    std::fs::write(&file, wrong).unwrap();
    let check = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_egret"));
        command.arg("check").args(arguments).arg(&file).output().unwrap()
    };
    assert_eq!(check(&[]).status.code(), Some(1));
    let output = check(&["--fix"]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}\n{text}", String::from_utf8_lossy(&output.stdout));
    let right = wrong
        .replace(", /usr/bin/a]", "]")
        .replacen("\n      - 10.0.0.0/8", "", 1)
        .replace("10.1.2.3/16", "10.1.0.0/16")
        .replace(
            "      - 10.0.0.0/8\n      - 10.1.0.0/16\n      - 9.0.0.0/8",
            "      - 9.0.0.0/8\n      - 10.0.0.0/8\n      - 10.1.0.0/16",
        )
        .replace(
            "[b.example, \"a.example\", .c.example, B.example.org]",
            "[.c.example, \"a.example\", b.example, B.example.org]",
        )
        .replace("severty: hgih", "severity: high")
        .replace("*.example.net", "\"*.example.net\"")
        .replace("10min", "10m")
        .replace("500mb", "500MB");
    assert_eq!(text, right);
}
