//! The keys of rule files: one table, from which files are checked, mistakes
//! are corrected and the JSON Schema for editors is made.

use serde_json::{Map, Value as Json, json};

use crate::rule::kind::Kind;
use crate::rule::{Field, Metric};

/// The keys of one kind of mapping.
#[derive(Debug)]
pub struct Table {
    /// What it is, for messages: "a rule".
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// One line about it.
    pub doc: &'static str,
    /// What its value is.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Any text.
    Text,
    /// Words.
    Texts,
    /// A name of ours: letters, digits, `-`, `_`, `.`.
    Name,
    /// One name or several.
    Names,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `10m`.
    Duration,
    /// `500MB`.
    Size,
    /// A size, rate, number or ratio: whatever the metric has.
    Quantity,
    /// `2x`.
    Factor,
    /// `2026-12-31`.
    Date,
    /// One of these.
    Word(&'static [&'static str]),
    /// Flow fields.
    Fields,
    /// A metric's name.
    Metric,
    /// A match block.
    Match,
    /// Conditions on metrics.
    When,
    /// A mapping with these keys.
    Table(&'static Table),
    /// A list of mappings with these keys.
    List(&'static Table),
    /// Names, each with a mapping with these keys.
    Named(&'static Table),
    /// Names, each with a match block.
    Macros,
    /// Fields and top lists.
    Details,
    /// Anything.
    Any,
    /// A list of anything.
    Anything,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, doc, shape, required: false }
}

const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, doc, shape, required: true }
}

impl Table {
    /// The key of a name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of the keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.keys.iter().map(|key| key.name)
    }
}

/// The words for severities.
pub const SEVERITIES: &[&str] = &["info", "low", "medium", "high", "critical"];

/// How the oldest bucket of a window counts.
pub const EDGES: &[&str] = &["cover", "interpolate"];

/// A rule file.
pub static FILE: Table = Table {
    name: "a rule file",
    keys: &[
        key("version", Shape::Integer, "version of the rule language: 1"),
        key("pack", Shape::Table(&PACK), "what these rules belong to"),
        key("defaults", Shape::Table(&DEFAULTS), "values for the rules of this file that do not set their own"),
        key("lists", Shape::Named(&LIST), "named lists, used as `$name`"),
        key("macros", Shape::Macros, "named match blocks, used as `$name`"),
        key("schedules", Shape::Named(&SCHEDULE), "named times of the week"),
        key("rules", Shape::List(&RULE), "the rules"),
        key("exceptions", Shape::List(&EXCEPTION), "exceptions for several rules"),
        key("overrides", Shape::List(&OVERRIDE), "changes of rules and lists of other files"),
        key("tests", Shape::List(&TEST), "tests of rules, run by `egret test`"),
    ],
};

/// What rules belong to.
pub static PACK: Table = Table {
    name: "a pack",
    keys: &[
        required("name", Shape::Name, "the pack's name"),
        key("revision", Shape::Integer, "counts up with every change"),
        key("owner", Shape::Text, "who looks after it"),
        key("description", Shape::Text, "what it is for"),
    ],
};

/// Values for the rules of one file.
pub static DEFAULTS: Table = Table {
    name: "defaults",
    keys: &[
        key("status", Shape::Word(&["draft", "test", "stable", "deprecated"]), "how far the rules have come"),
        key("enabled", Shape::Boolean, "`false` switches the rules off"),
        key("severity", Shape::Word(SEVERITIES), "how bad a match is"),
        key("confidence", Shape::Word(&["low", "medium", "high"]), "how sure a match is"),
        key("tags", Shape::Texts, "free words"),
        key("references", Shape::Texts, "links, runbooks first"),
        key("owner", Shape::Text, "who looks after the rules"),
        key("note", Shape::Text, "what to do when one fires"),
        key("group_by", Shape::Fields, "what makes a group"),
        key("window", Shape::Duration, "length of the sliding window"),
        key("for", Shape::Duration, "how long the condition must hold before the alert fires"),
        key("keep_firing_for", Shape::Duration, "how long the alert stays after the condition last held"),
        key("cooldown", Shape::Duration, "how long a group stays quiet after it resolved"),
        key("no_data", Shape::Word(&["keep", "resolve", "alert"]), "what an alert does when its data stops"),
        key("realert", Shape::Table(&REALERT), "when a firing alert is said again"),
        key("active", Shape::Table(&ACTIVE), "when the rules are in force"),
        key("outputs", Shape::Names, "receivers beside those of the routing"),
        key("outputs_only", Shape::Boolean, "`true`: those receivers only"),
        key("group_wait", Shape::Duration, "how long notifications are gathered"),
        key("limits", Shape::Table(&LIMITS), "how much a rule may hold and say"),
    ],
};

