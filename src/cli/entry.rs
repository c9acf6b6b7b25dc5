//! Reads the command line and hands over to the subcommand.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::args::{Arguments, Command};
use crate::cli::{
    alerts, backtest, check, completions, exceptions, exit, explain, explain_match, export, fields, flows, geo, import,
    lists, logging, man, outbox, output, record, replay, routes, rules, run, schema, silence, status, suggest, test,
    webhook, why, windows,
};

/// The whole program; its value is the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(match &arguments.command {
        Command::Run(_) => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    });
    exit::conclude(match &arguments.command {
        Command::Run(arguments) => run::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Record(arguments) => record::run(arguments),
        Command::Flows(arguments) => flows::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Backtest(arguments) => backtest::run(arguments),
        Command::Suggest(arguments) => suggest::run(arguments),
        Command::Test(arguments) => test::run(arguments),
        Command::Rules(arguments) => rules::run(arguments),
        Command::Fields(arguments) => fields::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::ExplainMatch(arguments) => explain_match::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Why(arguments) => why::run(arguments),
        Command::Windows(arguments) => windows::run(arguments),
        Command::Exceptions(arguments) => exceptions::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Alerts(arguments) => alerts::run(arguments),
        Command::Silence(arguments) => silence::run(arguments),
        Command::Outbox(arguments) => outbox::run(arguments),
        Command::Output(arguments) => output::run(arguments),
        Command::Routes(arguments) => routes::run(arguments),
        Command::Webhook(arguments) => webhook::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Geo(arguments) => geo::run(arguments),
        Command::Lists(arguments) => lists::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    })
}
