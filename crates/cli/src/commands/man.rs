//! `phi3v man`: manual pages, one per command.

use crate::args::{Cli, ManArgs};
use crate::error::CliError;
use clap::CommandFactory;
use clap_mangen::Man;
use phi3v::files::NewFile;

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written to, or a page is there and is to be kept.
pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let refused = |error| CliError::File { action: "write", path: args.dir.display().to_string(), error };
    std::fs::create_dir_all(&args.dir).map_err(refused)?;
    let mut main = Cli::command();
    main.build();
    let commands = main.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for man in commands.chain([main.clone()]).map(Man::new) {
        let mut page = Vec::new();
        man.render(&mut page).map_err(refused)?;
        let failed = |error| CliError::written(error, page.len() as u64);
        let out = args.dir.join(man.get_filename());
        let mut file = NewFile::create(&out, args.overwrite.existing()).map_err(failed)?;
        file.write(&page).and_then(|()| file.finish()).map_err(failed)?;
    }
    Ok(())
}