/// One rule.
pub static RULE: Table = Table {
    name: "a rule",
    keys: &[
        required("id", Shape::Name, "unique name: lower-case letters, digits and `-`"),
        key("title", Shape::Text, "one line"),
        key("description", Shape::Text, "a paragraph"),
        key(
            "status",
            Shape::Word(&["draft", "test", "stable", "deprecated"]),
            "how far the rule has come; a draft is checked and not run",
        ),
        key("enabled", Shape::Boolean, "`false` switches the rule off"),
        key("severity", Shape::Word(SEVERITIES), "how bad a match is"),
        key("confidence", Shape::Word(&["low", "medium", "high"]), "how sure a match is"),
        key("tags", Shape::Texts, "free words"),
        key("attack", Shape::Texts, "ATT&CK technique ids"),
        key("references", Shape::Texts, "links, runbooks first"),
        key("owner", Shape::Text, "who looks after the rule"),
        key("note", Shape::Text, "what to do when it fires"),
        key("falsepositives", Shape::Texts, "what else looks like this"),
        required("match", Shape::Match, "which flows count at all"),
        key("group_by", Shape::Fields, "what makes a group; without it the whole host is one"),
        key("window", Shape::Duration, "length of the sliding window"),
        key("edge", Shape::Word(EDGES), "how the oldest bucket of a window counts: whole, or by its part inside"),
        key("when", Shape::When, "trigger: conditions on sums over the window; all must hold"),
        key("each", Shape::Table(&EACH), "trigger: every new matching flow"),
        key("first_seen", Shape::Table(&FIRST_SEEN), "trigger: a value that was not seen before"),
        key("baseline", Shape::Table(&BASELINE), "trigger: far from the group's own habit"),
        key("budget", Shape::Table(&BUDGET), "trigger: a quota of the calendar"),
        key("for", Shape::Duration, "how long the condition must hold before the alert fires"),
        key("keep_firing_for", Shape::Duration, "how long the alert stays after the condition last held"),
        key("resolve", Shape::When, "what must hold, too, for the alert to resolve"),
        key("no_data", Shape::Word(&["keep", "resolve", "alert"]), "what an alert does when its data stops"),
        key("cooldown", Shape::Duration, "how long a group stays quiet after it resolved"),
        key("realert", Shape::Table(&REALERT), "when a firing alert is said again"),
        key("escalate", Shape::List(&ESCALATE), "when a firing alert becomes more severe"),
        key("active", Shape::Table(&ACTIVE), "when the rule is in force"),
        key("outputs", Shape::Names, "receivers beside those of the routing"),
        key("outputs_only", Shape::Boolean, "`true`: those receivers only"),
        key("group_wait", Shape::Duration, "how long notifications are gathered"),
        key("summary", Shape::Text, "template of the alert's one line"),
        key("evidence", Shape::Table(&EVIDENCE), "what is kept beside an alert"),
        key("details", Shape::Details, "fields and top lists that the alert shows"),
        key("limits", Shape::Table(&LIMITS), "how much the rule may hold and say"),
        key("exceptions", Shape::List(&EXCEPTION), "flows that the rule lets pass"),
    ],
};

/// A list.
pub static LIST: Table = Table {
    name: "a list",
    keys: &[
        required("type", Shape::Word(LIST_TYPES), "what the items are"),
        key("items", Shape::Anything, "the items"),
        key("file", Shape::Text, "a file with more items, relative to this one"),
        key("reload", Shape::Boolean, "read the file again when it changes"),
        key("max_items", Shape::Integer, "refuse a file with more items"),
        key("description", Shape::Text, "what it holds"),
    ],
};

/// The types of lists.
pub const LIST_TYPES: &[&str] =
    &["cidr", "ip", "domain", "exe", "path", "text", "string", "number", "port", "asn", "user"];

/// A schedule.
pub static SCHEDULE: Table = Table {
    name: "a schedule",
    keys: &[
        key("tz", Shape::Text, "time zone: `Local`, `UTC` or a name such as Europe/Berlin"),
        key("weekdays", Shape::Texts, "`mon-fri`, `sat`; all days without"),
        key("times", Shape::Texts, "`07:00-19:00`; `22:00-06:00` runs into the next day; all day without"),
        key("days_of_month", Shape::Texts, "`1`, `1-7`, `-1` for the last day; all days without"),
        key("months", Shape::Texts, "`december`, `6-8`; all months without"),
        key("years", Shape::Texts, "`2026`, `2026-2028`; all years without"),
        key("holidays", Shape::Texts, "dates on which it never holds"),
        key("description", Shape::Text, "what it is for"),
    ],
};

