//! One rule: its match, its trigger, its life, its exceptions.

use std::sync::Arc;
use std::time::Duration;

use crate::rule::catalogue as code;
use crate::rule::compile::keys::Keys;
use crate::rule::compile::matching::{all_of, any_of};
use crate::rule::compile::{Compiler, Item, Lowered};
use crate::rule::diagnose::{Diagnostic, Span};
use crate::rule::literal;
use crate::rule::schema;
use crate::rule::technique;
use crate::rule::yaml::{Entry, Node, Yaml};
use crate::rule::{
    AlertCap, Baseline, Budget, Clause, Comparison, Condition, Confidence, Detail, Edge, Escalation, Exception,
    ExceptionBudget, Field, FirstSeen, Life, Limits, Metadata, Method, Metric, NoData, Period, Presentation, Realert,
    Rule, RuleStatus, Season, Severity, Summary, Threshold, Trigger, When,
};
use crate::time::Timestamp;

impl Compiler<'_> {
    /// Tells of ids that two rules have.
    pub(super) fn check_rule_names(&mut self) {
        let mut seen: std::collections::HashMap<String, Span> = std::collections::HashMap::new();
        let ids: Vec<(String, Span)> = self
            .rules
            .iter()
            .filter_map(|item| item.node.child("id"))
            .filter_map(|id| Some((id.text()?.to_owned(), id.span)))
            .collect();
        for (id, span) in ids {
            match seen.get(&id) {
                Some(first) => {
                    let first = *first;
                    self.rule = Some(id.as_str().into());
                    self.complain_double("rule", &id, span, first);
                    self.rule = None;
                }
                None => {
                    seen.insert(id, span);
                }
            }
        }
    }

    pub(super) fn lower_rule(&mut self, item: &Item, shared: &[Item]) {
        let node = self.with_defaults(item);
        let span = node.child("id").map_or(node.span, |id| id.span);
        let written = node.child("id").and_then(Node::text).unwrap_or("(without id)").to_owned();
        let id: Arc<str> = written.as_str().into();
        self.rule = Some(id.clone());
        let doubled = self.lowered.iter().any(|lowered| lowered.id == id);
        let before = self.errors();
        let lowered = self.rule_of(&node, &id, item.source, shared);
        let rule = lowered.filter(|_| self.errors() == before && !doubled);
        let draft = rule.as_ref().is_some_and(|rule| rule.metadata.status == RuleStatus::Draft);
        let enabled = node.child("enabled").and_then(Node::boolean).unwrap_or(true);
        self.rule = None;
        self.lowered.push(Lowered { id, span, node, rule: rule.map(Arc::new), runs: enabled && !draft });
    }

    /// The rule's tree, with what its file's defaults add.
    fn with_defaults(&self, item: &Item) -> Node {
        let mut node = item.node.clone();
        let root = self.roots.iter().find(|(source, _)| *source == item.source);
        let defaults = root.and_then(|(_, root)| root.child("defaults")).and_then(Node::entries).unwrap_or_default();
        let added: Vec<Entry> = defaults
            .iter()
            .filter(|default| {
                schema::DEFAULTS.key(&default.key.text).is_some() && node.entry(&default.key.text).is_none()
            })
            .cloned()
            .collect();
        // A window that no condition asks for would only confuse.
        let has_when = node.entry("when").is_some();
        if let Yaml::Mapping(entries) = &mut node.value {
            entries.extend(added.into_iter().filter(|entry| has_when || entry.key.text != "window"));
        }
        node
    }

    fn rule_of(&mut self, node: &Node, id: &Arc<str>, source: u32, shared: &[Item]) -> Option<Rule> {
        let keys = Keys::open(self, node, &schema::RULE)?;
        if let Some(node) = keys.get("id") {
            let text = self.text(node)?.to_owned();
            self.check_name(&text, node.span, "rule");
        }
        if let Some(node) = keys.get("enabled") {
            self.boolean(node);
        }
        let metadata = self.metadata(&keys, id, source);
        let condition = keys.get("match").and_then(|node| self.condition(node, 0));
        if let (Some(condition), Some(node)) = (&condition, keys.get("match")) {
            self.check_satisfiable(condition, node);
        }
        let group_by = keys.get("group_by").map(|node| self.fields(node)).unwrap_or_default();
        let window = match keys.get("window") {
            Some(node) => self.window(node),
            None => None,
        };
        let trigger = self.trigger(node, &keys, window);
        let life = self.life(&keys, window, trigger.as_ref());
        if let (Some(trigger), Some(node)) = (&trigger, keys.get("for")) {
            self.check_pending(trigger, life.pending_for, node.span);
        }
        let active = keys.get("active").map(|node| self.active(node)).unwrap_or_default();
        let presentation = self.presentation(&keys);
        let limits = self.limits(keys.get("limits"));
        let keep_packets = self.evidence(keys.get("evidence"));
        let outputs = self.outputs(keys.get("outputs"));
        let outputs_only = keys.get("outputs_only").and_then(|node| self.boolean(node)).unwrap_or(false);
        let group_wait = keys.get("group_wait").and_then(|node| self.duration(node));
        let mut exceptions = Vec::new();
        let mut places = Vec::new();
        let own = keys.get("exceptions").filter(|list| !list.is_null()).and_then(|list| self.expect_list(list));
        let shared = shared.iter().map(|item| &item.node).filter(|node| self.applies(node, &metadata));
        for element in own.unwrap_or_default().iter().chain(shared.collect::<Vec<_>>()) {
            if let Some(exception) = self.exception(element) {
                exceptions.push(Arc::new(exception));
                places.push(element.child("name").map_or(element.span, |name| name.span));
            }
        }
        self.exception_places.insert(id.clone(), places);
        if let Some(more) = exceptions.get(MAX_EXCEPTIONS) {
            let span = keys.get("exceptions").map_or(node.span, |node| node.span);
            let message = format!("`{}` is one exception too many: a rule has at most {MAX_EXCEPTIONS}", more.name);
            let found = Diagnostic::new(&code::EXCEPTION_SHAPE, Span { end: span.start + 1, ..span }, message);
            self.push(found.help("an exception has as many `values` as it needs"));
            return None;
        }
        let (condition, trigger) = (condition?, trigger?);
        let fingerprint = self.fingerprint(node, &group_by, &trigger);
        Some(Rule {
            metadata: Arc::new(metadata),
            condition,
            exceptions,
            active,
            fingerprint,
            group_by,
            trigger,
            life,
            limits,
            presentation,
            keep_packets,
            group_wait,
            outputs,
            outputs_only,
        })
    }

    fn metadata(&mut self, keys: &Keys<'_>, id: &Arc<str>, source: u32) -> Metadata {
        let line = |compiler: &mut Self, key: &str| {
            keys.get(key).and_then(|node| compiler.text(node)).map(|text| text.trim().to_owned())
        };
        let lines = |compiler: &mut Self, key: &str| -> Vec<String> {
            keys.get(key)
                .map(|node| compiler.texts(node))
                .unwrap_or_default()
                .into_iter()
                .map(|(text, _)| text)
                .collect()
        };
        let attack = keys.get("attack").map(|node| self.texts(node)).unwrap_or_default();
        for (technique, span) in &attack {
            self.check_technique(technique, *span);
        }
        let word = |compiler: &mut Self, key: &str| {
            let table = schema::RULE.key(key)?;
            let schema::Shape::Word(words) = table.shape else { return None };
            compiler.word(keys.get(key)?, words)
        };
        let status = match word(self, "status") {
            Some("draft") => RuleStatus::Draft,
            Some("test") => RuleStatus::Test,
            Some("deprecated") => RuleStatus::Deprecated,
            _ => RuleStatus::Stable,
        };
        let confidence = match word(self, "confidence") {
            Some("low") => Confidence::Low,
            Some("high") => Confidence::High,
            _ => Confidence::Medium,
        };
        let severity = word(self, "severity").and_then(severity_of).unwrap_or_default();
        // Only this part: a copy of a whole file for each of its rules makes thousands of them take minutes.
        let root = self.roots.iter().find(|(index, _)| *index == source);
        let pack = root.and_then(|(_, root)| root.child("pack")).cloned();
        let pack_text = |key: &str| pack.as_ref().and_then(|pack| pack.child(key)).and_then(Node::text);
        lines(self, "falsepositives");
        let title = line(self, "title").unwrap_or_else(|| id.to_string());
        Metadata {
            id: id.clone(),
            title,
            description: line(self, "description").unwrap_or_default(),
            status,
            severity,
            confidence,
            tags: lines(self, "tags"),
            attack: attack.into_iter().map(|(technique, _)| technique).collect(),
            references: lines(self, "references"),
            owner: line(self, "owner").or_else(|| pack_text("owner").map(str::to_owned)),
            note: line(self, "note"),
            pack: pack_text("name").map(str::to_owned),
            revision: pack_text("revision").and_then(|revision| revision.parse().ok()),
        }
    }

    fn check_technique(&mut self, id: &str, span: Span) {
        match technique::find(id) {
            Some(known) if known.current => {}
            Some(known) => {
                let found =
                    Diagnostic::new(&code::OLD_TECHNIQUE, span, format!("ATT&CK no longer has {id} ({})", known.name));
                self.push(found);
            }
            None => {
                let upper = id.trim_start_matches("attack.").to_ascii_uppercase();
                let mut found =
                    Diagnostic::new(&code::UNKNOWN_TECHNIQUE, span, format!("ATT&CK has no technique `{id}`"));
                if upper != id && technique::find(&upper).is_some() {
                    found = found.help(format!("did you mean `{upper}`?")).fix(span, upper);
                } else if let Some((parent, _)) = upper.split_once('.')
                    && technique::find(parent).is_some()
                {
                    let below: Vec<&str> = technique::ALL
                        .iter()
                        .filter(|other| other.id.starts_with(parent) && other.current)
                        .map(|other| other.id)
                        .collect();
                    found = found.help(format!("did you mean one of {}?", below.join(", ")));
                } else {
                    let meant = technique::ALL
                        .iter()
                        .filter(|other| other.current)
                        .map(|other| (strsim::damerau_levenshtein(&upper, other.id), other))
                        .filter(|(distance, _)| *distance <= 1)
                        .min_by_key(|(_, other)| (!other.tactics.contains("exfiltration"), other.id));
                    if let Some((_, meant)) = meant {
                        found = found.help(format!("did you mean `{}` ({})?", meant.id, meant.name));
                    }
                }
                self.push(found);
            }
        }
    }

    /// One field or several.
    pub(super) fn fields(&mut self, node: &Node) -> Vec<Field> {
        let mut fields = Vec::new();
        for (name, span) in self.texts(node) {
            let Some(field) = self.field(&name, span) else { continue };
            if fields.contains(&field) {
                self.push(Diagnostic::new(&code::DUPLICATE_KEY, span, format!("`{field}` is named twice")));
                continue;
            }
            fields.push(field);
        }
        fields
    }

    fn trigger(&mut self, node: &Node, keys: &Keys<'_>, window: Option<Duration>) -> Option<Trigger> {
        let written: Vec<&Entry> = node
            .entries()
            .unwrap_or_default()
            .iter()
            .filter(|entry| TRIGGERS.contains(&entry.key.text.as_str()))
            .collect();
        let (first, more) = match written.as_slice() {
            [] => {
                let near = node.entries().unwrap_or_default().iter().any(|entry| {
                    schema::RULE.key(&entry.key.text).is_none()
                        && crate::rule::diagnose::nearest(&entry.key.text, TRIGGERS.iter().copied()).is_some()
                });
                if !near {
                    let span = node.child("id").map_or(node.span, |id| id.span);
                    let found =
                        Diagnostic::new(&code::NO_TRIGGER, span, "the rule has no trigger, so nothing makes it fire")
                            .help("add `window: 10m` and `when: [{bytes_out: {gte: 500MB}}]`, or `each: {}`");
                    self.push(found);
                }
                return None;
            }
            [first, more @ ..] => (*first, more),
        };
        if let Some(second) = more.first() {
            let message =
                format!("a rule has one trigger, and this one has `{}` and `{}`", first.key.text, second.key.text);
            let found = Diagnostic::new(&code::SEVERAL_TRIGGERS, second.key.span, message)
                .related(first.key.span, "the first trigger")
                .help("make two rules of it");
            self.push(found);
        }
        let value = &first.value;
        if let Some(entry) = node.entry("edge").filter(|_| first.key.text != "when") {
            let message = format!("`edge` says how windows of `when` end, and this rule has `{}`", first.key.text);
            self.push(Diagnostic::new(&code::WRONG_SHAPE, entry.key.span, message));
        }
        match first.key.text.as_str() {
            "when" => {
                if window.is_none() && keys.get("window").is_some() {
                    // The window has its own message.
                    self.clauses(value, Some(Duration::from_secs(60)), 0);
                    return None;
                }
                let all = self.clauses(value, window, 0)?;
                let longest = longest_window(&all);
                Some(Trigger::When(When { window: window.or(longest)?, all, edge: self.edge(keys) }))
            }
            "each" => {
                if !value.is_null() {
                    Keys::open(self, value, &schema::EACH)?;
                }
                Some(Trigger::Each)
            }
            "first_seen" => self.first_seen(value).map(Trigger::FirstSeen),
            "baseline" => self.baseline(value).map(Trigger::Baseline),
            _ => self.budget(value).map(Trigger::Budget),
        }
    }

    fn edge(&mut self, keys: &Keys<'_>) -> Edge {
        match keys.get("edge").and_then(|node| self.word(node, schema::EDGES)) {
            Some("interpolate") => Edge::Interpolate,
            _ => Edge::Cover,
        }
    }

    fn first_seen(&mut self, node: &Node) -> Option<FirstSeen> {
        let keys = Keys::open(self, node, &schema::FIRST_SEEN)?;
        let of = self.fields(keys.get("of")?);
        let per = keys.get("per").map(|node| self.fields(node)).unwrap_or_default();
        let lookback = keys.get("lookback").and_then(|node| self.duration(node));
        let learn = match keys.get("learn") {
            Some(node) => self.duration(node)?,
            None => Duration::ZERO,
        };
        let min = match keys.get("min") {
            Some(node) => Some(self.minimum(node)?),
            None => None,
        };
        if of.is_empty() {
            return None;
        }
        // The host is the default scope, and one program runs on one host.
        let per = per.into_iter().filter(|field| *field != Field::Host).collect();
        Some(FirstSeen { of, per, lookback: lookback?, learn, min })
    }

    /// `{bytes_out: {gte: 10MB}, within: 30m}`
    fn minimum(&mut self, node: &Node) -> Option<Threshold> {
        self.expect_mapping(node)?;
        let within = match node.child("within") {
            Some(node) => self.window(node)?,
            None => Duration::from_secs(3_600),
        };
        let mut rest = node.clone();
        if let Yaml::Mapping(entries) = &mut rest.value {
            entries.retain(|entry| entry.key.text != "within");
        }
        match self.clauses(&rest, Some(within), 0)?.as_slice() {
            [Clause::Threshold(threshold)] => Some(threshold.clone()),
            _ => {
                self.wrong_shape(node, "one metric with its limit, and `within`");
                None
            }
        }
    }

    fn baseline(&mut self, node: &Node) -> Option<Baseline> {
        let keys = Keys::open(self, node, &schema::BASELINE)?;
        let metric_node = keys.get("metric")?;
        let name = self.text(metric_node)?.to_owned();
        let metric = self.metric(&name, metric_node.span)?;
        let read = metric.unit().read();
        let duration = |compiler: &mut Self, key: &str, otherwise: u64| match keys.get(key) {
            Some(node) => compiler.duration(node),
            None => Some(Duration::from_secs(otherwise)),
        };
        let bucket = duration(self, "bucket", 3_600)?;
        let history = duration(self, "history", 14 * 86_400)?;
        let min_history = duration(self, "min_history", 3 * 86_400)?;
        let word = |compiler: &mut Self, key: &str| {
            let schema::Shape::Word(words) = schema::BASELINE.key(key)?.shape else { return None };
            compiler.word(keys.get(key)?, words)
        };
        let season = match word(self, "season") {
            Some("hour_of_day") => Season::HourOfDay,
            Some("hour_of_week") => Season::HourOfWeek,
            _ => Season::None,
        };
        let method = match word(self, "method") {
            Some("ewma") => Method::Ewma,
            Some("quantile") => Method::Quantile,
            _ => Method::Mad,
        };
        let above = match keys.get("above") {
            Some(node) => self.literal(node, literal::number)?,
            None if method == Method::Quantile => 0.999,
            None => 6.0,
        };
        let fits = if method == Method::Quantile { (0.5..1.0).contains(&above) } else { above > 0.0 };
        if !fits {
            let span = keys.get("above").map_or(node.span, |node| node.span);
            let message = if method == Method::Quantile {
                "a quantile lies between 0.5 and 1"
            } else {
                "a number of deviations is above 0"
            };
            self.push(Diagnostic::new(&code::BAD_LITERAL, span, message));
        }
        let floor = self.literal(keys.get("floor")?, read)?;
        let ceiling = match keys.get("ceiling") {
            Some(node) => Some(self.literal(node, read)?),
            None => None,
        };
        if let (Some(ceiling), Some(node)) = (ceiling, keys.get("ceiling"))
            && ceiling.as_f64() < floor.as_f64()
        {
            self.push(Diagnostic::new(&code::UNSATISFIABLE, node.span, "the ceiling lies below the floor"));
        }
        for (shorter, longer, key, message) in [
            (bucket, min_history, "min_history", "`min_history` is shorter than one bucket"),
            (min_history, history, "min_history", "`min_history` is longer than the history that is kept"),
            (Duration::from_secs(60), bucket, "bucket", "a bucket is at least 1m long"),
        ] {
            if shorter > longer {
                let span = keys.get(key).map_or(node.span, |node| node.span);
                self.push(Diagnostic::new(&code::WINDOW_LIMIT, span, message));
            }
        }
        let learn_while_firing = keys.get("learn_while_firing").and_then(|node| self.boolean(node)).unwrap_or(false);
        Some(Baseline {
            metric,
            bucket,
            history,
            season,
            method,
            above,
            floor,
            ceiling,
            min_history,
            learn_while_firing,
        })
    }

    fn budget(&mut self, node: &Node) -> Option<Budget> {
        let keys = Keys::open(self, node, &schema::BUDGET)?;
        let metric_node = keys.get("metric")?;
        let name = self.text(metric_node)?.to_owned();
        let metric = self.metric(&name, metric_node.span)?;
        if !matches!(metric, Metric::Sum(_) | Metric::Connections | Metric::ConnectionsFailed | Metric::DnsQueries) {
            let found = Diagnostic::new(
                &code::UNKNOWN_METRIC,
                metric_node.span,
                format!("a budget cannot be counted in `{metric}`"),
            )
            .help("budgets count bytes, payload, packets, connections or DNS questions");
            self.push(found);
            return None;
        }
        let per = match self.word(keys.get("per")?, &["hour", "day", "week", "month"])? {
            "hour" => Period::Hour,
            "week" => Period::Week,
            "month" => Period::Month,
            _ => Period::Day,
        };
        let zone = match keys.get("tz") {
            Some(node) => self.zone(node)?,
            None => self.options.local_zone.clone(),
        };
        let limit = self.literal(keys.get("limit")?, metric.unit().read())?;
        let mut notify_at = Vec::new();
        if let Some(node) = keys.get("notify_at") {
            for (text, span) in self.texts(node) {
                notify_at.extend(self.read_literal(&text, true, span, literal::share));
            }
        }
        if notify_at.is_empty() {
            notify_at.push(1.0);
        }
        notify_at.sort_by(f64::total_cmp);
        notify_at.dedup();
        Some(Budget { metric, per, zone, limit, notify_at })
    }

    fn life(&mut self, keys: &Keys<'_>, window: Option<Duration>, trigger: Option<&Trigger>) -> Life {
        let duration =
            |compiler: &mut Self, key: &str| keys.get(key).and_then(|node| compiler.duration(node)).unwrap_or_default();
        let no_data = match keys.get("no_data").and_then(|node| self.word(node, &["keep", "resolve", "alert"])) {
            Some("resolve") => NoData::Resolve,
            Some("alert") => NoData::Alert,
            _ => NoData::Keep,
        };
        let window = window.or(match trigger {
            Some(Trigger::When(when)) => Some(when.window),
            _ => None,
        });
        let mut resolve = Vec::new();
        if let Some(node) = keys.get("resolve") {
            for clause in self.clauses(node, window, 0).unwrap_or_default() {
                match clause {
                    Clause::Threshold(threshold) => {
                        self.check_resolve(&threshold, trigger, node.span);
                        resolve.push(threshold);
                    }
                    _ => self.wrong_shape(node, "plain conditions, all of which must hold,"),
                }
            }
        }
        let mut escalate = Vec::new();
        if let Some(node) = keys.get("escalate") {
            for element in self.expect_list(node).unwrap_or_default() {
                escalate.extend(self.escalation(element, window));
            }
        }
        Life {
            pending_for: duration(self, "for"),
            keep_firing_for: duration(self, "keep_firing_for"),
            resolve,
            cooldown: duration(self, "cooldown"),
            no_data,
            realert: keys.get("realert").and_then(|node| self.realert(node)),
            escalate,
        }
    }

    /// Some triggers hold for a limited time only, whatever the traffic.
    fn check_pending(&mut self, trigger: &Trigger, pending_for: Duration, span: Span) {
        let second = Duration::from_secs(1);
        let (most, why) = match trigger {
            Trigger::Each => (Duration::ZERO, "`each` holds at the moment of a new flow and not longer".to_owned()),
            Trigger::FirstSeen(first) => match &first.min {
                None => (Duration::ZERO, "a first sight holds at its moment and not longer".to_owned()),
                Some(min) => (min.window, format!("`min` must hold within {}", crate::rule::duration(min.window))),
            },
            Trigger::Budget(Budget { per: Period::Hour, .. }) => {
                (Duration::from_secs(3_600), "the quota begins anew with every hour".to_owned())
            }
            Trigger::When(_) | Trigger::Baseline(_) | Trigger::Budget(_) => return,
        };
        if pending_for > most.max(second) {
            let found = Diagnostic::new(&code::UNSATISFIABLE, span, "the condition never holds for so long").note(why);
            self.push(found);
        }
    }

    /// An alert must not resolve while it still fires.
    fn check_resolve(&mut self, resolve: &Threshold, trigger: Option<&Trigger>, span: Span) {
        let Some(Trigger::When(when)) = trigger else { return };
        for clause in &when.all {
            let Clause::Threshold(fires) = clause else { continue };
            if fires.metric != resolve.metric || fires.window != resolve.window {
                continue;
            }
            let above = match (fires.comparison, resolve.comparison) {
                (
                    Comparison::Greater(fires) | Comparison::GreaterOrEqual(fires),
                    Comparison::Less(resolves) | Comparison::LessOrEqual(resolves),
                ) => resolves.as_f64() > fires.as_f64(),
                (
                    Comparison::Greater(_) | Comparison::GreaterOrEqual(_),
                    Comparison::Greater(_) | Comparison::GreaterOrEqual(_),
                ) => true,
                _ => false,
            };
            if above {
                let found = Diagnostic::new(
                    &code::RESOLVE_ABOVE_THRESHOLD,
                    span,
                    "the alert would resolve while it still fires",
                )
                .help("resolve below the level at which it fires: that is what keeps it from flapping");
                self.push(found);
            }
        }
    }

    fn escalation(&mut self, node: &Node, window: Option<Duration>) -> Option<Escalation> {
        let keys = Keys::open(self, node, &schema::ESCALATE)?;
        let when = self.clauses(keys.get("when")?, window, 0)?;
        let severity = match keys.get("severity") {
            Some(node) => severity_of(self.word(node, schema::SEVERITIES)?)?,
            None => Severity::Critical,
        };
        let outputs = self.outputs(keys.get("outputs"));
        Some(Escalation { when, severity, outputs })
    }

    fn realert(&mut self, node: &Node) -> Option<Realert> {
        let keys = Keys::open(self, node, &schema::REALERT)?;
        let every = keys.get("every").and_then(|node| self.duration(node));
        let max_every = keys.get("max_every").and_then(|node| self.duration(node));
        let on_growth = keys.get("on_growth").and_then(|node| {
            let factor = self.literal(node, literal::factor)?;
            if factor <= 1.0 {
                self.push(Diagnostic::new(&code::BAD_LITERAL, node.span, "growth is a factor above 1"));
            }
            Some(factor)
        });
        if let (Some(every), Some(max)) = (every, max_every)
            && max < every
        {
            let span = keys.get("max_every").map_or(node.span, |node| node.span);
            self.push(Diagnostic::new(&code::UNSATISFIABLE, span, "`max_every` is shorter than `every`"));
        }
        Some(Realert { every, on_growth, max_every })
    }

    fn limits(&mut self, node: Option<&Node>) -> Limits {
        let mut limits = Limits::default();
        let Some(keys) = node.and_then(|node| Keys::open(self, node, &schema::LIMITS)) else { return limits };
        if let Some(node) = keys.get("max_groups")
            && let Some(number) = self.literal(node, literal::integer)
        {
            if (1..=10_000_000).contains(&number) {
                limits.max_groups = usize::try_from(number).unwrap_or(usize::MAX);
            } else {
                self.push(Diagnostic::new(&code::BAD_LITERAL, node.span, "`max_groups` lies between 1 and 10000000"));
            }
        }
        if let Some(node) = keys.get("max_alerts") {
            limits.max_alerts = self.alert_cap(node);
        }
        limits
    }

    fn evidence(&mut self, node: Option<&Node>) -> Option<Duration> {
        let keys = Keys::open(self, node?, &schema::EVIDENCE)?;
        let node = keys.get("pcap")?;
        let span = self.duration(node)?;
        if span.is_zero() || span > LONGEST_EVIDENCE {
            self.push(Diagnostic::new(&code::BAD_LITERAL, node.span, "`pcap` lies between 1s and 10m"));
            return None;
        }
        Some(span)
    }

    fn alert_cap(&mut self, node: &Node) -> Option<AlertCap> {
        let keys = Keys::open(self, node, &schema::MAX_ALERTS)?;
        let count = self.literal(keys.get("count")?, literal::integer)?;
        let per = self.duration(keys.get("per")?)?;
        Some(AlertCap { count: u32::try_from(count).unwrap_or(u32::MAX), per })
    }

    fn outputs(&mut self, node: Option<&Node>) -> Vec<Arc<str>> {
        let names = node.map(|node| self.texts(node)).unwrap_or_default();
        for (name, span) in &names {
            if let Some(known) = &self.options.outputs
                && !known.contains(name)
            {
                let found =
                    Diagnostic::new(&code::UNKNOWN_OUTPUT, *span, format!("the configuration has no output `{name}`"))
                        .suggest(name, known.iter().map(String::as_str));
                self.push(found);
            }
        }
        names.into_iter().map(|(name, _)| name.into()).collect()
    }

    fn presentation(&mut self, keys: &Keys<'_>) -> Presentation {
        let summary = keys.get("summary").and_then(|node| {
            let text = self.text(node)?.to_owned();
            if let Some(known) = self.summaries.get(&text) {
                return Some(Arc::clone(known));
            }
            match Summary::parse(&text) {
                Ok(summary) => {
                    let before = self.report.diagnostics.len();
                    self.check_summary_names(&summary, node.span);
                    let summary = Arc::new(summary);
                    // What is said of one is said of each.
                    if self.report.diagnostics.len() == before {
                        self.summaries.insert(text, Arc::clone(&summary));
                    }
                    Some(summary)
                }
                Err(error) => {
                    self.push(Diagnostic::new(
                        &code::BAD_TEMPLATE,
                        node.span,
                        format!("the template cannot be read: {error}"),
                    ));
                    None
                }
            }
        });
        let mut details = Vec::new();
        if let Some(node) = keys.get("details") {
            for element in self.expect_list(node).unwrap_or_default() {
                details.extend(self.detail(element));
            }
        }
        Presentation { summary, details }
    }

    fn check_summary_names(&mut self, summary: &Summary, span: Span) {
        for name in summary.names() {
            let known = Field::from_name(&name).is_some()
                || Metric::all().iter().any(|metric| metric.to_string() == name)
                || SUMMARY_NAMES.contains(&name.as_str())
                || SUMMARY_NAMES.iter().any(|known| name.starts_with(&format!("{known}.")))
                || Field::ALL.iter().any(|field| field.name().starts_with(&format!("{name}.")));
            if !known {
                let metrics: Vec<String> = Metric::all().iter().map(ToString::to_string).collect();
                let words = Field::ALL.iter().map(|field| field.name()).chain(SUMMARY_NAMES.iter().copied());
                let found = Diagnostic::new(&code::BAD_TEMPLATE, span, format!("no alert has a value `{name}`"))
                    .suggest(&name, words.chain(metrics.iter().map(String::as_str)));
                // The suggestion is about a part of the text.
                let found = Diagnostic { fix: None, ..found };
                self.push(found);
            }
        }
    }

    fn detail(&mut self, node: &Node) -> Option<Detail> {
        if let Yaml::Mapping(entries) = &node.value {
            for entry in entries {
                if !matches!(entry.key.text.as_str(), "top" | "n") {
                    let found = Diagnostic::new(
                        &code::UNKNOWN_KEY,
                        entry.key.span,
                        format!("a top list has no key `{}`", entry.key.text),
                    )
                    .suggest(&entry.key.text, ["top", "n"]);
                    self.push(found);
                }
            }
            let Some(top) = node.child("top") else {
                self.push(
                    Diagnostic::new(&code::MISSING_KEY, node.span, "a top list needs `top`")
                        .help("`{top: dst.ip, n: 5}`"),
                );
                return None;
            };
            let name = self.text(top)?.to_owned();
            let field = self.field(&name, top.span)?;
            let count = match node.child("n") {
                Some(node) => usize::try_from(self.literal(node, literal::integer)?).unwrap_or(usize::MAX),
                None => 5,
            };
            return Some(Detail::Top { field, count: count.clamp(1, 100) });
        }
        let name = self.text(node)?.to_owned();
        self.field(&name, node.span).map(Detail::Field)
    }

    /// Tells what shared exceptions apply to nothing.
    pub(super) fn check_shared_exceptions(&mut self, exceptions: &[Item], rules: &[Item]) {
        for item in exceptions {
            let Some(applies) = item.node.child("applies_to") else {
                let span =
                    item.node.entries().and_then(<[Entry]>::first).map_or(item.node.span, |entry| entry.key.span);
                let found = Diagnostic::new(&code::MISSING_KEY, span, "a shared exception needs `applies_to`")
                    .help("name rule ids or tags: `applies_to: [exfil-cloud-storage]`");
                self.push(found);
                continue;
            };
            let mut known: Vec<String> = Vec::new();
            for rule in rules {
                known.extend(rule.node.child("id").and_then(Node::text).map(str::to_owned));
                let tags = rule.node.child("tags").and_then(Node::elements).unwrap_or_default();
                known.extend(tags.iter().filter_map(Node::text).map(str::to_owned));
            }
            for (name, span) in self.texts(applies) {
                if !known.contains(&name) {
                    let found = Diagnostic::new(
                        &code::OVERRIDE_TARGET,
                        span,
                        format!("no rule has the id or the tag `{name}`"),
                    )
                    .suggest(&name, known.iter().map(String::as_str));
                    self.push(found);
                }
            }
        }
    }

    fn applies(&self, exception: &Node, metadata: &Metadata) -> bool {
        let names = match exception.child("applies_to") {
            Some(Node { value: Yaml::Sequence(elements), .. }) => elements.iter().filter_map(Node::text).collect(),
            Some(node) => node.text().into_iter().collect::<Vec<_>>(),
            None => Vec::new(),
        };
        names.iter().any(|name| *name == &*metadata.id || metadata.tags.iter().any(|tag| tag == name))
    }

    /// An exception; `None` if it expired or is wrong.
    fn exception(&mut self, node: &Node) -> Option<Exception> {
        let keys = Keys::open(self, node, &schema::EXCEPTION)?;
        let name_node = keys.get("name")?;
        let name = self.text(name_node)?.to_owned();
        let expires = match keys.get("expires") {
            Some(node) => Some(self.expiry(&name, node)?),
            None => None,
        };
        let condition = match (keys.get("match"), keys.get("values")) {
            (Some(block), None) => self.condition(block, 0)?,
            (None, Some(values)) => {
                let Some(fields) = keys.get("fields") else {
                    let found = Diagnostic::new(
                        &code::MISSING_KEY,
                        values.span,
                        "`values` need `fields`, which say what the values are",
                    );
                    self.push(found);
                    return None;
                };
                let operators = keys.get("operators").map(|node| self.texts(node)).unwrap_or_default();
                self.exception_condition(fields, &operators, values)?
            }
            (Some(_), Some(values)) => {
                let found = Diagnostic::new(
                    &code::EXCEPTION_SHAPE,
                    values.span,
                    "an exception has either `match` or `values`, not both",
                );
                self.push(found);
                return None;
            }
            (None, None) => {
                let found = Diagnostic::new(
                    &code::MISSING_KEY,
                    name_node.span,
                    format!("the exception `{name}` lets nothing pass: it has neither `values` nor `match`"),
                );
                self.push(found);
                return None;
            }
        };
        if condition.is_always() {
            let found = Diagnostic::new(
                &code::EXCEPTION_EVERYTHING,
                name_node.span,
                format!("the exception `{name}` lets everything pass"),
            );
            self.push(found);
        }
        let during = match keys.get("during") {
            Some(node) => {
                let name = self.text(node)?.to_owned();
                Some(self.use_schedule(&name, node.span)?)
            }
            None => None,
        };
        let budget = match keys.get("budget") {
            Some(node) => Some(self.exception_budget(node)?),
            None => None,
        };
        let line =
            |compiler: &mut Self, key: &str| keys.get(key).and_then(|node| compiler.text(node)).map(str::to_owned);
        Some(Exception {
            name: name.as_str().into(),
            condition,
            during,
            budget,
            expires,
            owner: line(self, "owner"),
            reason: line(self, "reason"),
        })
    }

    /// The moment after the last day; `None`, with a warning, if that has passed.
    fn expiry(&mut self, name: &str, node: &Node) -> Option<Timestamp> {
        let last_day = self.literal(node, literal::date)?;
        let end = last_day.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        let end = Timestamp::from_secs(end.timestamp().as_second());
        if end <= self.options.now {
            let days = self.options.now.since(end).as_secs() / 86_400 + 1;
            let plural = if days == 1 { "day" } else { "days" };
            let found = Diagnostic::new(
                &code::EXPIRED,
                node.span,
                format!("exception `{name}` expired {days} {plural} ago and is ignored"),
            )
            .help("remove it, or set a new date with a reason");
            self.push(found);
            return None;
        }
        Some(end)
    }

    fn exception_condition(&mut self, fields: &Node, operators: &[(String, Span)], values: &Node) -> Option<Condition> {
        let fields_span = fields.span;
        let fields = self.fields(fields);
        if fields.is_empty() {
            return None;
        }
        if !operators.is_empty() && operators.len() != fields.len() {
            let found = Diagnostic::new(
                &code::EXCEPTION_SHAPE,
                operators.first().map_or(fields_span, |(_, span)| *span),
                format!("{} operators for {} fields", operators.len(), fields.len()),
            );
            self.push(found);
            return None;
        }
        let mut tuples = Vec::new();
        for tuple in self.expect_list(values)? {
            let elements = match &tuple.value {
                Yaml::Sequence(elements) => elements.as_slice(),
                _ if fields.len() == 1 => std::slice::from_ref(tuple),
                _ => {
                    self.wrong_shape(tuple, "a tuple: a list with a value for each field");
                    return None;
                }
            };
            let elements = if fields.len() == 1 && elements.len() > 1 { std::slice::from_ref(tuple) } else { elements };
            if elements.len() != fields.len() {
                let found = Diagnostic::new(
                    &code::EXCEPTION_SHAPE,
                    tuple.span,
                    format!("{} values for {} fields", elements.len(), fields.len()),
                )
                .related(fields_span, "the fields")
                .help("write \"*\" where any value will do");
                self.push(found);
                return None;
            }
            let mut parts = Vec::new();
            for (index, (field, value)) in fields.iter().zip(elements).enumerate() {
                if value.text() == Some("*") {
                    continue;
                }
                let part = match operators.get(index) {
                    Some((operator, span)) => {
                        let key = crate::rule::yaml::Key { text: operator.clone(), span: *span };
                        let entries = vec![Entry { key, value: value.clone() }];
                        let node = Node { span: value.span, value: Yaml::Mapping(entries) };
                        self.condition_of_field(*field, &node, *span)?
                    }
                    None => self.condition_of_field(*field, value, value.span)?,
                };
                parts.push(part);
            }
            tuples.push(all_of(parts));
        }
        if tuples.iter().any(Condition::is_always) {
            return Some(Condition::ALWAYS);
        }
        Some(any_of(tuples))
    }

    fn exception_budget(&mut self, node: &Node) -> Option<ExceptionBudget> {
        let keys = Keys::open(self, node, &schema::EXCEPTION_BUDGET)?;
        let per = self.window(keys.get("per")?)?;
        let limits: Vec<&Entry> = node.entries()?.iter().filter(|entry| entry.key.text != "per").collect();
        let [entry] = limits.as_slice() else {
            self.push(
                Diagnostic::new(&code::EXCEPTION_SHAPE, node.span, "a budget has one metric and `per`")
                    .help("`{bytes_out: 200GB, per: 1d}`"),
            );
            return None;
        };
        let metric = Metric::from_name(&entry.key.text)?;
        let limit = self.literal(&entry.value, metric.unit().read())?;
        Some(ExceptionBudget { metric, limit, per })
    }

    /// What decides whether windows survive a reload.
    fn fingerprint(&self, node: &Node, group_by: &[Field], trigger: &Trigger) -> u64 {
        let mut hasher = blake3::Hasher::new();
        if let Some(block) = node.child("match") {
            self.feed(block, &mut hasher, 0);
        }
        for field in group_by {
            hasher.update(field.name().as_bytes());
            hasher.update(b"\0");
        }
        let mut words = Vec::new();
        match trigger {
            Trigger::When(when) => metric_windows(&when.all, &mut words),
            Trigger::Each => words.push("each".to_owned()),
            Trigger::FirstSeen(first) => {
                words.push(format!("first_seen {:?} {:?} {:?}", first.of, first.per, first.lookback))
            }
            Trigger::Baseline(baseline) => words.push(format!(
                "baseline {} {:?} {:?} {:?} {:?}",
                baseline.metric, baseline.bucket, baseline.history, baseline.season, baseline.method
            )),
            Trigger::Budget(budget) => {
                words.push(format!("budget {} {:?} {:?}", budget.metric, budget.per, budget.zone.iana_name()))
            }
        }
        words.sort_unstable();
        words.dedup();
        for word in words {
            hasher.update(word.as_bytes());
            hasher.update(b"\0");
        }
        let hash = hasher.finalize();
        let (first, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
        u64::from_le_bytes(*first)
    }

    /// A tree and all that it names.
    fn feed(&self, node: &Node, hasher: &mut blake3::Hasher, depth: usize) {
        match &node.value {
            Yaml::Scalar { text, .. } => {
                hasher.update(b"s");
                hasher.update(text.as_bytes());
                hasher.update(b"\0");
                if let Some(name) = text.strip_prefix('$').filter(|_| depth < 32) {
                    for definition in [self.lists.get(name), self.macros.get(name)].into_iter().flatten() {
                        self.feed(&definition.node, hasher, depth + 1);
                    }
                }
            }
            Yaml::Sequence(elements) => {
                hasher.update(b"[");
                for element in elements {
                    self.feed(element, hasher, depth);
                }
                hasher.update(b"]");
            }
            Yaml::Mapping(entries) => {
                hasher.update(b"{");
                for entry in entries {
                    hasher.update(entry.key.text.as_bytes());
                    hasher.update(b":");
                    self.feed(&entry.value, hasher, depth);
                    if entry.key.text == "file"
                        && let Some(name) = entry.value.text()
                    {
                        let digests = self.list_digests.iter().filter(|(path, _)| path.ends_with(name));
                        let mut digests: Vec<_> = digests.map(|(_, digest)| digest).collect();
                        digests.sort_unstable();
                        for digest in digests {
                            hasher.update(digest);
                        }
                    }
                }
                hasher.update(b"}");
            }
        }
    }

    /// Whether any flow can satisfy the condition, as far as simple means tell.
    fn check_satisfiable(&mut self, condition: &Condition, node: &Node) {
        if condition.is_never() {
            self.push(
                Diagnostic::new(&code::UNSATISFIABLE, node.span, "no flow can match this")
                    .help("`any: []` never holds; `match: {}` is every flow"),
            );
            return;
        }
        if let Some(reason) = crate::rule::compile::scope::contradiction(condition) {
            let span = node.entries().and_then(<[Entry]>::first).map_or(node.span, |entry| entry.key.span);
            self.push(Diagnostic::new(&code::UNSATISFIABLE, span, "no flow can match this").note(reason));
        }
    }
}

