//! Converts a question to the engine's input: images are read, decoded and cut, and text becomes ids.
//!
//! The work runs on blocking threads, with few decoding at a time, so that a large image does not delay other
//! connections or the engine's threads for long. A thread cannot be stopped: if the client disconnects or the deadline
//! passes, the work keeps its turn and its budget until it notices, between two images.

use super::ask::{self, Ask, Detail, RequestImage, Turn, TurnPart};
use super::error::ApiError;
use super::limits::{self, Times};
use super::state::{App, ServedModel};
use crate::documents::{self, Drawer, Kind, PageChoice};
use crate::sources::{Budget, FetchFault, SourceError, Sources};
use futures_util::future::{try_join, try_join_all};
use phi3v::chat_template::{Message, Part, Role};
use phi3v::constraint::{Constraint, Grammar, GrammarConstraint};
use phi3v::engine::{CacheSalt, EngineError, Request};
use phi3v::image::{ImageInputs, ImageMode, ImageParams, NUM_CROPS_HIGH};
use phi3v::processor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// A prompt with its images, ready for the engine, and the memory charged for it.
pub struct Prompt {
    /// Prompt ids; the places of image number i hold -i.
    pub input_ids: Vec<i64>,
    /// The images, in the order of the conversation.
    pub images: Vec<Arc<ImageInputs>>,
    /// For each image its page number, if it is a page of a document.
    pub numbers: Vec<Option<usize>>,
    /// Whether part of a page could not be drawn.
    pub is_incomplete: bool,
    /// The memory charged for the body and the images, held as long as the request.
    pub budget: Budget,
}

/// The pages of a file of a request; a picture has one.
pub(super) type Document = Vec<documents::Page>;

/// The images of a request.
pub(super) struct Images {
    pub(super) images: Vec<RequestImage>,
    /// The cache salt under which the engine encodes each image while the next is decoded; `None` if it should not.
    pub(super) ahead: Option<CacheSalt>,
}

/// Reads and cuts the images of a conversation, and converts its text to ids. `budget` has been charged for the body.
/// `ahead` is as in `Images`.
///
/// # Errors
/// An image that cannot be used, or more input than the budget has left.
pub async fn prompt(
    app: &Arc<App>,
    model: &ServedModel,
    mut turns: Vec<Turn>,
    ahead: Option<CacheSalt>,
    budget: Budget,
    times: Times,
) -> Result<Prompt, ApiError> {
    let images = take_images(turns.iter_mut().flat_map(|turn| &mut turn.parts));
    let images = Images { images, ahead };
    let make = move |model: &ServedModel, documents: Vec<Document>, _: &Abandoned| {
        let messages = messages(turns, documents.iter().map(Vec::len).collect());
        let is_incomplete = documents.iter().flatten().any(|page| page.is_incomplete);
        let (numbers, images): (Vec<Option<usize>>, Vec<Arc<ImageInputs>>) =
            documents.into_iter().flatten().map(|page| (page.number, page.inputs)).unzip();
        let num_img_tokens: Vec<usize> = images.iter().map(|image| image.num_img_tokens()).collect();
        let input_ids = processor::chat_prompt(&model.tokenizer, &messages, &num_img_tokens)
            .map_err(|error| ApiError::library(&error.into()))?;
        Ok((input_ids, images, numbers, is_incomplete))
    };
    let ((input_ids, images, numbers, is_incomplete), budget) =
        with_images(app, model, images, budget, times, make).await?;
    Ok(Prompt { input_ids, images, numbers, is_incomplete, budget })
}

/// Reads and cuts `images`, and passes them to `make` on the same thread. Returns the result of `make` and the budget
/// charged for the images.
///
/// # Errors
/// An image that cannot be used, more input than the budget has left, or the error of `make`.
pub(super) async fn with_images<T: Send + 'static>(
    app: &Arc<App>,
    model: &ServedModel,
    Images { images, ahead }: Images,
    budget: Budget,
    times: Times,
    make: impl FnOnce(&ServedModel, Vec<Document>, &Abandoned) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, Budget), ApiError> {
    let (files, mut budget) = read_all(app, images, budget, times).await?;
    let turns = match &files[..] {
        [] => &app.texts,
        files if files.iter().any(|file| documents::is_for_drawer(&file.bytes)) => &app.drawers,
        _ => &app.decoders,
    };
    let turn = turns.take(budget.client()).await;
    let (app, model) = (Arc::clone(app), model.clone());
    blocking(move |abandoned| {
        let _turn = turn;
        let documents = decode_all(&app, &model, files, ahead, &mut budget, abandoned)?;
        Ok((make(&model, documents, abandoned)?, budget))
    })
    .await
}