/// The trigger `each`.
pub static EACH: Table = Table { name: "`each`", keys: &[] };

/// The trigger `first_seen`.
pub static FIRST_SEEN: Table = Table {
    name: "`first_seen`",
    keys: &[
        required("of", Shape::Fields, "the tuple of fields whose value is new"),
        key("per", Shape::Fields, "apart for each of these"),
        required("lookback", Shape::Duration, "what was not seen for this long counts as new"),
        key("learn", Shape::Duration, "for this long after the rule was first loaded it only learns"),
        key("min", Shape::Any, "fires only once the new tuple matters: `{bytes_out: {gte: 10MB}, within: 30m}`"),
    ],
};

/// The trigger `baseline`.
pub static BASELINE: Table = Table {
    name: "`baseline`",
    keys: &[
        required("metric", Shape::Metric, "what is measured over one bucket"),
        key("bucket", Shape::Duration, "length of a bucket: 1h"),
        key("history", Shape::Duration, "how far back the habit reaches: 14d"),
        key("season", Shape::Word(&["none", "hour_of_day", "hour_of_week"]), "which buckets are compared"),
        key("method", Shape::Word(&["mad", "ewma", "quantile"]), "how the habit is estimated"),
        key("above", Shape::Number, "how many deviations are too many; for `quantile` the quantile"),
        required("floor", Shape::Quantity, "never fires below this"),
        key("ceiling", Shape::Quantity, "always fires above this"),
        key("min_history", Shape::Duration, "a group known for less does not fire"),
        key("learn_while_firing", Shape::Boolean, "whether firing buckets become part of the habit"),
    ],
};

/// The trigger `budget`.
pub static BUDGET: Table = Table {
    name: "`budget`",
    keys: &[
        required("metric", Shape::Metric, "what is measured"),
        required("per", Shape::Word(&["hour", "day", "week", "month"]), "the period of the calendar"),
        key("tz", Shape::Text, "its time zone: `Local`, `UTC` or a name"),
        required("limit", Shape::Quantity, "how much"),
        key("notify_at", Shape::Texts, "shares of the limit at which it speaks: `[50%, 80%, 100%]`"),
    ],
};

/// When a firing alert is said again.
pub static REALERT: Table = Table {
    name: "`realert`",
    keys: &[
        key("every", Shape::Duration, "after this time"),
        key("on_growth", Shape::Factor, "when its first value has grown by this factor"),
        key("max_every", Shape::Duration, "`every` doubles up to this"),
    ],
};

/// A step of escalation.
pub static ESCALATE: Table = Table {
    name: "`escalate`",
    keys: &[
        required("when", Shape::When, "conditions that must hold"),
        key("severity", Shape::Word(SEVERITIES), "the new severity"),
        key("outputs", Shape::Names, "further receivers"),
    ],
};

/// When a rule is in force.
pub static ACTIVE: Table = Table {
    name: "`active`",
    keys: &[
        key("during", Shape::Names, "only during one of these schedules"),
        key("except", Shape::Names, "never during one of these schedules"),
    ],
};

/// What is kept beside an alert.
pub static EVIDENCE: Table = Table {
    name: "`evidence`",
    keys: &[required("pcap", Shape::Duration, "a file with the headers of the group's packets of the last 30s")],
};

/// How much a rule may hold and say.
pub static LIMITS: Table = Table {
    name: "`limits`",
    keys: &[
        key("max_groups", Shape::Integer, "groups held at once"),
        key("max_alerts", Shape::Table(&MAX_ALERTS), "alerts said within a time"),
    ],
};

/// A cap of alerts.
pub static MAX_ALERTS: Table = Table {
    name: "`max_alerts`",
    keys: &[required("count", Shape::Integer, "how many"), required("per", Shape::Duration, "within which time")],
};

/// An exception.
pub static EXCEPTION: Table = Table {
    name: "an exception",
    keys: &[
        required("name", Shape::Name, "its name"),
        key("fields", Shape::Fields, "what a value names"),
        key("operators", Shape::Texts, "an operator for each field; without, the meaning of a bare value"),
        key("values", Shape::Anything, "tuples: one value for each field"),
        key("match", Shape::Match, "flows to let pass, instead of fields and values"),
        key("applies_to", Shape::Names, "rule ids or tags; for shared exceptions"),
        key("during", Shape::Name, "only during this schedule"),
        key("budget", Shape::Table(&EXCEPTION_BUDGET), "above this it stops applying"),
        key("owner", Shape::Text, "who asked for it"),
        key("reason", Shape::Text, "why it was given"),
        key("expires", Shape::Date, "the last day on which it applies"),
    ],
};

