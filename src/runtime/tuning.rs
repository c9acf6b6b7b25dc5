//! Finds the limit at which a rule would have fired so often on a recording.
//!
//! The engine of production decides: each round runs copies of a rule with
//! different limits side by side, and the next round looks between the two
//! that stand around the wanted number. How often a rule fires need not fall
//! with the limit (one long alert may be two short ones), so a limit that is
//! named was tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::rule::{Knob, Metadata, Quantity, Rule, RuleSet, Scale};

/// The search for one rule.
#[derive(Debug)]
pub struct Search {
    rule: Arc<Rule>,
    knob: Knob,
    /// How often it is to fire: what was wanted, or as often as it can.
    aim: u64,
    /// What was tried so far: the limit as a key that is in order, and how often the rule fired.
    tried: BTreeMap<Tried, u64>,
    /// What the running round tries.
    trying: Vec<Quantity>,
    rounds: usize,
}

/// What came of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// How often the rule fires as it stands.
    pub fires_now: u64,
    /// The limit that comes nearest to what was wanted, from above where it can.
    pub limit: Option<Quantity>,
    /// How often the rule fires with it.
    pub fires: u64,
}

/// Limits tried side by side.
const PROBES: u32 = 16;

/// A limit is high enough if the next that was tried lies this share above it.
const NEAR: f64 = 0.1;

/// Rounds at most: each reads the whole recording.
const ROUNDS: usize = 12;

/// A limit in an order that floating-point numbers lack.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tried(f64);

impl Eq for Tried {}

impl PartialOrd for Tried {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tried {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Search {
    /// Looks for the limit at which a rule fires `wanted` times; `None` where the rule has nothing to turn.
    /// `most` is more than any value of the recording can be.
    pub fn new(rule: &Arc<Rule>, wanted: u64, most: u64) -> Option<Self> {
        let knob = rule.knob()?;
        let mut search =
            Self { rule: Arc::clone(rule), knob, aim: wanted, tried: BTreeMap::new(), trying: Vec::new(), rounds: 0 };
        let (low, high) = search.range(most);
        search.trying = search.between(low, high);
        let more = [low, high].map(|value| search.quantity(value));
        search.trying.extend(more);
        search.trying.push(search.knob.limit);
        Some(search)
    }

    /// What the search turns.
    pub fn knob(&self) -> &Knob {
        &self.knob
    }

    /// The rule.
    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// Whether there is nothing left to try.
    pub fn is_done(&self) -> bool {
        self.trying.is_empty()
    }

    /// Takes what a round counted and plans the next.
    fn learn(&mut self, counts: impl Iterator<Item = u64>) {
        self.rounds += 1;
        let trying = std::mem::take(&mut self.trying);
        self.tried.extend(trying.into_iter().map(|limit| Tried(limit.as_f64())).zip(counts));
        let most = self.tried.values().copied().max().unwrap_or(0);
        if self.rounds == 1 && most > 0 {
            self.aim = self.aim.min(most);
        }
        if self.rounds < ROUNDS {
            self.trying = self.next();
        }
    }

    /// Between the highest limit that still fires often enough and the next above it.
    fn next(&self) -> Vec<Quantity> {
        let exact = self.tried.iter().rev().find(|(_, fired)| **fired == self.aim).map(|(limit, _)| limit.0);
        if let Some(limit) = exact {
            // As high as it may be, and then as round.
            let above = self.tried.range(Tried(limit)..).nth(1).map(|(limit, _)| limit.0);
            return match above.filter(|above| above - limit > limit.abs() * NEAR) {
                Some(above) => self.between(limit, above),
                None => self.rounder(limit),
            };
        }
        let enough = self.tried.iter().rev().find(|(_, fired)| **fired > self.aim).map(|(limit, _)| limit.0);
        let Some(low) = enough else { return Vec::new() };
        let above = self.tried.range(Tried(low)..).nth(1).map(|(limit, _)| limit.0);
        let Some(high) = above else { return Vec::new() };
        self.between(low, high)
    }

    /// Rounder limits near one that fires as often as wanted, which were not tried yet.
    fn rounder(&self, limit: f64) -> Vec<Quantity> {
        if limit == 0.0 {
            return Vec::new();
        }
        let magnitude = limit.abs().log10().floor();
        let mut round = Vec::new();
        for digits in [0.0, 1.0, 2.0] {
            let step = 10f64.powf(magnitude - digits);
            round.extend([(limit / step).floor() * step, (limit / step).ceil() * step]);
        }
        round.retain(|value| !self.tried.contains_key(&Tried(self.quantity(*value).as_f64())));
        round.into_iter().map(|value| self.quantity(value)).collect()
    }

