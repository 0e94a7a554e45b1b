//! The simplest way to use phi3v: open a model by name or folder, give it images and a question, and receive the answer
//! as it is generated.

use crate::batch::{Answer, Asked, Batch, Coming};
use crate::checkpoint::Checkpoint;
use crate::conversation::{Conversation, GenerationOptions};
use crate::decide::{Decision, Question};
use crate::device::{Device, DeviceOptions};
use crate::engine::{Engine, EngineOptions, Event, FinishReason, Finished, Request, Timings, Token, Usage};
use crate::files::{ReadError, open_regular, read_to_limit};
use crate::image::{self, ImageInputs, ImageLimits, ImageMode, ImageParams, RgbImage, Size};
use crate::memory::{MemoryPlan, MemoryRequest};
use crate::model::{ModelOptions, Phi3V};
use crate::tokenizer::Tokenizer;
use crate::{Result, demo};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A loaded model on a device of this machine, ready to answer.
///
/// It owns everything it needs and may be moved to another thread. For many requests at once, use its
/// [`engine`](Self::into_engine).
///
/// ```
/// use phi3v::Session;
///
/// fn is_send<T: Send>() {}
/// is_send::<Session>();
/// ```
pub struct Session {
    /// How answers are chosen and where they end; greedy by default.
    pub generation: GenerationOptions,
    /// Limits for image files; a larger file is refused before memory is allocated for its pixels.
    pub image_limits: ImageLimits,
    /// How image files are read: as people see them, by default.
    pub image_mode: ImageMode,
    /// How images are cut: the checkpoint's settings by default, changed for example by [`ImageParams::with_num_crops`].
    pub image_params: ImageParams,
    engine: Engine<Device>,
    tokenizer: Arc<Tokenizer>,
    name: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context_tokens = self.context_tokens();
        f.debug_struct("Session")
            .field("name", &self.name)
            .field("context_tokens", &context_tokens)
            .finish_non_exhaustive()
    }
}

/// How a model is loaded; the defaults suit nearly everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// The device that runs the model, and how.
    pub device: DeviceOptions,
    /// Tokens that a prompt and its answer may have together; `None` chooses by the available memory.
    pub context_tokens: Option<usize>,
    /// Arithmetic and KV cache; `None` means [`ModelOptions::of`] the weights.
    pub model: Option<ModelOptions>,
}

/// A complete answer, how it ended and what it took.
#[derive(Clone, Debug)]
pub struct Reply {
    /// All of the answer's text, without the token that ended it.
    pub text: String,
    /// Why the answer ended: by itself, at its token limit, or because the caller stopped it.
    pub reason: FinishReason,
    /// Token counts of the prompt and of the answer.
    pub usage: Usage,
    /// How the request's time was spent.
    pub timings: Timings,
}

/// Loads a model with the default options: `"demo"` is the built-in one, anything else a folder or a quantized file.
/// Weights run as they are; none are quantized automatically. Phi-3.5-vision's folder takes its 8.3 GB of memory, plus
/// the context. A file made from it with [`quantize`](crate::weights::convert::quantize) takes half as much or less.
///
/// ```
/// let mut session = phi3v::load("demo")?;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/cover.png");
/// let cover = session.image(path)?;
/// let reply = session.ask([cover], "What is the title?", |text| print!("{text}"))?;
/// assert!(!reply.text.is_empty());
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// As for [`Session::load`].
pub fn load(model: &str) -> Result<Session> {
    Session::load(model, &SessionOptions::default())
}

impl Session {
    /// Loads the model `model`: [`demo::NAME`], or the path of a checkpoint's folder or of a quantized file.
    ///
    /// ```
    /// use phi3v::{Session, SessionOptions};
    ///
    /// let options = SessionOptions { context_tokens: Some(2048), ..SessionOptions::default() };
    /// let session = Session::load("demo", &options)?;
    /// assert_eq!((session.name(), session.context_tokens()), ("demo", 2048));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// The folder is not a checkpoint, the device cannot be opened, or the model and its context do not fit into memory.
    pub fn load(model: &str, options: &SessionOptions) -> Result<Self> {
        let checkpoint = match model {
            demo::NAME => Checkpoint::from_files(&demo::files())?,
            path => Checkpoint::open(Path::new(path))?,
        };
        Self::of(&checkpoint, options)
    }

