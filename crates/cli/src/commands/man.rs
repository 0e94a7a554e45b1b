//! `phi3v man`: manual pages, one per command.

use crate::args::{Cli, ManArgs};
use crate::error::CliError;
use crate::output::{Output, write_all};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io;

/// Writes the pages.
///
/// # Errors
/// The folder cannot be written to, or a page exists and must be kept.
pub(super) fn run(args: &ManArgs) -> Result<(), CliError> {
    let refused = |error| CliError::File { action: "write", path: args.dir.display().to_string(), error };
    let mut main = Cli::command();
    main.build();
    let is_told = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    let commands = main.get_subcommands().filter(is_told).cloned();
    let mut pages = Vec::new();
    for command in commands.chain([main.clone()]) {
        let (name, bytes) = page(command).map_err(refused)?;
        pages.push(Output { name, bytes: bytes.into() });
    }
    write_all(&args.dir, &pages, args.overwrite.existing())
}

/// The name and contents of a command's page. The text below its help becomes sections, line by line, because it consists of
/// tables and of commands to copy.
fn page(command: Command) -> io::Result<(String, Vec<u8>)> {
    let below = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let (has_commands, has_version) = (command.has_subcommands(), command.get_version().is_some());
    let (man, mut page) = (Man::new(command), Vec::new());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(sections(&below.unwrap_or_default()).into_bytes());
    if has_version {
        man.render_version_section(&mut page)?;
    }
    Ok((man.get_filename(), page))
}

/// Converts the text below a help to sections: an unindented line that ends with a colon is a heading.
fn sections(text: &str) -> String {
    let mut sections = String::new();
    let mut is_open = false;
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|heading| !heading.starts_with(' '));
        if let Some(heading) = heading {
            let end = if is_open { ".fi\n" } else { "" };
            sections += &format!("{end}.SH \"{}\"\n.nf\n", section_name(heading));
            is_open = true;
        } else if !line.is_empty() {
            sections += &format!("{}\n", roff(line));
        }
    }
    if is_open { sections + ".fi\n" } else { sections }
}

/// A heading of the help, in the style of manual pages.
fn section_name(heading: &str) -> String {
    if heading == "Exit codes" { "EXIT STATUS".to_owned() } else { heading.to_uppercase() }
}

/// A literal line in roff.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if line.starts_with('.') { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_a_help_keeps_its_lines() {
        let text = "Exit codes:\n  0    done\n  1    not\n\nExamples:\n  phi3v ask -j 'a\\b'\n.x";
        let told = ".SH \"EXIT STATUS\"\n.nf\n  0    done\n  1    not\n.fi\n.SH \"EXAMPLES\"\n.nf\n  phi3v ask \\-j \\(aqa\\eb\\(aq\n\\&.x\n.fi\n";
        assert_eq!(sections(text), told);
        assert_eq!(sections(""), "");
    }
}
