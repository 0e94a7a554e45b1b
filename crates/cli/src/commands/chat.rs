//! `phi3v chat`: several turns about the same pictures.
//!
//! Every turn sends the whole conversation; with the engine's prefix cache this costs no more than its new part.

mod complete;
mod paths;

use crate::answer::{self, Cut, Until};
use crate::args::ChatArgs;
use crate::bounded::{self, TEXT_BYTES_MAX};
use crate::conversation::Conversation;
use crate::error::CliError;
use crate::interrupt::{HOW_TO_LEAVE, Interrupt};
use crate::report::Stats;
use crate::runtime::{self, Runtime};
use crate::sources::{self, Grab, ImageOptions, NamedImage, NamedImageError};
use crate::terminal::{answer_output, printable};
use crate::{note, tell};
use complete::Completion;
use paths::{Named, named, typed};
use phi3v::constraint::{Constraint, GrammarConstraint};
use phi3v::engine::FinishReason;
use phi3v::error::count;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::mpsc::Receiver;

const HELP: &str = "\
/image PATH  add a picture to the next question (Tab completes the path)
/paste       add the picture on the clipboard to the next question
/reset       forget the conversation and its pictures
/help        this list
/quit        leave (Ctrl-D too)
Ctrl-C stops an answer; twice more while it is being stopped ends chat.
A question that begins with / is written with a space before it.";

/// The advice if the context is full.
const MAKES_ROOM: &str = "/reset makes room, and chat --context gives more of it";

/// Runs the conversation until the user leaves.
///
/// # Errors
/// [`CliError`]. On a terminal only errors before the first question; in a script also the first turn that fails or is
/// stopped.
pub(super) fn run(args: &ChatArgs) -> Result<(), CliError> {
    talk(args).map_err(CliError::in_chat)
}