    fn range(&self, most: u64) -> (f64, f64) {
        match self.knob.scale {
            Scale::Bytes | Scale::Rate | Scale::Count => (1.0, most.max(2) as f64),
            Scale::Share => (0.0, 1.0),
            Scale::Balance => (-1.0, 1.0),
            Scale::Factor => (0.01, 10_000.0),
        }
    }

    /// Limits between two, neither of them among these.
    fn between(&self, low: f64, high: f64) -> Vec<Quantity> {
        let geometric = low > 0.0 && high / low > 2.0;
        let at = |step: u32| {
            let share = f64::from(step) / f64::from(PROBES + 1);
            if geometric { low * (high / low).powf(share) } else { low + (high - low) * share }
        };
        let mut values: Vec<Quantity> = (1..=PROBES).map(|step| self.quantity(at(step))).collect();
        values.dedup();
        values.retain(|value| value.as_f64() > low && value.as_f64() < high);
        // Ratios are told in three decimals.
        let too_fine = !self.is_whole() && high - low < 0.002;
        if too_fine { Vec::new() } else { values }
    }

    fn is_whole(&self) -> bool {
        matches!(self.knob.scale, Scale::Bytes | Scale::Rate | Scale::Count)
    }

    fn quantity(&self, value: f64) -> Quantity {
        match self.is_whole() {
            true => Quantity::Count(value.max(0.0).round() as u64),
            false => Quantity::Ratio((value * 1_000.0).round() / 1_000.0),
        }
    }

    /// What came of it.
    pub fn found(&self) -> Found {
        let fires_now = self.tried.get(&Tried(self.knob.limit.as_f64())).copied().unwrap_or(0);
        let digits = |limit: f64| self.knob.scale.literal(self.quantity(limit)).trim_matches('0').len();
        let highest = self.tried.iter().rev().find(|(_, fired)| **fired == self.aim).map_or(0.0, |(limit, _)| limit.0);
        let is_high = |limit: f64| highest - limit <= highest.abs() * (NEAR + 0.15);
        let exact = self.tried.iter().filter(|(limit, fired)| **fired == self.aim && is_high(limit.0));
        // The roundest of the highest; of several the highest.
        let best = exact
            .map(|(limit, fired)| (*limit, *fired))
            .min_by_key(|(limit, _)| (digits(limit.0), std::cmp::Reverse(*limit)));
        // Else the highest that fires at least so often, else the one that fires most.
        let best = best.or_else(|| {
            let enough = self.tried.iter().rev().find(|(_, fired)| **fired > self.aim);
            let most = || self.tried.iter().filter(|(_, fired)| **fired > 0).max_by_key(|(_, fired)| **fired);
            enough.or_else(most).map(|(limit, fired)| (*limit, *fired))
        });
        Found {
            fires_now,
            limit: best.map(|(limit, _)| self.quantity(limit.0)),
            fires: best.map_or(0, |(_, fired)| fired),
        }
    }
}

/// A round of several searches at once: a rule for every limit that is tried.
#[derive(Debug)]
pub struct Round {
    /// The rules to run.
    pub rules: Arc<RuleSet>,
    /// Which search and which of its limits each rule is.
    ids: BTreeMap<Arc<str>, usize>,
    counts: Vec<u64>,
}

impl Round {
    /// The next round of the searches that are not done; `None` once all are.
    pub fn next(searches: &[Search]) -> Option<Self> {
        let mut rules = Vec::new();
        let mut ids = BTreeMap::new();
        for search in searches {
            for limit in &search.trying {
                let place = rules.len();
                let id: Arc<str> = format!("{}#{place}", search.rule.metadata.id).into();
                let mut rule = search.rule.turned(*limit);
                rule.metadata = Arc::new(Metadata { id: Arc::clone(&id), ..(*search.rule.metadata).clone() });
                rules.push(Arc::new(rule));
                ids.insert(id, place);
            }
        }
        let counts = vec![0; rules.len()];
        (!rules.is_empty()).then(|| Self { rules: Arc::new(RuleSet::new(rules)), ids, counts })
    }

    /// Notes that a rule of this round fired.
    pub fn fired(&mut self, id: &str) {
        if let Some(count) = self.ids.get(id).and_then(|place| self.counts.get_mut(*place)) {
            *count += 1;
        }
    }

    /// Tells the searches what was counted.
    pub fn finish(self, searches: &mut [Search]) {
        let mut counts = self.counts.into_iter();
        for search in searches.iter_mut().filter(|search| !search.is_done()) {
            let tried = search.trying.len();
            let own: Vec<u64> = counts.by_ref().take(tried).collect();
            search.learn(own.into_iter());
        }
    }
}
