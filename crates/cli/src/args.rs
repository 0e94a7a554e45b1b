//! Every flag, once: help, completions, manual pages and docs/cli.md are made from these definitions.

mod ask;
mod batch;
mod decide;
mod form;
mod formats;
mod generation;
mod model;
mod picture;
mod report;
mod serve;

pub use ask::{AskArgs, ChatArgs, check_pictures};
pub use batch::{BatchArgs, Sidecar};
pub use decide::{CalibrateArgs, DecideArgs};
pub use form::{AnswerForm, FormArgs};
pub use formats::{BenchFormat, Bits, Dtype, Kv, QuantChoice};
pub use generation::GenerationArgs;
pub use model::{ContextArgs, DeviceArgs, ModelArgs, ModelFlag, NamedModelArgs};
pub use picture::{Detail, FrameArgs, PictureArgs, PictureLimitArgs};
pub use report::ReportArgs;
pub use serve::{AccessArgs, LimitArgs, LogFormat, ServeArgs};

use crate::variables::variable;
use crate::version;
use clap::builder::{PathBufValueParser, RangedU64ValueParser, Resettable, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use phi3v::files::Existing;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Printed below the help; the numbers are those of [`crate::error::ExitCode`].
const EXIT_CODES: &str = "Exit codes:
  0    done (also when the reader of a pipe left early)
  1    something else went wrong
  2    wrong usage
  3    a picture cannot be read
  4    the model cannot be found, read or downloaded
  5    memory or context are too small
  6    a batch is done, and some of its inputs failed
  130  stopped by Ctrl-C, a batch also by SIGTERM

Environment:
  PHI3V_MODEL      the model where none is named (but for bench and pull, and in Python)
  PHI3V_DEVICE     what runs the model, as --device has it
  PHI3V_CPU        at most this CPU level: scalar, avx2, avx512, amx; on ARM neon, dotprod, i8mm
  PHI3V_CACHE      where quantized weights are kept; phi3v in ~/.cache or %LOCALAPPDATA% if unset
  HF_HOME          where downloaded models are kept, in hub/; ~/.cache/huggingface if unset
  HF_HUB_CACHE     the same, without hub/
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY  proxies for downloads, as curl has them
  SSL_CERT_FILE    certificates (PEM) that downloads trust, instead of those that the system trusts
  SSL_CERT_DIR     a folder of them
  RUST_LOG         level of the server's log: off, error, warn, info, debug or trace
  XDG_CACHE_HOME   instead of ~/.cache and %LOCALAPPDATA% in both
  HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HUGGING_FACE_HUB_TOKEN, HF_HUB_DISABLE_IMPLICIT_TOKEN,
  HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HUGGINGFACE_HUB_CACHE  as the hub's own tools have them
  NO_COLOR         no colours
  A variable that is empty, or of blanks, counts as unset";

/// The model that answers if none is named.
pub const DEFAULT_MODEL: &str = phi3v::demo::NAME;

/// The model that is downloaded if none is named.
pub const DEFAULT_PULL: &str = "phi-3.5-vision";

/// Ask questions about pictures, on your own machine
///
/// phi3v runs Phi-3-vision and Phi-3.5-vision: it describes pictures and charts, reads text, compares pictures and
/// chats about them. Nothing leaves the machine; models are downloaded once.
#[derive(Debug, Parser)]
#[command(name = "phi3v", version = version::long(), after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// Only answers, errors and what is asked for: no notes, no bars
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What phi3v can do.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one; on Windows its sizes differ more")]
pub enum Command {
    /// Answer one question about pictures
    ///
    /// The answer goes to stdout as it is made, everything else to stderr.
    Ask(AskArgs),
    /// Ask the same about many pictures, and keep every result
    ///
    /// Results are appended to a file as they come. However it is stopped, the same command continues where it left off: nothing
    /// is lost and nothing is asked twice.
    Batch(BatchArgs),
    /// Talk about pictures, several turns
    ///
    /// A line is a question; /help lists the commands. On a terminal lines can be edited and recalled.
    Chat(ChatArgs),
    /// Say how probable each of some answers is
    ///
    /// Nothing is generated: each choice is scored as the model's whole answer, and the likeliest is printed with the
    /// probabilities of all. What several questions about the same pictures have in common is computed once.
    Decide(DecideArgs),
    /// Fit temperatures to labelled pictures, so that decide's probabilities mean what they say
    ///
    /// Prints how often the likeliest choice is right, and how far the probabilities were from that before and are after.
    Calibrate(CalibrateArgs),
    /// Answer over HTTP: an OpenAI-compatible API, and a page
    Serve(ServeArgs),
    /// Download a model, or what is new of it, and print its folder
    Pull(PullArgs),
    /// List the presets that --schema knows, or print one
    Schemas(SchemasArgs),
    /// Show the model, the processor, graphics cards and what memory will be used
    Info(InfoArgs),
    /// Quantize a model to one file
    ///
    /// The file holds the whole model, tokenizer and configuration included: give it to --model. The model it is made
    /// from is not changed.
    Quantize(QuantizeArgs),
    /// Measure the model's speed on this machine
    ///
    /// No model is needed: without --model the weights are random, of the real model's shapes. Shares compare with what
    /// the machine can do at most, measured first. Close other programs: they take part of both. A share above 100 %
    /// means that the machine was slower when its limit was measured, or that a model is so small that its weights stay
    /// in the processor's caches, which are faster than memory.
    Bench(BenchArgs),
    /// Compare forms of a model with each other
    ///
    /// Every prompt is asked about every picture. The reference answers greedily; each candidate is then asked, at every
    /// token, what it would have said.
    Eval(EvalArgs),
    /// Record every stage of a raw prompt, for comparison with the reference
    ///
    /// Pictures are read and the prompt is tokenized exactly as the reference does. The file holds pixel_values.{i},
    /// image_sizes, input_ids, vision_features.{i}, image_embeds.{i}, hidden_states.{l}, final_norm, logits and
    /// generated_ids; pictures count from 1, the rows of picture i in input_ids are -i. hidden_states.0 are the
    /// embeddings and hidden_states.{l} is what layer l - 1 puts out; that of the last layer is raw too, and
    /// final_norm is what the final norm makes of it. (The reference's own tuple of hidden states ends with the normed
    /// one instead.) generated_ids leaves out the stop token.
    Trace(TraceArgs),
    /// Ask a running server whether it lives
    ///
    /// Prints "healthy", or ends with 1: the health check of a container or a service.
    Health(HealthArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Write the files of the built-in demo model to a folder
    ExportDemo(ExportDemoArgs),
}

/// `phi3v pull`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v pull
  phi3v ask --model phi-3.5-vision photo.jpg \"What is this?\"
  phi3v pull phi-3-vision")]
pub struct PullArgs {
    /// phi-3-vision, phi-3.5-vision, or a repository of a hub: OWNER/NAME or OWNER/NAME@REVISION [default: phi-3.5-vision]
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// The model as a flag
    #[command(flatten)]
    pub flag: ModelFlag,
}

impl PullArgs {
    /// The model that is to be downloaded.
    #[must_use]
    pub fn name(&self) -> &str {
        self.flag.or(self.model.as_deref()).unwrap_or(DEFAULT_PULL)
    }
}

/// `phi3v schemas`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v schemas
  phi3v schemas @receipt > fields.json
  phi3v ask --schema fields.json receipt.jpg \"Read this receipt.\"")]
