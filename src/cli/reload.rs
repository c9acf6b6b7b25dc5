//! Reading again what `egret run` was told, while it runs: rules, lists,
//! databases and, on SIGHUP, the configuration's outputs and routing.
//!
//! Each of them is taken whole or not at all; what is refused leaves the old
//! in force, and is a problem that receivers hear of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Sender;
use tracing::{error, info, warn};

use crate::alert::Problem;
use crate::cli::input::{self, LoadedRules};
use crate::cli::run::{self, Arguments};
use crate::config::{RuleSource, Settings};
use crate::dispatch::Dispatcher;
use crate::engine::Engine;
use crate::rule::Severity;
use crate::runtime::control::{Control, Reload};
use crate::runtime::load;
use crate::runtime::watch::Watch;

/// Reads again.
pub struct Reloader<'a> {
    arguments: &'a Arguments,
    settings: Settings,
    watch: Option<Watch>,
    control: Sender<Control>,
    refused: Refused,
}

/// Why what was read last could not be used, until something that was read can.
#[derive(Debug, Default)]
struct Refused {
    rules: Option<String>,
    configuration: Option<String>,
}

impl<'a> Reloader<'a> {
    /// For a program that runs with these settings; watches the files that they name.
    pub fn new(
        arguments: &'a Arguments,
        settings: Settings,
        list_files: &BTreeSet<PathBuf>,
        control: Sender<Control>,
    ) -> Self {
        let watch = watch(&settings, list_files, control.clone());
        Self { arguments, settings, watch, control, refused: Refused::default() }
    }

    /// Reads again.
    pub fn reload(&mut self, engine: &mut Engine, dispatcher: &Dispatcher, what: Reload) {
        if what == Reload::Everything {
            self.reload_configuration(engine, dispatcher);
        }
        self.reload_rules(engine);
        match load::places(&self.settings.databases) {
            Ok(places) => engine.replace_places(Arc::new(places)),
            Err(error) => error!(error = &error as &dyn std::error::Error, "the old databases stay in use"),
        }
    }

    /// Takes outputs, routing, and where rules and databases are. What else the configuration says, such as
    /// what is captured, holds from the next start on.
    fn reload_configuration(&mut self, engine: &mut Engine, dispatcher: &Dispatcher) {
        let taken = run::settings(self.arguments).and_then(|settings| {
            dispatcher.reload(&settings.dispatch)?;
            Ok(settings)
        });
        let settings = match taken {
            Ok(settings) => settings,
            Err(error) => {
                let reason = format!("{error:#}");
                error!(error = reason, "the old configuration stays in force");
                if self.refused.configuration.replace(reason.clone()) != Some(reason.clone()) {
                    let summary = format!("{reason}: the old outputs and routing stay in force");
                    engine.handle_problem(problem("configuration-invalid", summary));
                }
                return;
            }
        };
        info!(outputs = settings.dispatch.outputs.len(), "configuration read again");
        engine.set_companions(input::companions(&settings));
        let moved = settings.rules != self.settings.rules || settings.databases != self.settings.databases;
        self.settings.dispatch = settings.dispatch;
        (self.settings.rules, self.settings.databases) = (settings.rules, settings.databases);
        if moved {
            self.watch = watch(&self.settings, &BTreeSet::new(), self.control.clone());
        }
        if self.refused.configuration.take().is_some() {
            let ended = "ended: the configuration could not be used".to_owned();
            engine.handle_problem(Problem { resolved: true, ..problem("configuration-invalid", ended) });
        }
    }

    /// Takes the new rules if all of them can be used, else the old ones stay.
    fn reload_rules(&mut self, engine: &mut Engine) {
        let outputs = self.settings.dispatch.outputs.keys().cloned().collect();
        match input::rules_with_lists(&self.settings.rules, Some(outputs)) {
            Ok(LoadedRules { rules, list_files }) => {
                info!(rules = rules.rules.len(), "rules read again");
                engine.replace_rules(rules);
                if let Some(watch) = &mut self.watch
                    && let Err(error) = watch.follow(&list_files)
                {
                    warn!(%error, "a list is not watched; SIGHUP still reads it again");
                }
                if self.refused.rules.take().is_some() {
                    let ended = "ended: the rules could not be used".to_owned();
                    engine.handle_problem(Problem { resolved: true, ..problem("rules-invalid", ended) });
                }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                error!(error = reason, "the old rules stay in force");
                if self.refused.rules.replace(reason.clone()) != Some(reason.clone()) {
                    engine.handle_problem(problem("rules-invalid", format!("{reason}: the old ones stay in force")));
                }
            }
        }
    }
}

fn watch(settings: &Settings, list_files: &BTreeSet<PathBuf>, control: Sender<Control>) -> Option<Watch> {
    let mut paths = settings.databases.clone();
    if let RuleSource::Paths(rules) = &settings.rules {
        paths.extend(rules.iter().cloned());
    }
    if paths.is_empty() && list_files.is_empty() {
        return None;
    }
    let started = Watch::start(&paths, control).and_then(|mut watch| watch.follow(list_files).map(|()| watch));
    match started {
        Ok(watch) => Some(watch),
        Err(error) => {
            warn!(%error, "rule files, lists and databases are not watched; SIGHUP still reads them again");
            None
        }
    }
}

/// What cannot be used leaves the old in force: whoever relies on the new must hear of it.
fn problem(id: &'static str, summary: String) -> Problem {
    Problem { id, severity: Severity::High, summary, details: BTreeMap::new(), resolved: false }
}
