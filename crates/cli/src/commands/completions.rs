//! `phi3v completions`: a shell script that completes commands and flags.

use crate::args::{Cli, CompletionsArgs};
use crate::error::CliError;
use crate::terminal::print;
use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use phi3v::presets::PRESETS;

/// Model names to offer.
const MODELS: [&str; 3] = ["demo", "phi-3-vision", "phi-3.5-vision"];

/// The function that bash calls instead of the generated one. bash splits words at `=`, so for `--detail=h` the option is the
/// word before the `=`.
const BASH_WORDS: &str = r#"
_phi3v_words() {
    local cur="$2" prev="$3"
    if [[ "${cur}" == "=" ]]; then
        cur=""
    elif [[ "${prev}" == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    _phi3v "$1" "${cur}" "${prev}"
}
"#;

/// Prints the script.
///
/// # Errors
/// Stdout cannot be written to.
pub(super) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut command = with_hints(Cli::command(), args.shell);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "phi3v", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        script = script.replace("complete -F _phi3v ", "complete -F _phi3v_words ") + BASH_WORDS;
    }
    print(script).map_err(CliError::Output)
}

/// Adds to each argument what its value is: a file, a folder, one of known names, or free text.
fn with_hints(command: Command, shell: Shell) -> Command {
    let command = command.mut_args(|arg| with_hint(arg, shell));
    command.mut_subcommands(|command| with_hints(command, shell))
}

fn with_hint(arg: Arg, shell: Shell) -> Arg {
    // bash continues with files if no name fits; other shells would offer only the names
    let (presets, goes_on) = (PRESETS.iter().map(|preset| preset.name), shell == Shell::Bash);
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let has_values = !arg.get_possible_values().is_empty();
    match (arg.get_id().as_str(), value.as_deref()) {
        _ if !arg.get_action().takes_values() || has_values => arg,
        ("schema", _) if goes_on => {
            arg.value_parser(PossibleValuesParser::new(presets)).value_hint(ValueHint::Unknown)
        }
        ("schema", _) => arg.value_hint(ValueHint::FilePath),
        ("name", Some("PRESET")) => arg.value_parser(PossibleValuesParser::new(presets)),
        ("model" | "flag", _) if goes_on => arg.value_parser(PossibleValuesParser::new(MODELS)),
        ("model" | "flag", _) => arg.value_hint(ValueHint::AnyPath),
        (_, Some("FILE" | "FOLDER|FILE" | "IMAGE" | "IMAGE|QUESTION" | "INPUT")) => {
            arg.value_hint(ValueHint::FilePath)
        }
        (_, Some("DIR")) => arg.value_hint(ValueHint::DirPath),
        _ => arg.value_hint(ValueHint::Other),
    }
}