pub struct SchemasArgs {
    /// The preset whose schema is printed, such as @receipt
    #[arg(value_name = "PRESET")]
    pub name: Option<String>,
    /// Print JSON: name, what it is for, question and schema
    #[arg(long, short)]
    pub json: bool,
}

/// `phi3v info`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v info
  phi3v info --model phi-3.5-vision --quant q4
  phi3v info --model phi-3.5-vision --json | jq .memory")]
pub struct InfoArgs {
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
    /// Print one JSON object
    #[arg(long, short)]
    pub json: bool,
    /// Which parts of the graphics support were tried on which cards, and which were not
    #[arg(long, short)]
    pub verbose: bool,
}

/// `phi3v trace`
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("text").required(true),
    after_long_help = "Examples:
  phi3v trace --prompt \"Hello.\" --out trace.safetensors
  phi3v trace --image a.png --prompt-file prompt.txt --hidden-states --out a.safetensors",
    // as the reference's own figures, which a trace is compared with
    mut_arg("dtype", |dtype| dtype.default_value("f32")),
    mut_arg("quant", |quant| quant.help("Quantize the weights, at first use, and keep the result [default: none]"))
)]
pub struct TraceArgs {
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// The raw prompt; special tokens and <|image_1|> are parsed
    #[arg(long, value_name = "TEXT", group = "text")]
    pub prompt: Option<String>,
    /// A file with the raw prompt, taken to the last byte
    #[arg(long, value_name = "FILE", group = "text")]
    pub prompt_file: Option<PathBuf>,
    /// A picture; repeat it for several
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<OsString>,
    /// Most tiles that a picture is cut into: 1 to 256 [default: the model's own]
    #[arg(long, value_name = "N", value_parser = picture::num_crops())]
    pub num_crops: Option<usize>,
    /// Length of the greedy continuation
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_new_tokens: usize,
    /// Record the rows between the decoder's layers too
    #[arg(long)]
    pub hidden_states: bool,
    /// The file to write, in safetensors format
    #[arg(long, value_name = "FILE", value_parser = written_path())]
    pub out: PathBuf,
    /// What a picture may cost
    #[command(flatten)]
    pub limits: PictureLimitArgs,
    /// What will be taken of the memory, on stderr; told of models of more than 1 GB in any case
    #[arg(long, short)]
    pub verbose: bool,
    /// Whether it may replace what is there
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
}

