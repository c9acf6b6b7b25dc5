//! `egret why`: the buckets that made an alert.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

use crate::cli::args::OutputFormat;
use crate::cli::client::{moment, text};
use crate::cli::exit::Exit;
use crate::cli::windows::{group, quantity};
use crate::store::journal;
use crate::time::Timestamp;

/// What `egret why` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The alert's uid or key, or the beginning of one
    #[arg(value_name = "ALERT")]
    alert: String,
    /// State directory of the program that raised it, running or not
    #[arg(long, value_name = "DIR", env = "EGRET_STATE_DIR", default_value = "/var/lib/egret")]
    state_dir: PathBuf,
    /// Look in a file of alerts instead: JSON lines, as `egret replay` and outputs of type `file` write them
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A bucket of the window.
struct Bucket {
    from: Timestamp,
    to: Timestamp,
    value: u64,
    /// The window's sum up to its end.
    sum: u64,
}

/// Why an alert fired.
struct Answer<'a> {
    alert: &'a Json,
    /// What the buckets hold.
    metric: String,
    buckets: Vec<Bucket>,
    /// The bucket in which the sum reached the limit.
    crossed: Option<usize>,
}

/// Finds the alert and shows what it was made of.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.alert.is_empty() {
        bail!("an alert is named by its uid or its key");
    }
    let documents = match &arguments.journal {
        Some(path) => documents(path, &arguments.alert)?,
        None => {
            let lines = journal::documents(&arguments.state_dir, &arguments.alert)?;
            lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
        }
    };
    let Some(document) = of_alert(&documents, &arguments.alert)? else {
        bail!("there is no alert `{}`", arguments.alert);
    };
    let answer = Answer::of(&document["data"]);
    let mut out = anstream::stdout().lock();
    match arguments.output {
        OutputFormat::Json => writeln!(out, "{}", answer.json())?,
        OutputFormat::Text => answer.write(&mut out)?,
    }
    Ok(Exit::Fine)
}

/// The lines of a file that are about such an alert.
fn documents(path: &Path, beginning: &str) -> anyhow::Result<Vec<Json>> {
    let failed = || format!("cannot read alerts from `{}`", path.display());
    let reader: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).with_context(failed)?),
    };
    let mut found = Vec::new();
    for line in BufReader::new(reader).lines() {
        let Ok(document) = serde_json::from_str::<Json>(&line.with_context(failed)?) else { continue };
        // Outputs send several alerts as one document, too.
        let inner = document["data"]["alerts"].as_array().cloned();
        found.extend(inner.unwrap_or_else(|| vec![document]).into_iter().filter(|one| names(one, beginning)));
    }
    Ok(found)
}

fn names(document: &Json, beginning: &str) -> bool {
    let state = &document["data"]["alert"];
    ["uid", "key"].iter().any(|field| state[*field].as_str().is_some_and(|text| text.starts_with(beginning)))
}

/// The document in which the last of these alerts began to fire, or its last one where that is gone.
fn of_alert<'a>(documents: &'a [Json], beginning: &str) -> anyhow::Result<Option<&'a Json>> {
    let named: Vec<&Json> = documents.iter().filter(|document| names(document, beginning)).collect();
    let mut keys: Vec<&str> = named.iter().filter_map(|document| document["data"]["alert"]["key"].as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > 1 {
        let shown: Vec<String> = keys.iter().take(5).map(crate::escape::one_line).collect();
        bail!("`{beginning}` is the beginning of several alerts: {}", shown.join(", "));
    }
    let fired = named.iter().rev().find(|document| document["type"] == "alert.firing");
    Ok(fired.or(named.last()).copied())
}

