//! `phi3v export-demo`: writes the built-in model's files to a folder, for a look at them or for other programs.

use crate::args::ExportDemoArgs;
use crate::error::CliError;
use phi3v::files::NewFile;
use std::io::Write;

/// Writes the files and prints the folder.
///
/// # Errors
/// The folder or a file cannot be written, or a file is there and is to be kept; then none is written.
pub(super) fn run(args: &ExportDemoArgs) -> Result<(), CliError> {
    let refused = |error| CliError::File { action: "write", path: args.dir.display().to_string(), error };
    std::fs::create_dir_all(&args.dir).map_err(refused)?;
    let mut written = Vec::new();
    for (name, bytes) in phi3v::demo::FILES {
        let failed = |error| CliError::written(error, bytes.len() as u64);
        let mut file = NewFile::create(&args.dir.join(name), args.overwrite.existing()).map_err(failed)?;
        file.write(bytes).map_err(failed)?;
        written.push((file, bytes.len()));
    }
    // all of them fit on the disk
    for (file, bytes) in written {
        file.finish().map_err(|error| CliError::written(error, bytes as u64))?;
    }
    writeln!(std::io::stdout(), "{}", args.dir.display()).map_err(CliError::Output)
}
