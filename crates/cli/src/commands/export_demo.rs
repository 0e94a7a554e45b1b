//! `phi3v export-demo`: writes the built-in model's files to a folder, for a look at them or for other programs.

use crate::args::ExportDemoArgs;
use crate::error::CliError;
use crate::terminal::print;
use std::path::Path;

/// Writes the files and prints the folder.
///
/// # Errors
/// The folder or a file cannot be written.
pub(super) fn run(args: &ExportDemoArgs) -> Result<(), CliError> {
    let refused = |path: &Path| {
        let path = path.display().to_string();
        move |error| CliError::File { action: "write", path, error }
    };
    std::fs::create_dir_all(&args.dir).map_err(refused(&args.dir))?;
    for (name, bytes) in phi3v::demo::FILES {
        let path = args.dir.join(name);
        std::fs::write(&path, bytes).map_err(refused(&path))?;
    }
    print(format_args!("{}\n", args.dir.display())).map_err(CliError::Output)
}
