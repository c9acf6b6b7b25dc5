//! The command line as typed.

use clap::{Parser, Subcommand, ValueEnum};

use crate::cli::{
    alerts, backtest, check, completions, exceptions, explain, explain_match, export, fields, flows, geo, import,
    lists, man, outbox, output, record, replay, routes, rules, run, schema, silence, status, suggest, test, webhook,
    why, windows,
};

/// Which program is sending how much to where, is that more than policy allows, and who must know now?
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant a subcommand; each has its own file beside this one.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check rules and configuration: all errors, with line, column and advice
    #[command(visible_alias = "lint")]
    Check(check::Arguments),
    /// Run the tests of rules, in virtual time
    Test(test::Arguments),
    /// Try rules on recorded flows
    Backtest(backtest::Arguments),
    /// Find the limits that fit recorded flows, and what programs usually move
    Suggest(suggest::Arguments),
    /// Say what rules there are, what one says, and what each costs
    Rules(rules::Arguments),
    /// List what rules can match, group by and measure
    Fields(fields::Arguments),
    /// Say what a code of a finding means
    Explain(explain::Arguments),
    /// Say why a rule looks at a flow, or does not
    ExplainMatch(explain_match::Arguments),
    /// Translate rules of other tools
    Import(import::Arguments),
    /// Print the rules in formats of other tools
    Export(export::Arguments),
    /// Print the JSON Schema of rule files, for editors
    Schema(schema::Arguments),
    /// Say which network and country addresses are in
    Geo(geo::Arguments),
    /// Look into lists of networks, domains and AS numbers
    Lists(lists::Arguments),
    /// Watch this host, evaluate the rules, deliver the alerts
    Run(run::Arguments),
    /// Put captures through the rules and print the alerts
    Replay(replay::Arguments),
    /// Write a capture whose packets name their owners
    Record(record::Arguments),
    /// Print every flow with its bytes and its owner
    Flows(flows::Arguments),
    /// Say how a running egret and its outputs stand
    Status(status::Arguments),
    /// List, show and acknowledge alerts of a running egret
    Alerts(alerts::Arguments),
    /// Show the buckets that made an alert
    Why(why::Arguments),
    /// Show how near a running egret's groups are to their limits
    Windows(windows::Arguments),
    /// Show what exceptions hid, and which hide nothing
    Exceptions(exceptions::Arguments),
    /// Hold back alerts for a while
    Silence(silence::Arguments),
    /// Look after deliveries that wait or were given up
    Outbox(outbox::Arguments),
    /// Try an output of a running egret
    Output(output::Arguments),
    /// Say who would get an alert
    Routes(routes::Arguments),
    /// Help those who write a receiver of webhooks
    Webhook(webhook::Arguments),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Write the manual pages
    Man(man::Arguments),
}

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
