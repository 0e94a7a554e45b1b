//! `phi3v chat`: several turns about the same pictures.
//!
//! Every turn sends the whole conversation; the engine's prefix cache makes that as cheap as its new part.

use crate::answer;
use crate::args::ChatArgs;
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::conversation::Conversation;
use crate::error::CliError;
use crate::images::{self, Picture, PictureOptions};
use crate::interrupt::Interrupt;
use crate::paths::from_home;
use crate::report::Stats;
use crate::runtime::{self, Runtime};
use crate::terminal::{AnswerOutput, TextSink, printable};
use phi3v::engine::FinishReason;
use rustyline::error::ReadlineError;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;

const HELP: &str = "\
/image PATH  add a picture to the next question
/reset       forget the conversation and its pictures
/help        this list
/quit        leave (Ctrl-D too)
Ctrl-C stops an answer. A question that begins with / is written with a space before it.";

/// Talks until the user leaves.
///
/// # Errors
/// [`CliError`]. On a terminal only what happens before the first question; in a script the first failed turn too.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    args.generation.check()?;
    images::check_names(&args.images, &args.picture.allow_url)?;
    if args.images.iter().any(|name| name == "-") {
        return Err(CliError::StdinTaken);
    }
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    let options = PictureOptions::new(&args.picture, &opened.checkpoint.preprocessor);
    let pictures = images::read_pictures(&args.images, &options)?;
    opened.tell_memory(args.report.verbose);
    let runtime = opened.load(&args.model)?;
    let mut session = Session {
        args,
        options,
        runtime,
        conversation: Conversation::new(args.generation.system.as_deref()),
        pending: Vec::new(),
        interrupt: Interrupt::install(),
    };
    for picture in pictures {
        session.add(picture);
    }
    let mut lines = Lines::new()?;
    if lines.interactive() {
        eprintln!("{} is ready; /help lists the commands", session.runtime.name);
    }
    while let Some(line) = lines.next()? {
        match session.turn(&line) {
            Ok(Turn::Leave) => break,
            Ok(Turn::Go) => {}
            Err(error) if lines.interactive() && !error.is_closed_pipe() => error.print(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

enum Turn {
    Go,
    Leave,
}

struct Session<'a> {
    args: &'a ChatArgs,
    options: PictureOptions,
    runtime: Runtime,
    conversation: Conversation,
    /// Pictures of the next question.
    pending: Vec<Picture>,
    interrupt: Interrupt,
}

impl Session<'_> {
    fn turn(&mut self, line: &str) -> Result<Turn, CliError> {
        let Some(command) = line.strip_prefix('/') else {
            if !line.trim().is_empty() {
                self.ask(line.trim())?;
            }
            return Ok(Turn::Go);
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("quit" | "exit", _) => return Ok(Turn::Leave),
            ("help", _) => eprintln!("{HELP}"),
            ("reset", _) => {
                self.conversation = Conversation::new(self.args.generation.system.as_deref());
                self.pending.clear();
                eprintln!("the conversation begins anew, without pictures");
            }
            ("image", "") => {
                let message = "/image needs the path of a picture".to_owned();
                return Err(CliError::ChatCommand { message });
            }
            ("image", "-") => return Err(CliError::StdinTaken),
            ("image", path) => self.add(images::read_picture(&typed(path), &self.options)?),
            (other, _) => {
                return Err(CliError::ChatCommand { message: format!("there is no command /{other}") });
            }
        }
        Ok(Turn::Go)
    }

    fn add(&mut self, picture: Picture) {
        if self.args.report.verbose {
            eprintln!("{}", picture.report());
        } else {
            eprintln!(
                "{} goes with the next question ({} tokens)",
                printable(&picture.name),
                picture.inputs.num_img_tokens()
            );
        }
        self.pending.push(picture);
    }

    /// Asks; a question that fails leaves the conversation and the waiting pictures as they were.
    fn ask(&mut self, question: &str) -> Result<(), CliError> {
        let mut conversation = self.conversation.clone();
        conversation.ask(self.pending.clone(), question);
        let request = conversation.request(&self.runtime, &self.args.generation, None)?;
        let mut stdout = AnswerOutput::new();
        self.interrupt.begin_answer();
        let answer = answer::generate(&mut self.runtime.engine, request, &mut stdout, &self.interrupt);
        self.interrupt.end_answer();
        let answer = answer?;
        stdout.piece("\n").map_err(CliError::Output)?;
        if self.args.report.stats {
            eprint!("{}", Stats(&answer.finished));
        }
        let cancelled = answer.finished.reason == FinishReason::Cancelled;
        if cancelled {
            eprintln!("(stopped)");
        }
        // what was stopped before its first word was not said
        if !(cancelled && answer.text.is_empty()) {
            conversation.answered(answer.text);
            self.conversation = conversation;
            self.pending.clear();
        }
        Ok(())
    }
}

/// The path of a file as it is typed for a shell or dropped on a terminal: in quotes, from `~/` on, or with backslashes.
fn typed(path: &str) -> OsString {
    let inner = ['"', '\''].iter().find_map(|&quote| path.strip_prefix(quote)?.strip_suffix(quote));
    let path = inner.unwrap_or(path);
    if inner.is_some() || Path::new(path).exists() {
        return path.into();
    }
    let mut plain = String::new();
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        let escaped = if cfg!(unix) && letter == '\\' { letters.next() } else { None };
        plain.push(escaped.unwrap_or(letter));
    }
    from_home(&plain).into()
}

/// What the user types: with editing and history on a terminal, plain lines otherwise.
enum Lines {
    Editor(Box<rustyline::DefaultEditor>),
    Plain,
}

impl Lines {
    fn new() -> Result<Self, CliError> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let editor = rustyline::DefaultEditor::new().map_err(terminal_error)?;
            return Ok(Self::Editor(Box::new(editor)));
        }
        Ok(Self::Plain)
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, CliError> {
        let Self::Editor(editor) = self else {
            let line = bounded::read_line(&mut std::io::stdin().lock(), TEXT_BYTES_MAX);
            return line.map_err(|error| CliError::File { action: "read", path: "stdin".to_owned(), error });
        };
        loop {
            match editor.readline("> ") {
                Ok(line) if line.len() > TEXT_BYTES_MAX => {
                    let error = bounded::too_large("the line", TEXT_BYTES_MAX);
                    CliError::File { action: "read", path: "the terminal".to_owned(), error }.print();
                }
                Ok(line) => {
                    // a history that is full or a line that is already there is no reason to stop
                    let _ = editor.add_history_entry(&line);
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => eprintln!("(Ctrl-D or /quit to leave)"),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(terminal_error(error)),
            }
        }
    }
}

fn terminal_error(error: ReadlineError) -> CliError {
    let error = match error {
        ReadlineError::Io(error) => error,
        other => std::io::Error::other(other),
    };
    CliError::File { action: "read", path: "the terminal".to_owned(), error }
}