/// `phi3v quantize`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v quantize phi-3.5-vision --to q4
  phi3v ask --model Phi-3.5-vision-instruct-q4.safetensors photo.jpg \"What is this?\"")]
pub struct QuantizeArgs {
    /// Which model
    #[command(flatten)]
    pub model: NamedModelArgs,
    /// How far: q8 is near lossless, q4 takes three fifths of its space
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "q8")]
    pub to: Bits,
    /// The file to write [default: NAME-q8.safetensors or NAME-q4.safetensors in this folder]
    #[arg(long, value_name = "FILE", value_parser = written_path())]
    pub out: Option<PathBuf>,
    /// Whether it may replace what is there
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
}

/// `phi3v bench`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v bench --quick
  phi3v bench --format q4 --depth 4096,16384
  phi3v bench --model phi-3.5-vision --device cpu --json")]
pub struct BenchArgs {
    /// Measure this model instead of random weights: a name, a folder, or a quantized file
    #[arg(long, short)]
    pub model: Option<String>,
    /// Formats of random weights to measure, separated by commas; not with --model
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', default_values = ["q8", "q4"])]
    #[arg(conflicts_with = "model")] // which has its own
    pub format: Vec<BenchFormat>,
    /// Storage of keys and values [default: q8 with quantized weights, otherwise bf16]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub kv: Option<Kv>,
    /// Also decode after so many tokens, separated by commas; their keys and values are made up
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub depth: Vec<usize>,
    /// What the model runs on
    #[command(flatten)]
    pub device: DeviceArgs,
    /// One tile, 512 tokens and no more: half a minute instead of some minutes
    #[arg(long)]
    pub quick: bool,
    /// Print one JSON object
    #[arg(long, short)]
    pub json: bool,
}

/// `phi3v eval`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v eval phi-3.5-vision --prompt \"What is the total?\" --image receipt.jpg
  phi3v eval phi-3.5-vision --quant q4 --prompt \"Describe it.\" --image a.jpg --image b.jpg --json")]
pub struct EvalArgs {
    /// Which model
    #[command(flatten)]
    pub model: NamedModelArgs,
    /// A question; repeat it for several
    #[arg(long, value_name = "TEXT", required = true)]
    pub prompt: Vec<String>,
    /// A picture; repeat it for several. Without one the questions are asked as they are
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<OsString>,
    /// Arithmetic of the reference, which has the checkpoint's weights
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub reference: Dtype,
    /// Candidates: how far their weights are quantized, separated by commas
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', default_values = ["q8", "q4"])]
    pub quant: Vec<QuantChoice>,
    /// Storage of the candidates' keys and values, separated by commas
    #[arg(long, value_enum, value_name = "FORMAT", value_delimiter = ',', default_values = ["q8"])]
    pub kv: Vec<Kv>,
    /// Tokens of an answer that are compared
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_new_tokens: usize,
    /// Most tiles that a picture is cut into: 1 to 256 [default: the model's own]
    #[arg(long, value_name = "N", value_parser = picture::num_crops())]
    pub num_crops: Option<usize>,
    /// What the models run on
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object
    #[arg(long, short)]
    pub json: bool,
    /// What a picture may cost
    #[command(flatten)]
    pub limits: PictureLimitArgs,
}

