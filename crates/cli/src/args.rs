//! Every flag, once: help, completions, manual pages and docs/cli.md are made from these definitions.

mod batch;
mod decide;
mod form;
mod formats;
mod picture;
mod report;
mod serve;

pub use batch::{BatchArgs, Sidecar};
pub use decide::{CalibrateArgs, DecideArgs};
pub use form::{AnswerForm, FormArgs};
pub use formats::{BenchFormat, Bits, Dtype, Kv, QuantChoice};
pub use picture::{Detail, FrameArgs, PictureArgs, PictureLimitArgs};
pub use report::ReportArgs;
pub use serve::{AccessArgs, LimitArgs, LogFormat, ServeArgs};

use crate::error::{CliError, LooseQuestion};
use crate::paths::{has_picture_ending, is_loose_word};
use crate::sources::{self, AllowedHost, Grab, NamedImageError};
use crate::variables::variable;
use crate::version;
use clap::builder::{PathBufValueParser, RangedU64ValueParser, Resettable, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use phi3v::GenerationOptions;
use phi3v::device::DeviceChoice;
use phi3v::files::Existing;
use phi3v::model::ModelOptions;
use phi3v::sampler::{SamplerError, SamplingParams};
use phi3v::stop::StopStrings;
use phi3v::weights::Weights;
use phi3v::weights::quantized::Quant;
use phi3v_kernels::{Format, KvFormat};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
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
  PHI3V_MODEL      the model where none is named (but for bench and pull)
  PHI3V_DEVICE     what runs the model, as --device has it
  PHI3V_CPU        at most this CPU level: scalar, avx2, avx512, amx; on ARM neon, dotprod, i8mm
  PHI3V_CACHE      where quantized weights are kept; phi3v in ~/.cache or %LOCALAPPDATA% if unset
  HF_HOME          where downloaded models are kept, in hub/; ~/.cache/huggingface if unset
  HF_HUB_CACHE     the same, without hub/
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY  proxies for downloads, as curl has them
  SSL_CERT_FILE    certificates (PEM) that downloads trust, instead of those that the system trusts
  RUST_LOG         level of the server's log: off, error, warn, info, debug or trace
  XDG_CACHE_HOME   instead of ~/.cache and %LOCALAPPDATA% in both
  HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE  as the hub's own tools have them
  NO_COLOR         no colours
  A variable that is empty, or of blanks, counts as unset";

/// The model that answers where none is named.
pub const DEFAULT_MODEL: &str = phi3v::demo::NAME;

/// The model that is downloaded where none is named.
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

/// `phi3v ask`
#[derive(Debug, Args)]
#[command(
    override_usage = "phi3v ask [OPTIONS] [IMAGE|-]... <QUESTION>",
    after_long_help = "Examples:
  phi3v ask cover.jpg \"Help me get the title and author information of this book?\"
  phi3v ask before.png after.png \"What is difference in this two images?\"
  curl -s https://example.org/a.png | phi3v ask - \"Could you please introduce this stock to me?\"
  phi3v ask --allow-url images.example.org https://images.example.org/cat.jpg \"What is this?\"
  phi3v ask --json receipt.jpg \"What is the total?\" | jq -r .answer
  phi3v ask --schema @receipt receipt.jpg
  phi3v ask --choices yes,no photo.jpg \"Is there a dog in this picture?\""
)]
pub struct AskArgs {
    /// Pictures (files, addresses with --allow-url, or - for stdin), and last the question, which may call them image 1, image 2 and so on;
    /// a preset of --schema has one of its own
    // one argument, since flags may stand between its values
    #[arg(value_name = "IMAGE|QUESTION", required_unless_present_any = ["clipboard", "screen"])]
    pub inputs: Vec<OsString>,
    /// Look at the picture on the clipboard, before those that are named
    #[arg(long)]
    pub clipboard: bool,
    /// Look at the screen as it is now, before those that are named
    #[arg(long)]
    pub screen: bool,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Which frames of videos
    #[command(flatten)]
    pub frames: FrameArgs,
    /// Print one JSON object: answer, finish reason, usage, timings, model, pictures, words, and the fields of a form
    #[arg(long, short, help_heading = None::<&str>)]
    pub json: bool,
    /// What is told on stderr
    #[command(flatten)]
    pub report: ReportArgs,
    /// How the answer is made
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// The form of the answer
    #[command(flatten)]
    pub form: FormArgs,
    /// With --schema: print the answer as a table (CSV), a row for each object of an array or each row of a table
    #[arg(long, help_heading = "Form of the answer", requires = "schema", conflicts_with = "json")]
    pub csv: bool,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
    /// With --json: the logarithm of every token's probability, and of the N likeliest alternatives to it, 0 to 20
    #[arg(long, value_name = "N", help_heading = "Reports", requires = "json", value_parser = logprobs())]
    pub logprobs: Option<u8>,
}

