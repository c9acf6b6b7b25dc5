//! What the commands that operate a running program share: where it is, and how it is asked.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use serde_json::Value as Json;

use crate::runtime::socket::{self, Request};

/// Which running program is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct Program {
    /// State directory of the running program
    #[arg(long, value_name = "DIR", env = "EGRET_STATE_DIR", default_value = "/var/lib/egret", global = true)]
    state_dir: PathBuf,
}

impl Program {
    /// Asks it, and gives its answer.
    pub fn ask(&self, request: &Request) -> anyhow::Result<Json> {
        match socket::ask(&self.state_dir, request) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => bail!(refusal),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                let place = socket::path(&self.state_dir);
                Err(anyhow!("no egret runs here: nothing listens at `{}`", place.display()))
            }
            Err(error) => Err(error).context("cannot ask the running egret"),
        }
    }
}

/// The text of a field, for people; empty where there is none.
pub fn text(object: &Json, field: &str) -> String {
    match &object[field] {
        Json::String(text) => crate::escape::one_line(text),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// A point in time to the second.
pub fn moment(object: &Json, field: &str) -> String {
    text(object, field).get(..19).map(|text| format!("{}Z", text.replace('T', " "))).unwrap_or_default()
}