fn talk(args: &ChatArgs) -> Result<(), CliError> {
    args.generation.check()?;
    let form = args.form.form()?;
    sources::check_names(&args.images, &args.picture.allow_url)?;
    if args.images.iter().any(|name| name == "-") {
        return Err(CliError::StdinTaken);
    }
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    let options = args.picture.options(&opened.checkpoint.preprocessor).with_frames(args.frames.choice());
    let constraint = form.as_ref().map(|form| form.constraint(&opened.checkpoint.tokenizer)).transpose()?;
    opened.tell_demo();
    opened.tell_memory(args.report.verbose);
    // pictures are prepared while the model loads, and while earlier ones are encoded
    let coming = sources::read_ahead(Vec::new(), args.images.clone(), options.clone())?;
    let is_demo = opened.is_demo;
    let runtime = opened.load(&args.model)?;
    let mut session = Session {
        args,
        options,
        runtime,
        is_demo,
        conversation: Conversation::new(args.generation.system.as_deref()),
        pending: Vec::new(),
        constraint,
        question: form.and_then(|form| form.question),
        interrupt: Interrupt::install(),
    };
    session.receive(&coming)?;
    let mut lines = Lines::new()?;
    if lines.interactive() {
        session.interrupt.stay();
        note!("{} is ready; /help lists the commands", session.runtime.name);
    }
    while let Some(line) = lines.next()? {
        match session.turn(&line, &mut lines) {
            Ok(Turn::Leave) => break,
            Ok(Turn::Go) => {}
            Err(CliError::Interrupted) if lines.interactive() => note!("(stopped)"),
            Err(error) if lines.interactive() && !error.is_closed_pipe() => error.in_chat().print(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Pictures prepared by another thread.
type Coming = Receiver<Result<NamedImage, NamedImageError>>;

enum Turn {
    Go,
    Leave,
}

struct Session<'a> {
    args: &'a ChatArgs,
    options: ImageOptions,
    runtime: Runtime,
    /// Whether the built-in model answers.
    is_demo: bool,
    conversation: Conversation,
    /// Pictures that belong to the next question.
    pending: Vec<NamedImage>,
    /// The constraint that enforces a form, in its initial state.
    constraint: Option<GrammarConstraint>,
    /// A preset's question, used for new pictures if the line is empty.
    question: Option<&'static str>,
    interrupt: Interrupt,
}

impl Session<'_> {
    fn turn(&mut self, line: &str, lines: &mut Lines) -> Result<Turn, CliError> {
        // an absolute path is not a command, and a command's picture needs no offer
        let named = named(line);
        if !named.pictures.is_empty() && (!line.starts_with('/') || named.first) {
            return self.offer(line, named, lines);
        }
        let Some(command) = line.strip_prefix('/') else {
            let own = self.question.filter(|_| !self.pending.is_empty()).unwrap_or_default();
            let question = if line.trim().is_empty() { own } else { line.trim() };
            if !question.is_empty() {
                self.ask(question)?;
            }
            return Ok(Turn::Go);
        };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("quit" | "exit", _) => return Ok(Turn::Leave),
            ("help", _) => tell!("{HELP}"),
            ("reset", _) => {
                self.conversation = Conversation::new(self.args.generation.system.as_deref());
                self.pending.clear();
                note!("the conversation begins anew, without pictures");
            }
            ("paste", _) => self.add(sources::read_grabbed(Grab::Clipboard, &self.options)?),
            ("image", "") => {
                let message = "/image needs the path of a picture".to_owned();
                return Err(CliError::ChatCommand { message });
            }
            ("image", "-") => return Err(CliError::StdinTaken),
            ("image", path) => self.show(vec![typed(path)])?,
            (other, _) => {
                return Err(CliError::ChatCommand { message: format!("there is no command /{other}") });
            }
        }
        Ok(Turn::Go)
    }

    /// Handles a line that names pictures: on a terminal the user may show them to the model; a script has `/image` for that.
    fn offer(&mut self, line: &str, named: Named, lines: &mut Lines) -> Result<Turn, CliError> {
        let Named { pictures, question, .. } = named;
        let names: Vec<String> = pictures.iter().map(|path| path.display().to_string()).collect();
        let names = printable(&names.join(", ")).into_owned();
        if !lines.interactive() {
            note!(
                "note: {names} is there, but not shown to the model; /image PATH before the question does it"
            );
            self.ask(line.trim())?;
            return Ok(Turn::Go);
        }
        match lines.confirm(&format!("Show {names} to the model? [Y/n] "))? {
            Some(true) => {
                self.show(pictures.into_iter().map(Into::into).collect())?;
                if !question.is_empty() {
                    self.ask(&question)?;
                }
            }
            // a path alone is not a question
            Some(false) if !question.is_empty() => self.ask(line.trim())?,
            _ => {}
        }
        Ok(Turn::Go)
    }

    /// Adds the pictures at `paths`, all or none.
    fn show(&mut self, paths: Vec<OsString>) -> Result<(), CliError> {
        self.receive(&sources::read_ahead(Vec::new(), paths, self.options.clone())?)
    }

    /// Adds the pictures that arrive. While one is being prepared, earlier ones pass through the vision tower; the user waits
    /// only for that.
    fn receive(&mut self, coming: &Coming) -> Result<(), CliError> {
        self.interrupt.begin_answer();
        let engine = &mut self.runtime.engine;
        let received = answer::encode_pictures(engine, coming, Until::Prepared, &self.interrupt);
        self.interrupt.end_answer();
        let (pictures, _) = received?;
        pictures.into_iter().for_each(|picture| self.add(picture));
        Ok(())
    }

    fn add(&mut self, picture: NamedImage) {
        if self.args.report.verbose {
            tell!("{}", picture.report());
        } else {
            let tokens = count(picture.inputs.num_img_tokens(), "token");
            note!("{} goes with the next question ({tokens})", picture.name);
        }
        self.pending.push(picture);
    }

    /// Asks a question. If it fails, the conversation and the waiting pictures stay unchanged. If Ctrl-C stops the answer
    /// ([`CliError::Interrupted`]), its text so far is kept.
    fn ask(&mut self, question: &str) -> Result<(), CliError> {
        let mut conversation = self.conversation.clone();
        conversation.ask(&self.pending, question);
        let unsure = self.args.report.unsure;
        let is_doubted = self.is_demo && self.constraint.is_none();
        let logprobs = (unsure || is_doubted).then_some(0);
        let mut request = conversation.request(&self.runtime, &self.args.generation, logprobs)?;
        let constraint = self.constraint.clone();
        request.constraint = constraint.map(|constraint| Box::new(constraint) as Box<dyn Constraint>);
        let mut stdout = answer_output(unsure);
        self.interrupt.begin_answer();
        let answer = answer::generate(&mut self.runtime.engine, request, &mut *stdout, &self.interrupt);
        self.interrupt.end_answer();
        let answer = answer?;
        stdout.piece("\n").map_err(CliError::Output)?;
        if is_doubted {
            answer::tell_doubt(&answer);
        }
        let is_wanted = self.args.generation.max_new_tokens.is_some() && self.constraint.is_none();
        if !is_wanted {
            let cut = Cut::of(&answer, self.runtime.engine.context_tokens());
            answer::tell_cut(&answer, cut, MAKES_ROOM);
        }
        if self.args.report.stats {
            tell!("{}", Stats(&answer.finished));
        }
        let cancelled = answer.finished.reason == FinishReason::Cancelled;
        // an answer stopped before its first word is not part of the conversation
        if !(cancelled && answer.text.is_empty()) {
            conversation.answered(answer.text);
            self.conversation = conversation;
            self.pending.clear();
        }
        if cancelled { Err(CliError::Interrupted) } else { Ok(()) }
    }
}

/// The user's input: with editing and history on a terminal, otherwise plain lines.
enum Lines {
    Editor(Box<Editor<Completion, DefaultHistory>>),
    Plain,
}

impl Lines {
    fn new() -> Result<Self, CliError> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let config = Config::builder().completion_type(CompletionType::List).build();
            let mut editor = Editor::with_config(config).map_err(terminal_error)?;
            editor.set_helper(Some(Completion::new()));
            return Ok(Self::Editor(Box::new(editor)));
        }
        Ok(Self::Plain)
    }

    fn interactive(&self) -> bool {
        matches!(self, Self::Editor(_))
    }

    /// Whether the user answers `question` with yes or just Enter; `None` if the prompt is left, or there is no terminal.
    fn confirm(&mut self, question: &str) -> Result<Option<bool>, CliError> {
        let Self::Editor(editor) = self else { return Ok(None) };
        match editor.readline(question) {
            Ok(answer) => Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => Ok(None),
            Err(error) => Err(terminal_error(error)),
        }
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
                    // a full history or a repeated line is no reason to stop
                    let _ = editor.add_history_entry(&line);
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => tell!("{HOW_TO_LEAVE}"),
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
