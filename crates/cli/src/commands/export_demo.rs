//! `phi3v export-demo`: writes the built-in model's files to a folder, to look at or for other programs.

use crate::args::ExportDemoArgs;
use crate::error::CliError;
use crate::output::{Output, write_all};
use crate::terminal::print;

/// Writes the files and prints the folder's path.
///
/// # Errors
/// The folder or a file cannot be written, or a file exists and must be kept; then nothing is written.
pub(super) fn run(args: &ExportDemoArgs) -> Result<(), CliError> {
    let files =
        phi3v::demo::contents().map(|(name, bytes)| Output { name: name.to_owned(), bytes: bytes.into() });
    write_all(&args.dir, &files, args.overwrite.existing())?;
    print(format_args!("{}\n", args.dir.display())).map_err(CliError::Output)
}