    /// Loads an open checkpoint, whose weights are mapped and are read now.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn of(checkpoint: &Checkpoint, options: &SessionOptions) -> Result<Self> {
        let Checkpoint { name, config, preprocessor, tokenizer, weights, .. } = checkpoint;
        let device = Device::open(&options.device)?;
        let model_options = options.model.unwrap_or_else(|| ModelOptions::of(weights));
        let engine_options = EngineOptions::default();
        let request = MemoryRequest {
            weights_bytes: weights.bytes_total(),
            kv_format: model_options.kv_format,
            num_crops: preprocessor.num_crops,
            prefill_chunk: engine_options.prefill_chunk_alone,
            image_cache_bytes: engine_options.image_cache_bytes_max as u64,
            kept_bytes: 0,
            context: options.context_tokens,
        };
        let (device, plan) = MemoryPlan::on_fitting(device, &options.device, config, &request, &mut |_| {});
        let plan = plan?;
        let engine_options = EngineOptions {
            context_tokens: plan.context_tokens,
            cache_tokens: plan.cache_tokens_on(&device),
            cache_grows_to_keep: false,
            ..engine_options
        };
        let model = Phi3V::load(device, config, weights, model_options, &mut |_| ())?;
        Ok(Self {
            generation: GenerationOptions::default(),
            image_limits: ImageLimits::default(),
            image_mode: ImageMode::AsSeen,
            image_params: *preprocessor,
            engine: Engine::new(model, Arc::clone(tokenizer), checkpoint.stop_ids(), engine_options)?,
            tokenizer: Arc::clone(tokenizer),
            name: name.clone(),
        })
    }

    /// The model's name: its folder's name, `org/name` in the hub's cache, or `"demo"`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens that a prompt, images included, and its answer may have together.
    #[must_use]
    pub fn context_tokens(&self) -> usize {
        self.engine.context_tokens()
    }

    /// The checkpoint's tokenizer, for callers that build prompts or decode ids without the session.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Reads an image file (PNG, JPEG, WebP, GIF, BMP, TIFF or, with the feature `heic`, HEIC) as people see it, and cuts
    /// it into the tiles that the model encodes. Any number of questions can be asked about the result.
    ///
    /// # Errors
    /// The file cannot be read, or [`ImageError`](image::ImageError) if it is not a whole image within the limits.
    pub fn image(&self, path: impl AsRef<Path>) -> Result<Arc<ImageInputs>> {
        self.preparer().image(path)
    }

    /// Like [`image`](Self::image), from the bytes of a file.
    ///
    /// # Errors
    /// [`ImageError`](image::ImageError) if the bytes are not a whole image within the limits.
    pub fn image_from_bytes(&self, bytes: &[u8]) -> Result<Arc<ImageInputs>> {
        self.preparer().image_from_bytes(bytes)
    }

    /// Like [`image`](Self::image), from pixels, such as those of a camera's frame.
    ///
    /// ```
    /// use phi3v::image::RgbImage;
    ///
    /// let mut session = phi3v::load("demo")?;
    /// session.image_params = session.image_params.with_num_crops(1);
    /// let frame = RgbImage { width: 640, height: 480, pixels: vec![128; 640 * 480 * 3] };
    /// let frame = session.image_from_rgb(&frame)?;
    /// assert_eq!(frame.num_img_tokens(), 313);
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ImageError`](image::ImageError) if the pixels are not an image within the limits.
    pub fn image_from_rgb(&self, rgb: &RgbImage) -> Result<Arc<ImageInputs>> {
        self.preparer().image_from_rgb(rgb)
    }

    /// Answers one question about `images`, independent of earlier questions. `on_text` receives the answer's text in
    /// pieces, each as soon as it is certain; together they are the reply's text.
    ///
    /// ```
    /// let mut session = phi3v::load("demo")?;
    /// session.generation.max_new_tokens = Some(8);
    /// let reply = session.ask([], "What is the capital of France?", |_| ())?;
    /// assert!(reply.usage.completion_tokens <= 8);
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// The engine's error, if it refuses the request (for example, a prompt beyond the context) or fails.
    pub fn ask(
        &mut self,
        images: impl IntoIterator<Item = Arc<ImageInputs>>,
        question: &str,
        mut on_text: impl FnMut(&str),
    ) -> Result<Reply> {
        let mut conversation = Conversation::new(None);
        conversation.ask(images, question);
        self.reply(&mut conversation, &mut |text| {
            on_text(text);
            ControlFlow::Continue(())
        })
    }

    /// Returns how probable each choice of each question about `images` is, in the order of the questions. The images are
    /// computed once for all of them. See [`decide`](crate::decide).
    ///
    /// # Errors
    /// A question's choices cannot be told apart, or the engine refuses the request or fails.
    pub fn decide(
        &mut self,
        images: impl IntoIterator<Item = Arc<ImageInputs>>,
        questions: &[Question],
    ) -> Result<Vec<Decision>> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.preparer().decide(images, questions)?;
        let finished = self.engine.run(request, &mut ())?;
        Ok(finished.scores.into_iter().map(|scores| Decision::new(scores, 1.0)).collect())
    }

    /// Answers the last question of a conversation and adds the answer to it. `on_text` receives the text in pieces;
    /// [`ControlFlow::Break`] ends the answer there, as [`FinishReason::Cancelled`]. What earlier turns have computed is
    /// reused.
    ///
    /// ```
    /// use phi3v::Conversation;
    /// use std::ops::ControlFlow;
    ///
    /// let mut session = phi3v::load("demo")?;
    /// session.generation.max_new_tokens = Some(8);
    /// let mut conversation = Conversation::new(Some("Be brief."));
    /// for question in ["What is the capital of France?", "And of Italy?"] {
    ///     conversation.ask([], question);
    ///     session.reply(&mut conversation, &mut |_| ControlFlow::Continue(()))?;
    /// }
    /// assert_eq!(conversation.messages().len(), 5);
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`ask`](Self::ask); the conversation is then unchanged.
    pub fn reply(
        &mut self,
        conversation: &mut Conversation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let request = self.request(conversation)?;
        let mut hear = |text: &str| if text.is_empty() { ControlFlow::Continue(()) } else { on_text(text) };
        let Answer { text, finished, .. } = self.run(request, &mut |token| hear(&token.text))?;
        let Finished { mut reason, usage, timings, text: rest, .. } = finished;
        if reason != FinishReason::Cancelled && hear(&rest).is_break() {
            reason = FinishReason::Cancelled;
        }
        conversation.answered(text.clone());
        Ok(Reply { text, reason, usage, timings })
    }

    /// Runs a request to its end. It may come from [`request`](Self::request) or a [`Preparer`], possibly with a
    /// [`constraint`](Request::constraint) added, or from anywhere else. The answer has its tokens, from which
    /// [`words`](crate::words) and [`fields`](crate::fields) derive how sure the model was. `on_token` receives each
    /// token as it is chosen; [`ControlFlow::Break`] ends the answer there, as [`FinishReason::Cancelled`].
    ///
    /// ```
    /// use phi3v::constraint::{ConstraintFactory, Grammar, GrammarLimits};
    /// use std::ops::ControlFlow;
    ///
    /// let mut session = phi3v::load("demo")?;
    /// session.generation.sampling.logprobs = Some(0);
    /// let mut request = session.preparer().ask([], "Is it raining?")?;
    /// let factory = ConstraintFactory::new(session.tokenizer(), GrammarLimits::default())?;
    /// request.constraint = Some(Box::new(factory.constraint(&Grammar::Choices(vec!["yes".into(), "no".into()]))?));
    /// let answer = session.run(request, &mut |_| ControlFlow::Continue(()))?;
    /// assert!(["yes", "no"].contains(&answer.text.as_str()));
    /// assert!(answer.tokens.iter().all(|token| token.logprob.is_some()));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// The engine's error, if it refuses the request (for example, a prompt beyond the context) or fails.
    pub fn run(
        &mut self,
        request: Request,
        on_token: &mut dyn FnMut(&Token) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let id = self.engine.submit(request)?;
        let (mut text, mut tokens, mut stopped) = (String::new(), Vec::new(), false);
        loop {
            // the step may still report requests that a caller has left unfinished
            for output in self.engine.step(&mut ()).into_iter().filter(|output| output.id == id) {
                match output.event {
                    // a token that was chosen before the request was cancelled
                    Event::Token(_) if stopped => {}
                    Event::Token(token) => {
                        text.push_str(&token.text);
                        stopped = on_token(&token).is_break();
                        tokens.push(token);
                        if stopped {
                            self.engine.cancel(id);
                        }
                    }
                    Event::Finished(finished) if stopped => {
                        let finished =
                            Finished { reason: FinishReason::Cancelled, text: String::new(), ..finished };
                        return Ok(Answer { text, tokens, finished });
                    }
                    Event::Finished(finished) => {
                        text.push_str(&finished.text);
                        return Ok(Answer { text, tokens, finished });
                    }
                    Event::Failed(error) => return Err(error),
                }
            }
        }
    }

    /// Returns the request for the answer to the last question of a conversation, with the session's
    /// [`generation`](Self::generation): for an engine that runs many requests at once.
    ///
    /// # Errors
    /// Sampling parameters out of range, or a conversation without a question.
    pub fn request(&self, conversation: &Conversation) -> Result<Request> {
        self.preparer().request(conversation)
    }

    /// Returns a preparer, which reads images and makes requests on other threads while this session answers. It has the
    /// session's current [`generation`](Self::generation) and image settings.
    #[must_use]
    pub fn preparer(&self) -> Preparer {
        Preparer {
            generation: self.generation.clone(),
            image_limits: self.image_limits,
            image_mode: self.image_mode,
            image_params: self.image_params,
            tokenizer: Arc::clone(&self.tokenizer),
            context_tokens: self.context_tokens(),
        }
    }

    /// Answers the requests that come from `source`, many at a time, and yields each answer as soon as it ends; see
    /// [`Batch`]. As many run together as suit the device, as far as the memory available when the model was loaded holds
    /// their keys and values. On a card, which takes its whole cache at once, as many as one context holds.
    pub fn batch<K, E: From<crate::Error>>(
        &mut self,
        source: Coming<Vec<Asked<K, E>>>,
    ) -> Batch<'_, Device, K, E> {
        Batch::new(&mut self.engine, source)
    }

    /// The session's engine, which runs many requests at the same time.
    #[must_use]
    pub fn into_engine(self) -> Engine<Device> {
        self.engine
    }
}