/// A question that is ready for the engine.
pub struct Requests {
    /// One request for each answer.
    pub requests: Vec<Request>,
    /// Whether part of a page that the question is about could not be drawn.
    pub is_incomplete: bool,
    /// The memory charged for body and images, held as long as the requests.
    pub budget: Budget,
}

/// Returns the engine's requests for a question.
///
/// # Errors
/// The errors of [`prompt`]; also if prompt and answer do not fit into the context, or the answer's form cannot be
/// followed.
pub async fn requests(
    app: &Arc<App>,
    model: &ServedModel,
    mut ask: Ask,
    budget: Budget,
    times: Times,
) -> Result<Requests, ApiError> {
    let turns = std::mem::take(&mut ask.turns);
    let prompt = prompt(app, model, turns, Some(ask.cache_salt), budget, times).await?;
    prompt.requests(app, model, ask).await
}

impl Prompt {
    async fn requests(self, app: &Arc<App>, model: &ServedModel, ask: Ask) -> Result<Requests, ApiError> {
        let max_new_tokens = max_new_tokens(app, model, &ask, self.input_ids.len())?;
        if ask.form.is_none() {
            return Ok(self.build(&ask, max_new_tokens, None));
        }
        // compiling a large schema takes time
        let turn = app.forms.take(self.budget.client()).await;
        let model = model.clone();
        blocking(move |abandoned| {
            let _turn = turn;
            abandoned.check()?;
            let constraint =
                ask.form.as_ref().map(|form| constraint(&model, form, ask.names.form)).transpose()?;
            Ok(self.build(&ask, max_new_tokens, constraint))
        })
        .await
    }

    fn build(self, ask: &Ask, max_new_tokens: usize, constraint: Option<GrammarConstraint>) -> Requests {
        let request = |choice: usize| {
            let mut sampling = ask.sampling.clone();
            sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
            Request {
                input_ids: self.input_ids.clone(),
                images: self.images.clone(),
                sampling,
                max_new_tokens,
                stop: ask.stop.clone(),
                constraint: constraint.clone().map(|constraint| Box::new(constraint) as Box<dyn Constraint>),
                cache_salt: ask.cache_salt,
                scored: Vec::new(),
            }
        };
        let requests = (0..ask.choices).map(request).collect();
        Requests { requests, is_incomplete: self.is_incomplete, budget: self.budget }
    }
}

fn constraint(model: &ServedModel, form: &Grammar, param: &str) -> Result<GrammarConstraint, ApiError> {
    model.constraints.constraint(form).map_err(|error| ApiError::library(&error.into()).param(param))
}

/// Tells whether a piece of work was abandoned, that is, nobody waits for it any more.
#[derive(Clone, Default)]
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// # Errors
    /// The work was abandoned; nobody reads the error either.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        if self.0.load(Ordering::Relaxed) { Err(limits::deadline_exceeded()) } else { Ok(()) }
    }
}

/// Marks the work as abandoned when dropped.
struct Waiting(Abandoned);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a blocking thread, within the log span of the request. What `work` owns, its turn and its budget, is
/// kept until `work` has really ended, even if this future is dropped earlier.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Abandoned) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let abandoned = Abandoned::default();
    let _waiting = Waiting(abandoned.clone());
    let span = tracing::Span::current();
    let done = spawn_blocking(move || {
        span.in_scope(|| {
            abandoned.check()?;
            work(&abandoned)
        })
    });
    done.await.unwrap_or_else(|error| {
        tracing::error!(%error, "preparing a request panicked");
        Err(ApiError::internal("the request could not be prepared"))
    })
}

/// An image's file, how to cut it, and the memory it takes until it is cut.
struct File {
    /// Index of the image in the conversation, from 0.
    index: usize,
    bytes: Vec<u8>,
    detail: Detail,
    pages: Option<PageChoice>,
    param: String,
    _budget: Budget,
}

/// An image whose file is to be read.
struct Reading {
    index: usize,
    image: RequestImage,
    budget: Budget,
    /// Deadline for fetching the file, including the wait for a turn.
    deadline: Instant,
}