/// The budget of an exception: a metric with its limit, and `per`.
pub static EXCEPTION_BUDGET: Table = Table {
    name: "the budget of an exception",
    keys: &[
        key("bytes_out", Shape::Size, "bytes sent"),
        key("bytes_in", Shape::Size, "bytes received"),
        key("bytes_total", Shape::Size, "bytes both ways"),
        key("payload_out", Shape::Size, "payload sent"),
        key("payload_in", Shape::Size, "payload received"),
        key("payload_total", Shape::Size, "payload both ways"),
        key("connections", Shape::Integer, "flows opened"),
        required("per", Shape::Duration, "within which time"),
    ],
};

/// An override.
pub static OVERRIDE: Table = Table {
    name: "an override",
    keys: &[
        key("rule", Shape::Name, "the rule to change"),
        key("list", Shape::Name, "the list to change"),
        key("tag", Shape::Text, "all rules with this tag"),
        key("set", Shape::Any, "paths and their new values: `when.0.bytes_out.gte: 200MB`"),
        key("append", Shape::Any, "paths of lists, and what is added to them"),
        key("reason", Shape::Text, "why"),
    ],
};

/// A test of rules.
pub static TEST: Table = Table {
    name: "a test",
    keys: &[
        required("name", Shape::Text, "what it shows"),
        required("rules", Shape::Names, "the rules under test"),
        key("start", Shape::Text, "the moment at which it starts"),
        key("base", Shape::Any, "fields that all flows share"),
        required("flows", Shape::Anything, "what happens: fields, bytes, when and how often"),
        key("gaps", Shape::Anything, "times without data: `{from: 6m, to: 8m}`"),
        required("expect", Shape::Anything, "what must come of it"),
        key("unexpected", Shape::Word(&["fail", "ignore"]), "whether any other alert fails the test"),
    ],
};

/// The JSON Schema (draft 2020-12) of rule files, for editors.
pub fn json_schema() -> Json {
    let mut schema = table_schema(&FILE);
    let fields: Map<String, Json> = Field::ALL
        .iter()
        .map(|field| (field.name().to_owned(), field_schema(*field)))
        .chain([
            (
                "all".to_owned(),
                json!({ "description": "every one of these", "type": "array", "items": reference("match") }),
            ),
            (
                "any".to_owned(),
                json!({ "description": "at least one of these", "type": "array", "items": reference("match") }),
            ),
            ("not".to_owned(), json!({ "description": "the exact negation", "allOf": [reference("match")] })),
        ])
        .collect();
    let metrics: Vec<String> = Metric::all().iter().map(ToString::to_string).collect();
    let conditions: Map<String, Json> = Metric::all()
        .iter()
        .map(|metric| (metric.to_string(), described(reference("comparison"), metric.description())))
        .chain([
            ("window".to_owned(), described(reference("duration"), "a window of its own")),
            ("min_bytes".to_owned(), described(reference("size"), "ratios are undefined below this")),
            ("floor".to_owned(), described(json!({ "type": ["string", "number"] }), "never holds below this")),
            ("any".to_owned(), described(reference("when"), "at least one of these")),
            ("all".to_owned(), described(reference("when"), "every one of these")),
        ])
        .collect();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Egret rule file");
    schema["$defs"] = json!({
        "match": { "anyOf": [
            { "type": "string", "pattern": "^\\$", "description": "a macro" },
            { "type": "object", "properties": fields, "additionalProperties": false },
        ]},
        "field": { "enum": Field::ALL.iter().map(|field| field.name()).collect::<Vec<_>>() },
        "metric": { "enum": metrics },
        "comparison": comparison_schema(),
        "conditions": { "type": "object", "properties": conditions, "additionalProperties": false },
        "when": { "anyOf": [
            { "type": "array", "items": reference("conditions"), "minItems": 1 },
            reference("conditions"),
        ], "examples": [[{ "bytes_out": { "gte": "500MB" } }]] },
        "duration": { "type": ["string", "integer"], "pattern": "^([0-9]+(ms|s|m|h|d|w))+$|^0$", "examples": ["10m", "1h30m"] },
        "size": { "type": ["string", "integer"], "examples": ["500MB", "2GiB"] },
    });
    schema
}