/// Reads images and makes requests for a [`Session`], on any thread: the work before the engine can begin.
#[derive(Clone, Debug)]
pub struct Preparer {
    /// How answers are chosen and where they end.
    pub generation: GenerationOptions,
    /// Limits for image files; a larger file is refused before memory is allocated for its pixels.
    pub image_limits: ImageLimits,
    /// How image files are read.
    pub image_mode: ImageMode,
    /// How images are cut.
    pub image_params: ImageParams,
    tokenizer: Arc<Tokenizer>,
    context_tokens: usize,
}

impl Preparer {
    /// Like [`Session::image`], without the session.
    ///
    /// # Errors
    /// The file cannot be read, or [`ImageError`](image::ImageError) if it is not a whole image within the limits.
    pub fn image(&self, path: impl AsRef<Path>) -> Result<Arc<ImageInputs>> {
        let path = path.as_ref();
        let bytes = open_regular(path)
            .and_then(|file| read_to_limit(file, self.image_limits.bytes_max))
            .map_err(|source| ReadError { path: path.to_owned(), source })?;
        self.image_from_bytes(&bytes)
    }

    /// Like [`image`](Self::image), from the bytes of a file.
    ///
    /// # Errors
    /// [`ImageError`](image::ImageError) if the bytes are not a whole image within the limits.
    pub fn image_from_bytes(&self, bytes: &[u8]) -> Result<Arc<ImageInputs>> {
        let rgb = image::decode(bytes, self.image_mode, &self.image_limits)?;
        Ok(Arc::new(image::process(&rgb, &self.image_params)?))
    }

