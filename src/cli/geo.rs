//! `egret geo`: which network and country addresses are in.

use std::io::{BufRead, BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::terminal;
use crate::runtime::load;

/// What `egret geo` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// MaxMind database; several are asked in this order
    #[arg(long = "db", value_name = "FILE", required = true)]
    databases: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Answer<'a> {
    ip: &'a str,
    country: Option<&'a str>,
    asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_org: Option<&'a str>,
}

/// Answers each address of standard input with a JSON object on a line.
pub fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let places = load::places(&arguments.databases)?;
    let mut out = BufWriter::new(anstream::stdout().lock());
    let mut exit = Exit::Fine;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let Ok(ip) = text.parse::<IpAddr>() else {
            terminal::error(&format!("`{text}` is not an address"));
            exit = Exit::Findings;
            continue;
        };
        let place = places.find(ip.into())?.unwrap_or_default();
        let answer = Answer {
            ip: text,
            country: place.country.as_deref(),
            asn: place.asn,
            as_org: place.organization.as_deref(),
        };
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    out.flush()?;
    Ok(exit)
}