/// What a metric is compared with: a limit, two of them, or the same metric of another time.
fn comparison_schema() -> Json {
    let limit = json!({ "type": ["string", "number"] });
    let past = json!({
        "type": "object",
        "description": "another time: `{metric: bytes_out, window: 24h, offset: 24h, times: 5, floor: 50MB}`",
        "properties": {
            "metric": reference("metric"),
            "window": reference("duration"),
            "offset": reference("duration"),
            "times": { "type": ["string", "number"] },
            "floor": limit,
        },
        "additionalProperties": false,
    });
    let one = json!({ "anyOf": [limit, past] });
    let mut properties: Map<String, Json> =
        ["gte", "gt", "lte", "lt", "eq", "ne"].map(|operator| (operator.to_owned(), one.clone())).into_iter().collect();
    properties.insert("between".to_owned(), json!({ "type": "array", "items": limit, "minItems": 2, "maxItems": 2 }));
    properties.insert("floor".to_owned(), limit);
    json!({ "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1 })
}

fn described(mut schema: Json, text: &str) -> Json {
    schema["description"] = json!(text);
    schema
}

fn table_schema(table: &Table) -> Json {
    let properties: Map<String, Json> = table
        .keys
        .iter()
        .map(|key| {
            let mut schema = shape_schema(key.shape);
            schema["description"] = json!(key.doc);
            schema["markdownDescription"] = json!(key.doc);
            (key.name.to_owned(), schema)
        })
        .collect();
    let needed: Vec<&str> = table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !needed.is_empty() {
        schema["required"] = json!(needed);
    }
    schema
}

fn shape_schema(shape: Shape) -> Json {
    match shape {
        Shape::Text | Shape::Factor => json!({ "type": ["string", "number"] }),
        Shape::Texts => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number"] } }] })
        }
        Shape::Name => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_.-]*$" }),
        Shape::Names => json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer => json!({ "type": "integer", "minimum": 0 }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Duration => reference("duration"),
        Shape::Size => reference("size"),
        Shape::Quantity => json!({ "type": ["string", "number"] }),
        Shape::Date => json!({ "type": "string", "format": "date" }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Fields => json!({ "anyOf": [reference("field"), { "type": "array", "items": reference("field") }] }),
        Shape::Metric => reference("metric"),
        Shape::Match => reference("match"),
        Shape::When => reference("when"),
        Shape::Table(table) => table_schema(table),
        Shape::List(table) => json!({ "type": "array", "items": table_schema(table) }),
        Shape::Named(table) => json!({ "type": "object", "additionalProperties": table_schema(table) }),
        Shape::Macros => json!({ "type": "object", "additionalProperties": reference("match") }),
        Shape::Any => json!({}),
        Shape::Details => json!({ "type": "array", "items": { "anyOf": [
            reference("field"),
            { "type": "object", "properties": { "top": reference("field"), "n": { "type": "integer", "minimum": 1 } },
              "required": ["top"], "additionalProperties": false },
        ]}}),
        Shape::Anything => json!({ "type": "array" }),
    }
}

fn field_schema(field: Field) -> Json {
    let kind = field.kind();
    let scalar = match kind {
        Kind::Word(words) => json!({ "type": "string", "examples": words }),
        Kind::Port | Kind::Number | Kind::User | Kind::Protocol => json!({ "type": ["string", "integer"] }),
        _ => json!({ "type": ["string", "number"] }),
    };
    let operators: Map<String, Json> = kind
        .operators()
        .into_iter()
        .map(|operator| (operator.name.to_owned(), json!({ "description": operator.description })))
        .chain((kind.operators().iter().any(|operator| operator.name == "regex")).then(|| {
            (
                "full".to_owned(),
                json!({ "type": "boolean", "description": "the expression must match the whole value" }),
            )
        }))
        .collect();
    let description = match field.needs() {
        Some(needs) => format!("{} (needs {needs})", field.description()),
        None => field.description().to_owned(),
    };
    json!({
        "description": description,
        "anyOf": [scalar, { "type": "array", "items": scalar }, { "type": "object", "properties": operators, "additionalProperties": false }],
    })
}

fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Severity;

    #[test]
    fn the_schema_knows_every_key_of_a_rule() {
        let schema = json_schema();
        let rule = &schema["properties"]["rules"]["items"];
        for key in RULE.keys {
            assert!(rule["properties"][key.name].is_object(), "{}", key.name);
        }
        assert_eq!(rule["required"], json!(["id", "match"]));
        assert_eq!(rule["additionalProperties"], json!(false));
        assert!(schema["$defs"]["match"]["anyOf"][1]["properties"]["dst.domain"].is_object());
    }

    #[test]
    fn severities_are_those_of_the_program() {
        assert_eq!(SEVERITIES, Severity::ALL.map(Severity::name));
    }
}