/// `--logprobs`: as many as the sampler reports.
fn logprobs() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=SamplingParams::LOGPROBS_MAX as i64)
}

/// `phi3v chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Pictures to begin with: files, or addresses with --allow-url; more can be added with /image
    #[arg(value_name = "IMAGE")]
    pub images: Vec<OsString>,
    /// Which model
    #[command(flatten)]
    pub model: ModelArgs,
    /// How pictures are read
    #[command(flatten)]
    pub picture: PictureArgs,
    /// Which frames of videos
    #[command(flatten)]
    pub frames: FrameArgs,
    /// What is told on stderr
    #[command(flatten)]
    pub report: ReportArgs,
    /// How the answer is made
    #[command(flatten)]
    pub generation: GenerationArgs,
    /// The form of every answer
    #[command(flatten)]
    pub form: FormArgs,
    /// How much is kept
    #[command(flatten)]
    pub context: ContextArgs,
}

/// `phi3v pull`
#[derive(Debug, Args)]
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

/// The model as a flag, where it is an argument: other commands have it so.
#[derive(Debug, Args)]
pub struct ModelFlag {
    /// The same as MODEL, as other commands have it
    #[arg(long = "model", short = 'm', value_name = "NAME", conflicts_with = "model")]
    flag: Option<String>,
}

impl ModelFlag {
    /// What the flag has, or else the argument.
    fn or<'a>(&'a self, argument: Option<&'a str>) -> Option<&'a str> {
        self.flag.as_deref().or(argument)
    }
}

/// A model that is named by an argument or a flag.
#[derive(Debug, Args)]
pub struct NamedModelArgs {
    /// demo, phi-3-vision, phi-3.5-vision, a folder with a checkpoint, or a repository of a hub (OWNER/NAME or
    /// OWNER/NAME@REVISION) [default: demo]
    #[arg(value_name = "MODEL")]
    pub model: Option<String>,
    /// The model as a flag
    #[command(flatten)]
    pub flag: ModelFlag,
}

impl NamedModelArgs {
    /// The model's name: as given, or that of `PHI3V_MODEL`, or the built-in one.
    #[must_use]
    pub fn name(&self) -> String {
        // read here and not by clap, to which it would be an argument beside the flag
        let of_environment = || variable("PHI3V_MODEL").map(|name| name.to_string_lossy().into_owned());
        let given = self.flag.or(self.model.as_deref()).map(str::to_owned);
        given.or_else(of_environment).unwrap_or_else(|| DEFAULT_MODEL.to_owned())
    }
}

/// `phi3v schemas`
#[derive(Debug, Args)]
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
  phi3v completions bash > ~/.local/share/bash-completion/completions/phi3v
  phi3v completions zsh > \"${fpath[1]}/_phi3v\"
  phi3v completions fish > ~/.config/fish/completions/phi3v.fish
  phi3v completions elvish >> ~/.config/elvish/rc.elv
  phi3v completions powershell >> $PROFILE

The shell's next session knows them; bash needs its package bash-completion.")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `phi3v health`
#[derive(Debug, Args)]
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

/// Which model, and what it may use.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// demo, phi-3-vision, phi-3.5-vision, a folder with a checkpoint, a file made by phi3v quantize, or a repository
    /// of a hub (OWNER/NAME or OWNER/NAME@REVISION)
    #[arg(long, short, env = "PHI3V_MODEL", default_value = DEFAULT_MODEL, hide_env = true, help_heading = None::<&str>)]
    pub model: String,
    /// Arithmetic of the products; sums are always f32
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Quantize the weights, at first use, and keep the result for the next [default: q8 for a bf16 model of more than
    /// 1 GB with --dtype bf16, otherwise none]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub quant: Option<QuantChoice>,
    /// Storage of keys and values [default: q8 with quantized weights, otherwise as --dtype]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub kv: Option<Kv>,
    /// What it runs on
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What runs the model.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// What runs the model: auto (a graphics card where one is worth it), cpu, gpu, gpu:N (as phi3v info numbers them)
    /// or a part of a card's name
    #[arg(long, value_name = "DEVICE", env = "PHI3V_DEVICE", default_value = "auto", hide_env = true)]
    pub device: DeviceChoice,
    /// Threads of the processor [default: one per core, little ones left out]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// How much is kept of a conversation.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ContextArgs {
    /// Tokens that prompt and answer may have together [default: by free memory, up to 16384]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<usize>,
}