    /// Like [`image`](Self::image), from pixels, such as those of a camera's frame.
    ///
    /// # Errors
    /// [`ImageError`](image::ImageError) if the pixels are not an image within the limits.
    pub fn image_from_rgb(&self, rgb: &RgbImage) -> Result<Arc<ImageInputs>> {
        self.image_limits.check_size(Size::of(rgb.width, rgb.height))?;
        Ok(Arc::new(image::process(rgb, &self.image_params)?))
    }

    /// Returns the request for the answer to one question about `images`.
    ///
    /// # Errors
    /// Sampling parameters out of range.
    pub fn ask(&self, images: impl IntoIterator<Item = Arc<ImageInputs>>, question: &str) -> Result<Request> {
        let mut conversation = Conversation::new(None);
        conversation.ask(images, question);
        self.request(&conversation)
    }

    /// Returns the request for the scores of the choices of `questions`, at least one, all about `images`.
    ///
    /// # Errors
    /// A question's choices cannot be told apart, or a question exceeds the context.
    pub fn decide(
        &self,
        images: impl IntoIterator<Item = Arc<ImageInputs>>,
        questions: &[Question],
    ) -> Result<Request> {
        let mut conversation = Conversation::new(None);
        conversation.ask(images, "");
        conversation.decide(&self.tokenizer, self.context_tokens, questions)
    }

    /// Returns the request for the answer to the last question of a conversation.
    ///
    /// # Errors
    /// Sampling parameters out of range, or a conversation without a question.
    pub fn request(&self, conversation: &Conversation) -> Result<Request> {
        conversation.request(&self.tokenizer, self.context_tokens, &self.generation)
    }
}
