//! `phi3v man`: manual pages, one per command.

use crate::args::{Cli, ManArgs};
use crate::error::CliError;
use crate::output::{Output, write_all};
use clap::CommandFactory;
use clap_mangen::Man;

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written to, or a page is there and is to be kept.
pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let refused = |error| CliError::File { action: "write", path: args.dir.display().to_string(), error };
    let mut main = Cli::command();
    main.build();
    let commands = main.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut pages = Vec::new();
    for man in commands.chain([main.clone()]).map(Man::new) {
        let mut page = Vec::new();
        man.render(&mut page).map_err(refused)?;
        pages.push(Output { name: man.get_filename(), bytes: page.into() });
    }
    write_all(&args.dir, &pages, args.overwrite.existing())
}