/// How the answer is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answer")]
pub struct GenerationArgs {
    /// Instructions that come before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Longest answer [default: 1000, or what the context leaves]
    #[arg(long, value_name = "TOKENS")]
    pub max_new_tokens: Option<usize>,
    /// End the answer before this text; repeat it for several
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// 0 always takes the likeliest token, 1 draws by the model's own probabilities, 2 is the most
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub temperature: f32,
    /// Draw from the K likeliest tokens; 0 is no limit
    #[arg(long, help_heading = "Sampling", value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that together have this probability: above 0, at most 1
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// Draw from tokens with at least this part of the likeliest one's probability: 0 to 1
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "P", default_value_t = 0.0)]
    pub min_p: f32,
    /// Make tokens that occurred less likely: divides their logits; 0.1 to 10, 1 is off
    #[arg(long, value_parser = number, help_heading = "Sampling", value_name = "R", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Make tokens of the answer less likely: taken off their logits once; -2 to 2
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "R",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub presence_penalty: f32,
    /// Make tokens of the answer less likely: taken off their logits for each time; -2 to 2
    #[arg(
        long,
        value_parser = number,
        help_heading = "Sampling",
        value_name = "R",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    pub frequency_penalty: f32,
    /// The same seed gives the same answer [default: another one every time]
    #[arg(long, help_heading = "Sampling", value_name = "N")]
    pub seed: Option<u64>,
}

/// A number that is not whole, as flags have it.
fn number(text: &str) -> Result<f32, &'static str> {
    text.trim().parse().map_err(|_| "write a number, as 0.5")
}

/// Bytes of weights above which a model is quantized unasked: below, there is little to be gained.
const QUANTIZED_MIN_BYTES: u64 = 1_000_000_000;

impl ModelArgs {
    /// How far a checkpoint with these weights is to be quantized; nothing for one that is already.
    #[must_use]
    pub fn quantized(&self, weights: &Weights) -> Option<Quant> {
        if weights.quant().is_some() {
            return None;
        }
        self.quantized_from(weights.dtype(), weights.bytes_total())
    }

    /// How far weights of `bytes` bytes in `format`, which is no quantized one, are to be quantized.
    #[must_use]
    pub fn quantized_from(&self, format: Format, bytes: u64) -> Option<Quant> {
        match self.quant {
            Some(choice) => choice.quant(),
            None => default_quant(self.dtype, format, bytes),
        }
    }

    /// The arithmetic for a model with these weights.
    #[must_use]
    pub fn options(&self, weights: &Weights) -> ModelOptions {
        self.options_when(weights.quant().is_some())
    }

    /// The arithmetic for a model whose weights are `quantized` by the time it is loaded.
    #[must_use]
    pub fn options_when(&self, quantized: bool) -> ModelOptions {
        let mut options = self.dtype.options();
        match self.kv {
            Some(kv) => options.kv_format = kv.format(),
            None if quantized => options.kv_format = KvFormat::Q8,
            None => {}
        }
        options
    }
}

/// What happens unasked: q8, which is near lossless, where it halves something large and no more exact arithmetic was
/// asked for.
fn default_quant(dtype: Dtype, format: Format, bytes: u64) -> Option<Quant> {
    (dtype == Dtype::Bf16 && format == Format::Bf16 && bytes > QUANTIZED_MIN_BYTES).then_some(Quant::Q8)
}

impl AskArgs {
    /// Pictures that are taken and not named.
    #[must_use]
    pub fn grabbed(&self) -> Vec<Grab> {
        let asked = [(Grab::Clipboard, self.clipboard), (Grab::Screen, self.screen)];
        asked.into_iter().filter(|(_, asked)| *asked).map(|(grab, _)| grab).collect()
    }

