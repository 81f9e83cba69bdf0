//! `--json` and `--output`.

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct OutputFlags {
    /// Print JSON for programs
    #[arg(long = "json", env = "LIZMON_JSON", value_parser = FalseyValueParser::new())]
    on: bool,
    /// How to show it; json is --json
    #[arg(
        long = "output",
        env = "LIZMON_OUTPUT",
        value_name = "FORM",
        default_value = "table"
    )]
    form: TableOrJson,
}

impl OutputFlags {
    pub(crate) fn is_json(&self) -> bool {
        self.on || self.form == TableOrJson::Json
    }
}

/// The forms of what is no course of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableOrJson {
    /// For people.
    Table,
    /// For programs.
    Json,
}