fn metric_windows(clauses: &[Clause], words: &mut Vec<String>) {
    for clause in clauses {
        match clause {
            Clause::Threshold(threshold) => words.push(format!("{} {:?}", threshold.metric, threshold.window)),
            Clause::Spike(spike) => {
                words.push(format!(
                    "{} {:?} {} {:?} {:?}",
                    spike.metric, spike.window, spike.past, spike.past_window, spike.offset
                ));
            }
            Clause::Any(parts) | Clause::All(parts) => metric_windows(parts, words),
        }
    }
}

fn longest_window(clauses: &[Clause]) -> Option<Duration> {
    clauses
        .iter()
        .filter_map(|clause| match clause {
            Clause::Threshold(threshold) => Some(threshold.window),
            Clause::Spike(spike) => Some(spike.window),
            Clause::Any(parts) | Clause::All(parts) => longest_window(parts),
        })
        .max()
}

fn severity_of(word: &str) -> Option<Severity> {
    Severity::ALL.into_iter().find(|severity| severity.name() == word)
}

/// Exceptions of one rule, shared ones included.
const MAX_EXCEPTIONS: usize = 64;

const TRIGGERS: &[&str] = &["when", "each", "first_seen", "baseline", "budget"];

/// Names that a summary can use beside fields and metrics.
pub const SUMMARY_NAMES: &[&str] =
    &["rule", "window", "severity", "title", "group", "values", "limits", "state", "reason", "user", "process"];

/// Packets are held for no longer.
const LONGEST_EVIDENCE: Duration = Duration::from_secs(600);