impl<'a> Answer<'a> {
    fn of(alert: &'a Json) -> Self {
        let window = &alert["window"];
        let end: Timestamp = window["end"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let width = std::time::Duration::from_secs(window["max_extra_s"].as_u64().unwrap_or(1).max(1));
        let series: Vec<u64> = alert["series"].as_array().into_iter().flatten().filter_map(Json::as_u64).collect();
        let mut sum = 0u64;
        let last = end.floor_to(width);
        // The newest bucket is the one that is being filled; where the end lies on the grid it has just ended.
        let newest_end = if last == end { end } else { last.after(width) };
        let buckets: Vec<Bucket> = series
            .iter()
            .enumerate()
            .map(|(place, value)| {
                sum = sum.saturating_add(*value);
                let behind = u32::try_from(series.len() - 1 - place).unwrap_or(u32::MAX);
                let to = newest_end.before(width.saturating_mul(behind));
                Bucket { from: to.before(width), to: to.min(end), value: *value, sum }
            })
            .collect();
        let metric = buckets_of(alert);
        let limit = conditions(alert)
            .iter()
            .find(|condition| condition["metric"] == metric.as_str() && is_lower(condition))
            .and_then(|condition| condition["limit"].as_u64());
        let crossed = limit.and_then(|limit| buckets.iter().position(|bucket| bucket.sum >= limit));
        Self { alert, metric, buckets, crossed }
    }

    fn json(&self) -> Json {
        let state = &self.alert["alert"];
        let buckets: Vec<Json> = self
            .buckets
            .iter()
            .map(|bucket| json!({ "from": bucket.from, "to": bucket.to, "value": bucket.value, "sum": bucket.sum }))
            .collect();
        json!({
            "uid": state["uid"],
            "key": state["key"],
            "rule": self.alert["rule"]["id"],
            "group": self.alert["group"],
            "started_at": state["started_at"],
            "fired_at": state["fired_at"],
            "window": self.alert["window"],
            "conditions": self.alert["conditions"],
            "excluded": self.alert["excluded"],
            "coverage": state["coverage"],
            "approximate": state["approximate"],
            "metric": self.metric,
            "buckets": buckets,
            "crossed_in": self.crossed.and_then(|place| buckets.get(place)),
        })
    }

    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let (alert, state) = (self.alert, &self.alert["alert"]);
        let bold = Style::new().bold();
        writeln!(out, "{bold}{}{bold:#}", text(alert, "summary"))?;
        writeln!(out, "  rule    {}", text(&alert["rule"], "id"))?;
        writeln!(out, "  group   {}", group(&alert["group"]))?;
        writeln!(out, "  began   {}, fired {}", moment(state, "started_at"), moment(state, "fired_at"))?;
        for condition in conditions(alert) {
            let metric = text(&condition, "metric");
            let (value, limit) = (quantity(&metric, &condition["value"]), quantity(&metric, &condition["limit"]));
            let held = if condition["met"] == true { "because" } else { "but not" };
            writeln!(out, "  {held} {metric} was {value}, and the rule asks for {} {limit}", sign(&condition))?;
        }
        let excluded = alert["excluded"]["bytes_out"].as_u64().unwrap_or(0);
        if excluded > 0 {
            writeln!(out, "  beside  {} that exceptions hid", crate::units::Bytes(excluded))?;
        }
        if state["approximate"] == true {
            writeln!(out, "  the values are upper bounds: the rule held too many groups")?;
        }
        if let Some(coverage) = state["coverage"].as_f64().filter(|coverage| *coverage < 0.999) {
            writeln!(out, "  only {:.1} % of the traffic was seen", coverage * 100.0)?;
        }
        if self.buckets.is_empty() {
            return writeln!(out, "\nthe document has no buckets");
        }
        self.write_buckets(out)
    }

    fn write_buckets(&self, out: &mut impl Write) -> std::io::Result<()> {
        let most = self.buckets.iter().map(|bucket| bucket.value).max().unwrap_or(0).max(1);
        writeln!(out, "\n  {:20} {:>10} {:>10}", "until", self.metric, "in window")?;
        let mut quiet = 0;
        for (place, bucket) in self.buckets.iter().enumerate() {
            let crossed = self.crossed == Some(place);
            if bucket.value == 0 && !crossed {
                quiet += 1;
                continue;
            }
            if quiet > 0 {
                writeln!(out, "  ... {quiet} buckets without traffic")?;
            }
            quiet = 0;
            let length = usize::try_from(bucket.value.saturating_mul(BAR) / most).unwrap_or(0).max(1);
            let red = AnsiColor::Red.on_default().bold();
            let mark = if crossed { format!("  {red}<- the limit is reached{red:#}") } else { String::new() };
            writeln!(
                out,
                "  {:20} {:>10} {:>10}  {}{mark}",
                bucket.to.to_string().get(..19).unwrap_or_default().replace('T', " "),
                quantity(&self.metric, &json!(bucket.value)),
                quantity(&self.metric, &json!(bucket.sum)),
                "#".repeat(length),
            )?;
        }
        if quiet > 0 {
            writeln!(out, "  ... {quiet} buckets without traffic")?;
        }
        Ok(())
    }
}

fn conditions(alert: &Json) -> Vec<Json> {
    alert["conditions"].as_array().cloned().unwrap_or_default()
}

fn sign(condition: &Json) -> &'static str {
    match condition["op"].as_str() {
        Some("gt") => ">",
        Some("gte") => ">=",
        Some("lt") => "<",
        Some("lte") => "<=",
        Some("eq") => "=",
        Some("ne") => "other than",
        _ => "at least",
    }
}

fn is_lower(condition: &Json) -> bool {
    matches!(condition["op"].as_str(), Some("gt" | "gte"))
}

/// What the buckets hold: the first sum that the rule asks for, of a total its outbound half, else connections.
fn buckets_of(alert: &Json) -> String {
    let sum = |condition: &Json| {
        let name = condition["metric"].as_str()?;
        let name = name.trim_start_matches("peak(").trim_end_matches(')').trim_end_matches(".rate");
        let known = SUMS.iter().find(|(written, _)| *written == name)?;
        Some(known.1.to_owned())
    };
    conditions(alert).iter().find_map(sum).unwrap_or_else(|| "connections".to_owned())
}

/// Sums of the rule language, and what the first column of their buckets is.
const SUMS: &[(&str, &str)] = &[
    ("bytes_out", "bytes_out"),
    ("bytes_in", "bytes_in"),
    ("bytes_total", "bytes_out"),
    ("payload_out", "payload_out"),
    ("payload_in", "payload_in"),
    ("payload_total", "payload_out"),
    ("packets_out", "packets_out"),
    ("packets_in", "packets_in"),
    ("packets_total", "packets_out"),
];
const BAR: u64 = 40;