/// Moves the images out of the parts of a conversation. Their parts stay as placeholders.
pub(super) fn take_images<'a>(parts: impl IntoIterator<Item = &'a mut TurnPart>) -> Vec<RequestImage> {
    parts
        .into_iter()
        .filter_map(|part| match part {
            TurnPart::Text(_) => None,
            TurnPart::Image(image) => Some(RequestImage {
                url: std::mem::take(&mut image.url),
                detail: image.detail,
                pages: image.pages.take(),
                param: std::mem::take(&mut image.param),
            }),
        })
        .collect()
}

/// Reads the images' files. Those outside the request are read concurrently, under one deadline. `budget`, which was
/// charged for the body, moves into the work and is returned with its result.
async fn read_all(
    app: &Arc<App>,
    images: Vec<RequestImage>,
    budget: Budget,
    times: Times,
) -> Result<(Vec<File>, Budget), ApiError> {
    let deadline = times.deadline.min(Instant::now() + app.limits.remote_time_max);
    let readings = images.into_iter().enumerate();
    let readings = readings.map(|(index, image)| Reading { index, image, budget: budget.beside(), deadline });
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        readings.partition(|reading| Sources::is_in_request(&reading.image.url));
    let elsewhere = try_join_all(elsewhere.into_iter().map(|reading| read_elsewhere(app, reading)));
    let (app, none_here) = (Arc::clone(app), here.is_empty());
    let here = async move {
        if none_here {
            return Ok((Vec::new(), budget));
        }
        blocking(move |abandoned| {
            let read = |reading| {
                abandoned.check()?;
                read(&app, reading)
            };
            let files = here.into_iter().map(read).collect::<Result<Vec<_>, ApiError>>()?;
            Ok((files, budget))
        })
        .await
    };
    let ((mut files, budget), elsewhere) = try_join(here, elsewhere).await?;
    files.extend(elsewhere);
    files.sort_unstable_by_key(|file| file.index);
    Ok((files, budget))
}

/// Reads an image that is not part of the request, as soon as its client has a turn.
async fn read_elsewhere(app: &Arc<App>, reading: Reading) -> Result<File, ApiError> {
    let RequestImage { url, param, .. } = &reading.image;
    let turn = match app.sources.turns(url) {
        Some(turns) => {
            let turn = tokio::time::timeout_at(reading.deadline, turns.take(reading.budget.client())).await;
            let late = |_| {
                let limit = app.limits.remote_time_max;
                ApiError::from(SourceError::from(FetchFault::Time { limit })).param(param)
            };
            Some(turn.map_err(late)?)
        }
        None => None,
    };
    let app = Arc::clone(app);
    blocking(move |_| {
        let _turn = turn;
        read(&app, reading)
    })
    .await
}

fn read(app: &App, reading: Reading) -> Result<File, ApiError> {
    let Reading { index, image, mut budget, deadline } = reading;
    let RequestImage { url, detail, pages, param } = image;
    let bytes = app.sources.read(&url, &app.limits.sources(), &mut budget, deadline.into_std());
    Ok(File {
        index,
        bytes: bytes.map_err(|error| ApiError::from(error).param(&param))?,
        detail,
        pages,
        param,
        _budget: budget,
    })
}

/// Returns the images of each file: one, or the pages of a document. `ahead` is as in [`Images`].
fn decode_all(
    app: &App,
    model: &ServedModel,
    files: Vec<File>,
    ahead: Option<CacheSalt>,
    budget: &mut Budget,
    abandoned: &Abandoned,
) -> Result<Vec<Document>, ApiError> {
    let limit = app.limits.images_max;
    let (mut documents, mut left) = (Vec::with_capacity(files.len()), limit);
    let (several, mut rows) = (files.len() > 1, 0);
    let drawer = app.drawer.clone().together_within(app.limits.draw_time_max);
    for File { bytes, detail, pages, param, _budget, .. } in files {
        abandoned.check()?;
        let refused = |error| ApiError::document(&error, &param);
        let reading = reading(app, model, &drawer, detail, pages);
        let mut images = Vec::new();
        let pages = reading.open(bytes).map_err(refused)?;
        if pages.kind() == Kind::Picture {
            reading
                .pages
                .iter()
                .try_for_each(|choice| choice.of_document(1, 1).map(drop))
                .map_err(refused)?;
        }
        for page in pages {
            abandoned.check()?;
            left = left.checked_sub(1).ok_or_else(|| too_many_pages(limit).param(&param))?;
            let page = page.map_err(refused)?;
            if page.is_incomplete {
                tracing::warn!(page = page.number, "a part of a document could not be drawn");
            }
            budget.charge(size_of_val(page.inputs.distinct.as_slice()))?;
            rows += page.inputs.num_img_tokens();
            // an image that is alone in its file goes to the engine at once; a request with more rows than fit is
            // refused later
            if let Some(cache_salt) = ahead
                && (several || page.number.is_some())
                && rows < model.context_tokens
            {
                app.engine.encode_ahead(&page.inputs, cache_salt);
            }
            images.push(page);
        }
        documents.push(images);
    }
    Ok(documents)
}