/// `phi3v completions`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  phi3v completions bash > ~/.local/share/bash-completion/completions/phi3v
  mkdir -p ~/.zfunc
  phi3v completions zsh > ~/.zfunc/_phi3v
  mkdir -p ~/.config/fish/completions
  phi3v completions fish > ~/.config/fish/completions/phi3v.fish
  phi3v completions elvish >> ~/.config/elvish/rc.elv
  phi3v completions powershell | Out-String | Invoke-Expression

The last is a line to write into PowerShell's $PROFILE.
zsh looks there where ~/.zshrc has: fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit
The shell's next session knows them; bash needs its package bash-completion.")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `phi3v health`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v health
  phi3v health https://phi3v.example.org --timeout 2")]
pub struct HealthArgs {
    /// Where the server is; http:// may be left out
    #[arg(default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Longest time to wait for its answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
}

/// `phi3v export-demo`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v export-demo demo
  phi3v ask --model ./demo examples/cover.png \"What is the title?\"")]
pub struct ExportDemoArgs {
    /// The folder to write to; it is made if need be
    #[arg(value_name = "DIR", value_parser = written_path())]
    pub dir: PathBuf,
    /// Whether it may replace what is there
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
}

/// `phi3v man`
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  phi3v man ~/.local/share/man/man1
  man phi3v-ask")]
pub struct ManArgs {
    /// The folder to write phi3v.1, phi3v-ask.1 and so on to; it is made if need be
    #[arg(value_name = "DIR", value_parser = written_path())]
    pub dir: PathBuf,
    /// Whether it may replace what is there
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
}

/// The path of a file or folder that is written.
pub(crate) fn written_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        if path == Path::new("-") {
            Err("it is written to a file and not to stdout; give a name, or ./- for this one")
        } else {
            Ok(path)
        }
    })
}

/// What becomes of files that are there.
#[derive(Clone, Copy, Debug, Args)]
pub struct OverwriteArgs {
    /// Replace a file that exists already
    #[arg(long)]
    pub force: bool,
}

impl OverwriteArgs {
    /// What becomes of a file that is there.
    #[must_use]
    pub fn existing(self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Keep }
    }
}

impl Cli {
    /// From the words of the command line, the program's name first. The question of `ask` or `decide` may begin with a dash
    /// where it comes last: of several words it can be no flag.
    ///
    /// # Errors
    /// clap's own, help and version included.
    pub fn from_words(mut words: Vec<OsString>) -> Result<Self, clap::Error> {
        let error = match Self::parse_words(&words) {
            Ok(cli) => return Ok(cli),
            Err(error) => error,
        };
        let Some(last) = words.pop() else { return Err(error) };
        if !last.to_str().is_some_and(|text| text.starts_with('-') && text.contains(char::is_whitespace)) {
            return Err(error);
        }
        words.extend([OsString::from("--"), last]);
        match Self::parse_words(&words) {
            Ok(cli) if matches!(cli.command, Command::Ask(_) | Command::Decide(_)) => Ok(cli),
            _ => Err(error),
        }
    }

    fn parse_words(words: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = without_empty_variables(Self::command());
        let matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// The command without the variables that count as unset.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if variable(name).is_none() => arg.env(Resettable::Reset),
        _ => arg,
    });
    command.mut_subcommands(without_empty_variables)
}

/// docs/cli.md: the help of every command.
#[must_use]
pub fn reference_page() -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut page = "# Command line\n\nMade from `phi3v --help`; `UPDATE_DOCS=1 cargo test -p phi3v-cli docs` renews it.\n".to_owned();
    let mut add = |title: &str, help: String| {
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    };
    add("phi3v", command.render_long_help().to_string());
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        let title = format!("phi3v {}", sub.get_name());
        add(&title, sub.clone().term_width(100).render_long_help().to_string());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_fit_a_line_of_the_help() {
        let mut seen = 0;
        for command in Cli::command().get_subcommands() {
            let examples = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            for line in examples.lines() {
                assert!(line.chars().count() <= 98, "{}: {line}", command.get_name());
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} lines");
    }

    /// Its script begins with `using namespace`, which may stand nowhere but at a script's start, and a profile has lines before it.
    #[test]
    fn powershell_s_completions_are_not_appended_to_a_profile() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::PowerShell, &mut Cli::command(), "phi3v", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.trim_start().starts_with("using namespace "), "{}", &script[..80]);
        let page = reference_page();
        let told: Vec<&str> = page.lines().filter(|line| line.contains("completions powershell")).collect();
        assert_eq!(told, ["  phi3v completions powershell | Out-String | Invoke-Expression"]);
    }
}
