//! `phi3v schemas`: the presets that `--schema` knows.

use crate::args::SchemasArgs;
use crate::error::CliError;
use crate::report;
use crate::terminal::print;
use phi3v::presets::{PRESETS, Preset};
use serde_json::{Value, json};

/// Lists the presets, or prints one.
///
/// # Errors
/// There is no such preset, or stdout cannot be written to.
pub(super) fn run(args: &SchemasArgs) -> Result<(), CliError> {
    let told = match &args.name {
        Some(name) => {
            let preset = Preset::named(name).ok_or_else(|| CliError::NoPreset { name: name.clone() })?;
            if args.json { report::json(&whole(preset)) + "\n" } else { preset.schema_text().to_owned() }
        }
        None if args.json => report::json(&PRESETS.iter().map(whole).collect::<Vec<_>>()) + "\n",
        None => PRESETS.iter().map(|preset| format!("{:<10} {}\n", preset.name, preset.about)).collect(),
    };
    print(told).map_err(CliError::Output)
}

fn whole(preset: &Preset) -> Value {
    let Preset { name, about, .. } = preset;
    json!({"name": name, "about": about, "question": preset.question(), "schema": preset.schema()})
}