fn too_many_pages(limit: usize) -> ApiError {
    ask::too_many_images(format!("the request has more pictures and pages than {limit}, the limit"))
}

/// Returns how a file of a request becomes images.
fn reading(
    app: &App,
    model: &ServedModel,
    drawer: &Drawer,
    detail: Detail,
    pages: Option<PageChoice>,
) -> documents::Reading {
    let num_crops = match detail {
        Detail::Auto => model.image_params.num_crops,
        Detail::Low => 1,
        Detail::High | Detail::Original => NUM_CROPS_HIGH,
    };
    documents::Reading {
        mode: ImageMode::AsSeen,
        params: ImageParams { num_crops, ..model.image_params },
        limits: app.limits.image,
        pages,
        // no external programs are run on input from strangers
        frames: None,
        pages_unasked_max: app.limits.images_max,
        drawer: drawer.clone(),
    }
}

/// Converts the conversation to the library's types and numbers its images. The n-th image part becomes `pages[n]`
/// images.
pub(super) fn messages(turns: Vec<Turn>, pages: Vec<usize>) -> Vec<Message> {
    let (mut number, mut pages) = (0, pages.into_iter());
    let mut parts = |part| match part {
        TurnPart::Text(text) => vec![Part::Text(text)],
        TurnPart::Image(_) => {
            let first = number + 1;
            number += pages.next().unwrap_or(0);
            (first..=number).map(Part::Image).collect()
        }
    };
    let message = |mut turn: Turn| {
        images_first(&mut turn.parts);
        let mut content: Vec<Part> = Vec::with_capacity(turn.parts.len());
        for next in turn.parts.into_iter().flat_map(&mut parts) {
            // adjacent texts go on lines of their own, as vLLM joins them
            if let (Some(Part::Text(before)), Part::Text(text)) = (content.last_mut(), &next) {
                before.push('\n');
                before.push_str(text);
            } else {
                content.push(next);
            }
        }
        match turn.role {
            Role::User => Message::user(content),
            role => Message { role, content },
        }
    };
    turns.into_iter().map(message).collect()
}

/// Moves images before all texts. The models were trained that way; OpenAI's clients send the question first.
fn images_first(parts: &mut [TurnPart]) {
    let is_image = |part: &TurnPart| matches!(part, TurnPart::Image(_));
    if let Some(first) = parts.iter().position(is_image)
        && parts[first..].iter().all(is_image)
    {
        parts.rotate_left(first);
    }
}