    /// The pictures' names, and the question: `own`, where there are pictures alone.
    ///
    /// # Errors
    /// The question is missing, empty or not text.
    pub fn images_and_question<'a>(
        &'a self,
        own: Option<&'a str>,
    ) -> Result<(&'a [OsString], &'a str), CliError> {
        let Some((question, images)) = self.inputs.split_last().filter(|(last, _)| !is_picture(last)) else {
            if let Some(own) = own {
                return Ok((&self.inputs, own));
            }
            let names = self.inputs.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            return Err(CliError::NoQuestion { names });
        };
        let question = question.to_str().ok_or(CliError::QuestionText)?;
        if question.trim().is_empty() {
            return Err(CliError::EmptyQuestion);
        }
        Ok((images, question))
    }
}

/// Refuses pictures that are not there, as [`sources::check_names`] does. Where a question was given without quotes, its
/// words are taken for pictures, of which the first that is none is told.
///
/// # Errors
/// [`CliError`]: the first picture that cannot be read.
pub fn check_pictures(
    images: &[OsString],
    last: Option<&str>,
    allowed: &[AllowedHost],
) -> Result<(), CliError> {
    let Err(error) = sources::check_names(images, allowed) else { return Ok(()) };
    let is_loose =
        |name: &OsString| name.to_str().is_some_and(|name| is_loose_word(name) && !is_picture(name.as_ref()));
    let NamedImageError::File { name, error: cause } = &error else { return Err(error.into()) };
    let first = images.iter().position(|image| image == name.as_str() && is_loose(image));
    let (Some(first), Some(last), ErrorKind::NotFound) = (first, last, cause.kind()) else {
        return Err(error.into());
    };
    // of who has put one in quotes the other is no part
    if last.contains(char::is_whitespace) {
        return Err(error.into());
    }
    let words = images[first..].iter().filter_map(|word| word.to_str()).chain([last]);
    let question = words.collect::<Vec<_>>().join(" ");
    Err(CliError::LooseQuestion(Box::new(LooseQuestion { error, question })))
}

/// Whether a word names a picture: stdin, a file, or one word that looks like the name or the address of one.
fn is_picture(word: &OsStr) -> bool {
    if word == "-" || Path::new(word).is_file() {
        return true;
    }
    let Some(text) = word.to_str().filter(|text| !text.contains(char::is_whitespace)) else { return false };
    let url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    url || has_picture_ending(text)
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
}

impl Cli {
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

impl GenerationArgs {
    /// Refuses what no model could follow, before one is loaded.
    ///
    /// # Errors
    /// The first flag out of range.
    pub fn check(&self) -> Result<(), CliError> {
        self.sampling(None).validate().map_err(of_flag)?;
        StopStrings::new(&self.stop).map_err(phi3v::Error::from)?;
        match self.max_new_tokens {
            Some(0) => Err(CliError::Unusable {
                message: "--max-new-tokens is 0, it must be at least 1".to_owned(),
                hint: Some("ask for at least one token, or leave it out".to_owned()),
            }),
            _ => Ok(()),
        }
    }

    /// The library's words for the sampling flags.
    #[must_use]
    pub fn sampling(&self, logprobs: Option<usize>) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
            logprobs,
        }
    }

    /// The library's words for all that decides about an answer.
    #[must_use]
    pub fn options(&self, logprobs: Option<usize>) -> GenerationOptions {
        let (sampling, max_new_tokens, stop) =
            (self.sampling(logprobs), self.max_new_tokens, self.stop.clone());
        GenerationOptions { sampling, max_new_tokens, stop }
    }
}

/// The library's error of an option of the sampler, by the flag that has it.
fn of_flag(error: SamplerError) -> CliError {
    match error {
        SamplerError::OutOfRange { name, value, range } => {
            let flag = format!("--{}", name.replace('_', "-"));
            let hint = Some(format!("leave {flag} out to use its default"));
            CliError::Unusable { message: format!("{flag} is {value}, it must be {range}"), hint }
        }
        other => phi3v::Error::from(other).into(),
    }
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

    #[test]
    fn large_bf16_models_are_quantized_unasked() {
        let real = 8_300_000_000;
        assert_eq!(default_quant(Dtype::Bf16, Format::Bf16, real), Some(Quant::Q8));
        assert_eq!(default_quant(Dtype::F32, Format::Bf16, real), None, "f32 was asked for");
        assert_eq!(default_quant(Dtype::Bf16, Format::Q4, real), None, "quantized already");
        assert_eq!(default_quant(Dtype::Bf16, Format::Bf16, 4_133_440), None, "the built-in model");
    }
}
