//! `--json` and `--output`.

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct OutputFlags {
    /// Print JSON
    #[arg(long = "json", env = "LIZMON_JSON", value_parser = FalseyValueParser::new())]
    on: bool,
    /// Output format; json is the same as --json
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

/// The formats of an answer that is not a time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableOrJson {
    /// Columns of text.
    Table,
    /// JSON.
    Json,
}