/// Returns the maximum length of the answer: as requested, or as much of the default as the context has left.
fn max_new_tokens(app: &App, model: &ServedModel, ask: &Ask, prompt: usize) -> Result<usize, ApiError> {
    let context = model.context_tokens;
    let left = context.saturating_sub(prompt);
    let answer = ask.max_tokens.map_or(app.limits.max_tokens_default.min(left).max(1), |(tokens, _)| tokens);
    if answer > left {
        let error = ApiError::library(&EngineError::ContextLength { prompt, answer, context }.into());
        return Err(error.param(ask.max_tokens.map_or(ask.names.turns, |(_, name)| name)));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::engine_thread::EngineHandle;
    use crate::server::error::Code;
    use crate::sources::{Fetcher, Turns};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_turn_until_it_has_ended() {
        let turns = Turns::new(1);
        let turn = turns.take(CacheSalt::default()).await;
        let (go_on, wait) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let mut work = Box::pin(blocking(move |abandoned| {
            let _turn = turn;
            begin.send(()).unwrap();
            wait.recv().unwrap();
            tell.send(abandoned.check().is_err()).unwrap();
            Ok(())
        }));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut work).await.is_err());
        // work that is abandoned before it begins never runs
        begun.recv().unwrap();
        drop(work);
        assert_eq!(turns.free(), 0, "a client that left must not make room for another decoder");
        go_on.send(()).unwrap();
        assert!(told.recv().unwrap(), "the work learns that nobody waits");
        let again = turns.take(CacheSalt::default());
        let turn = tokio::time::timeout(Duration::from_secs(10), again).await;
        assert!(turn.is_ok(), "the turn is given back");
    }

    #[tokio::test]
    async fn work_has_until_the_deadline() {
        let limits = limits::Limits { request_time_max: Duration::from_millis(50), ..Default::default() };
        let (_never, wait) = mpsc::channel::<()>();
        let work = blocking(move |_| {
            // ends when the sender is dropped
            let _ = wait.recv_timeout(Duration::from_secs(2));
            Ok(())
        });
        assert_eq!(Times::start(&limits).within(work).await.unwrap_err().code, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn pictures_wait_for_no_documents() {
        use base64::Engine as _;
        let limits = limits::Limits::default();
        let app =
            Arc::new(App::new(limits, EngineHandle::new(1).0, Sources::data_urls_only(), Drawer::default()));
        let read = |bytes: &[u8]| {
            let url = format!(
                "data:application/octet-stream;base64,{}",
                base64::engine::general_purpose::STANDARD.encode(bytes)
            );
            let image = RequestImage { url, detail: Detail::Auto, pages: None, param: String::new() };
            let (app, budget, times) = (Arc::clone(&app), app.budget([2; 32]), Times::start(&app.limits));
            async move {
                let images = Images { images: vec![image], ahead: None };
                let pages = |_: &ServedModel, documents: Vec<Document>, _: &Abandoned| Ok(documents.len());
                let read = with_images(&app, &ServedModel::demo(), images, budget, times, pages).await;
                read.map(|(files, _)| files)
            }
        };
        let turns = async |turns: &Turns| {
            let mut taken = Vec::new();
            while turns.free() > 0 {
                taken.push(turns.take([1; 32]).await);
            }
            taken
        };
        let picture = include_bytes!("../../../../examples/cover.png").as_slice();
        let drawing = turns(&app.drawers).await;
        assert_eq!(read(picture).await.unwrap(), 1);
        if cfg!(feature = "pdf") {
            let waiting = tokio::time::timeout(Duration::from_millis(50), read(b"%PDF-1.7"));
            assert!(waiting.await.is_err(), "there is no turn to draw it");
            drop(drawing);
            let _decoding = turns(&app.decoders).await;
            assert!(read(b"%PDF-1.7").await.is_err(), "it is no whole document");
        }
    }

    #[test]
    fn the_engine_begins_with_pictures_while_others_are_decoded() {
        let (engine, mut jobs) = EngineHandle::new(1);
        let limits = limits::Limits::default();
        let app = App::new(limits, engine, Sources::data_urls_only(), Drawer::default());
        let mut decode = |pictures: &[&[u8]], ahead, context_tokens| {
            let file = |(index, bytes): (usize, &&[u8])| File {
                index,
                bytes: bytes.to_vec(),
                detail: Detail::Auto,
                pages: None,
                param: String::new(),
                _budget: app.budget(CacheSalt::default()),
            };
            let files = pictures.iter().enumerate().map(file).collect();
            let model = ServedModel { context_tokens, ..ServedModel::demo() };
            let decoded = decode_all(
                &app,
                &model,
                files,
                ahead,
                &mut app.budget(CacheSalt::default()),
                &Abandoned::default(),
            );
            let decoded = decoded.map(|documents| documents.into_iter().flatten().map(|page| page.inputs));
            (decoded.map(Vec::from_iter), jobs.images_ahead())
        };
        let (picture, broken) = (include_bytes!("../../../../examples/cover.png").as_slice(), b"no picture");
        let salt = Some(CacheSalt::default());

        let (decoded, begun) = decode(&[picture; 3], salt, 4096);
        assert!(decoded.unwrap().iter().zip(&begun).all(|(decoded, begun)| Arc::ptr_eq(decoded, begun)));
        assert_eq!(begun.len(), 3);
        let two = 2 * begun[0].num_img_tokens();
        assert_eq!(decode(&[picture], salt, 4096).1.len(), 0, "there is nothing to do meanwhile");
        assert_eq!(decode(&[picture; 3], None, 4096).1.len(), 0, "there will be no request");
        assert_eq!(decode(&[picture; 3], salt, two).1.len(), 1, "the request will be refused");
        let (decoded, begun) = decode(&[picture, broken], salt, 4096);
        assert!(decoded.is_err() && begun.is_empty(), "nothing is left of a request that was refused");
    }

    /// An image whose host is served by `listener`.
    fn image_of(host: &str, listener: &TcpListener) -> (String, RequestImage) {
        let host = format!("{host}:{}", listener.local_addr().unwrap().port());
        let url = format!("http://{host}/a.png");
        (host, RequestImage { url, detail: Detail::Auto, pages: None, param: String::new() })
    }

    #[tokio::test]
    async fn clients_take_turns_at_a_host() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (host, image) = image_of("one.example", &listener);
        let sources = Sources::data_urls_only().with_remote(Fetcher::of_this_machine(&[host], 1));
        let limits = limits::Limits::default();
        let app = Arc::new(App::new(limits, EngineHandle::new(1).0, sources, Drawer::default()));
        let mut fetched = Vec::new();
        for (name, client) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2)] {
            let url = image.url.replace("a.png", name);
            let image = RequestImage { url, detail: Detail::Auto, pages: None, param: String::new() };
            let (app, budget, times) =
                (Arc::clone(&app), app.budget([client; 32]), Times::start(&app.limits));
            fetched.push(tokio::spawn(async move { read_all(&app, vec![image], budget, times).await }));
            // lets the task run as far as it can before the next one starts
            tokio::task::yield_now().await;
        }
        let asked = std::thread::spawn(move || {
            let answer = |mut stream: std::net::TcpStream| {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\npicture")
                    .unwrap();
                String::from_utf8_lossy(&head[.."GET /a1".len().min(length)]).into_owned()
            };
            (0..4).map(|_| answer(listener.accept().unwrap().0)).collect::<Vec<_>>()
        });
        for fetched in fetched {
            assert!(fetched.await.unwrap().is_ok());
        }
        assert_eq!(asked.join().unwrap(), ["GET /a1", "GET /a2", "GET /b1", "GET /a3"]);
    }

    #[tokio::test]
    async fn a_slow_host_holds_up_its_own_pictures_only_and_waiting_counts() {
        const TURNS: usize = 2;
        let (slow, fast) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let ((slow_host, of_slow), (fast_host, of_fast)) =
            (image_of("slow.example", &slow), image_of("fast.example", &fast));
        let fetcher = Fetcher::of_this_machine(&[slow_host, fast_host], TURNS);
        let limits = limits::Limits { remote_time_max: Duration::from_secs(4), ..Default::default() };
        let sources = Sources::data_urls_only().with_remote(fetcher);
        let app = Arc::new(App::new(limits, EngineHandle::new(1).0, sources, Drawer::default()));
        let read = |image: &RequestImage| {
            let image = RequestImage {
                url: image.url.clone(),
                detail: image.detail,
                pages: None,
                param: String::new(),
            };
            let (app, budget, times) =
                (Arc::clone(&app), app.budget(CacheSalt::default()), Times::start(&app.limits));
            tokio::spawn(async move { read_all(&app, vec![image], budget, times).await })
        };
        // the server accepts connections and never answers
        let waiting: Vec<_> = (0..3 * TURNS).map(|_| read(&of_slow)).collect();
        std::thread::spawn(move || {
            let (mut stream, _) = fast.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 7\r\n\r\npicture";
            let _ = stream.write_all(answer);
        });
        let (files, _) = read(&of_fast).await.unwrap().unwrap();
        assert_eq!(files[0].bytes, b"picture");
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "the fast one waits for no slow one");
        for waiting in waiting {
            let error = waiting.await.unwrap().err().unwrap();
            assert_eq!(error.code, Code::ImageFetchFailed);
        }
        // requests that never got a turn had no more time than the others
        slow.set_nonblocking(true).unwrap();
        assert_eq!(std::iter::from_fn(|| slow.accept().ok()).count(), TURNS);
    }
}
