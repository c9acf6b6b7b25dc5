//! What compiling rules needs from outside: the files of lists, the date, the time zone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::config::rule_files::{self, RuleFileError};
use crate::config::{RuleSource, shipped};
use crate::rule::compile::{Compiled, Lint, Options, compile};
use crate::rule::diagnose::Source;
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::load;

/// Options that read files and the clock. `outputs` are those of the configuration, where one is known.
pub fn options(outputs: Option<BTreeSet<String>>, lint: Lint) -> Options {
    Options {
        read_file: Arc::new(|path| {
            load::list_bytes(Path::new(path)).map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                cause.unwrap_or_else(|| error.to_string())
            })
        }),
        outputs,
        now: SystemClock::start().wall(),
        local_zone: TimeZone::system(),
        lint,
    }
}

/// The files of a rule source.
pub fn sources(source: &RuleSource) -> Result<Vec<Source>, RuleFileError> {
    match source {
        RuleSource::Shipped => Ok(shipped::sources()),
        RuleSource::Paths(paths) => rule_files::read(paths),
    }
}

/// Reads and compiles the rules of a source.
pub fn load(source: &RuleSource, options: &Options) -> Result<Compiled, RuleFileError> {
    Ok(compile(sources(source)?, options))
}
