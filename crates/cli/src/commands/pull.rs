//! `phi3v pull`: downloads a model, or updates it.

use crate::args::PullArgs;
use crate::error::CliError;
use crate::hub::{self, HubOptions, ModelSource};
use crate::note;
use crate::sys::setting;
use crate::terminal::print;
use crate::variables::variable;

/// Downloads the model and prints its folder; a note explains how to use it.
///
/// # Errors
/// The model is unknown, or the download failed; the received part is kept for the next run.
pub(super) fn run(args: &PullArgs) -> Result<(), CliError> {
    let options = HubOptions { refresh: true, ..HubOptions::from_env() };
    match hub::resolve(args.name(), &options, &mut *hub::for_stderr())? {
        ModelSource::Folder(dir) => {
            print(format_args!("{}\n", dir.display())).map_err(CliError::Output)?;
            tell_use(args.name());
            Ok(())
        }
        ModelSource::Demo => Err(CliError::DemoIsBuiltIn),
    }
}

/// Notes that a downloaded model is used only if it is named, which newcomers do not know.
fn tell_use(name: &str) {
    if variable("PHI3V_MODEL").is_none_or(|set| set.to_str() != Some(name)) {
        note!("use it with --model {name}, or for all commands: {}", setting("PHI3V_MODEL", name));
    }
}
